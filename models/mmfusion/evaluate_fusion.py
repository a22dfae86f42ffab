"""Measure a fusion network on pairs it was not trained on, beside fusions anyone can write."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from mmfusion.checkpoint import load_checkpoint
from mmfusion.failures import Failures
from mmfusion.graph.luma_fusion import LumaFusion
from mmfusion.graph.photometry import pack_uint8
from mmfusion.metrics import (
    aggregate,
    average_fusion,
    fusion_metrics,
    maximum_fusion,
    pyramid_fusion,
)
from mmfusion.quality import (
    BOTH,
    SEEN_OF_PAIRS,
    Figures,
    describe_data,
    quality_entries,
    write_evaluation,
)
from mmfusion.registry import create_model
from mmfusion.train.degradation import degrade
from mmfusion.train.pairs import Pair, load_pairs

Picture = NDArray[np.uint8]

_STATED = ("VIF", "Q_ABF", "SF", "AG", "SSIM")
_RANKED_BY = "Q_ABF"


def evaluate_fusion(
    model: str,
    checkpoint: Path,
    folders: Sequence[Path],
    out: Path,
    fusion_scale: int = 1,
    *,
    data_name: str | None = None,
    failures: Path | None = None,
) -> Figures:
    """Mean fusion metrics of a network and of baselines on the luma of pairs.

    The pair's own 8 bits are what the network sees, at the pair's own size. All pictures are
    judged by the whole pair, also where the network saw one camera alone.

    Args:
        model: name for `create_model`.
        checkpoint: its weights, safetensors.
        folders: pair folders, see `find_pairs`.
        out: JSON file to write the means to, with entries for a manifest's ``quality``.
        fusion_scale: as in `CameraSpec`.
        data_name: what ``quality`` calls the data; None for the number of pairs and the names
            of the folders.
        failures: folder for pictures of the pairs with the lowest Q_ABF.

    Returns:
        Means by what the network sees ("rgb+thermal", "rgb", "thermal") or baseline ("average",
        "maximum", "pyramid") and metric; NaN where it is defined for no pair.
    """
    network = create_model(model)
    sha256 = load_checkpoint(network, checkpoint)
    fusion = LumaFusion(network, fusion_scale).eval()
    methods: dict[str, Callable[[Pair], Picture]] = {
        **{name: partial(publish_luma, fusion, modalities=name) for name in SEEN_OF_PAIRS},
        "average": lambda pair: average_fusion(pair.infrared, pair.visible),
        "maximum": lambda pair: maximum_fusion(pair.infrared, pair.visible),
        "pyramid": lambda pair: pyramid_fusion(pair.infrared, pair.visible),
    }
    pairs = load_pairs(folders)
    worst = Failures(failures) if failures else None
    frames: dict[str, list[dict[str, float]]] = {name: [] for name in methods}
    for pair in tqdm(pairs, unit="pair", dynamic_ncols=True):
        for name, method in methods.items():
            fused = method(pair)
            frames[name].append(fusion_metrics(fused, pair.infrared, pair.visible))
            if worst and name == BOTH:
                figure = frames[name][-1][_RANKED_BY]
                caption = f"{pair.name}: {_RANKED_BY} {figure:.3f}"
                worst.add(-figure, caption, partial(_panels, pair, fused))
    means = {
        name: {metric: summary.mean for metric, summary in aggregate(rows).items()}
        for name, rows in frames.items()
    }
    data = data_name or describe_data(len(pairs), "pair", folders)
    seen = {name: means[name] for name in SEEN_OF_PAIRS}
    record = {
        "model": model,
        "checkpoint_sha256": sha256,
        "pairs": len(pairs),
        "fusion_scale": fusion_scale,
        "means": means,
        "quality": quality_entries(
            seen, _STATED, "depth", f"{data}, luma, fusion_scale {fusion_scale}"
        ),
    }
    write_evaluation(out, record)
    if worst:
        worst.write()
    return means


def publish_luma(fusion: LumaFusion, pair: Pair, modalities: str = BOTH) -> Picture:
    """Luma of what a compiled graph publishes of a pair, of which it may see one picture alone.

    Args:
        fusion: in evaluation mode.
        pair: of one size.
        modalities: one of `SEEN_OF_PAIRS`.

    Returns:
        uint8 (H, W).
    """
    whole = {
        "rgb": torch.from_numpy(pair.visible)[None].float(),
        "thermal": torch.from_numpy(pair.infrared)[None].float(),
    }
    # Certain faults: the generator decides nothing.
    seen = degrade(whole, SEEN_OF_PAIRS[modalities], np.random.default_rng(0), white=255.0)
    visible, infrared = (seen[name][0].byte().numpy() for name in ("rgb", "thermal"))
    if modalities == "rgb":  # which passes through unchanged
        return visible
    return fuse_luma(fusion, replace(pair, infrared=infrared, visible=visible))


def fuse_luma(
    fusion: LumaFusion,
    pair: Pair,
    device: torch.device = torch.device("cpu"),  # noqa: B008
) -> Picture:
    """Fuse a pair at its own size: uint8 (H, W)."""
    infrared, luma = (
        torch.from_numpy(picture)[None, None].to(device).float() / 255
        for picture in (pair.infrared, pair.visible)
    )
    with torch.inference_mode():
        picture: Picture = pack_uint8(fusion(infrared, luma))[..., 0].cpu().numpy()
    return picture


def _panels(pair: Pair, fused: Picture) -> Mapping[str, Picture]:
    return {"visible": pair.visible, "infrared": pair.infrared, "fused": fused}
