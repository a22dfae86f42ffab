"""Measure a fusion network on pairs it was not trained on, beside fusions anyone can write."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from mmfusion.checkpoint import load_checkpoint
from mmfusion.graph.luma_fusion import LumaFusion
from mmfusion.graph.photometry import pack_uint8
from mmfusion.metrics import average_fusion, fusion_metrics, maximum_fusion, pyramid_fusion
from mmfusion.registry import create_model
from mmfusion.train.pairs import Pair, load_pairs

Picture = NDArray[np.uint8]


def evaluate_fusion(
    model: str, checkpoint: Path, folders: Sequence[Path], out: Path, fusion_scale: int = 1
) -> dict[str, dict[str, float]]:
    """Mean fusion metrics of a network and of baselines on the luma of pairs.

    The pair's own 8 bits are what the network sees, at the pair's own size.

    Args:
        model: name for `create_model`.
        checkpoint: its weights, safetensors.
        folders: pair folders, see `find_pairs`.
        out: JSON file to write the means to.
        fusion_scale: as in `CameraSpec`.

    Returns:
        Means by method ("network", "average", "maximum", "pyramid") and metric.
    """
    network = create_model(model)
    load_checkpoint(network, checkpoint)
    fusion = LumaFusion(network, fusion_scale).eval()
    methods: dict[str, Callable[[Pair], Picture]] = {
        "network": lambda pair: fuse_luma(fusion, pair),
        "average": lambda pair: average_fusion(pair.infrared, pair.visible),
        "maximum": lambda pair: maximum_fusion(pair.infrared, pair.visible),
        "pyramid": lambda pair: pyramid_fusion(pair.infrared, pair.visible),
    }
    pairs = load_pairs(folders)
    frames: dict[str, list[dict[str, float]]] = {name: [] for name in methods}
    for pair in tqdm(pairs, unit="pair", dynamic_ncols=True):
        for name, method in methods.items():
            frames[name].append(fusion_metrics(method(pair), pair.infrared, pair.visible))
    means = {
        name: {key: float(np.nanmean([frame[key] for frame in rows])) for key in rows[0]}
        for name, rows in frames.items()
    }
    record = {"pairs": len(pairs), "fusion_scale": fusion_scale, "means": means}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=2) + "\n")
    return means


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
