"""Measure a saliency network on scenes it was not trained on, with depth and without."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from mmfusion.checkpoint import load_checkpoint
from mmfusion.graph.depth import unpack_depth
from mmfusion.graph.depth_range import DepthRange
from mmfusion.graph.photometry import pack_uint8, unpack_rgb8
from mmfusion.graph.saliency import SaliencyBranch
from mmfusion.haf.network import HAF
from mmfusion.metrics import compare_saliency, saliency_library, summarise_saliency
from mmfusion.metrics.saliency import SaliencyFigures
from mmfusion.registry import create_model
from mmfusion.train.scenes import Scene, load_scenes

_FOREGROUND = 128


def evaluate_saliency(
    model: str,
    checkpoint: Path,
    folders: Sequence[Path],
    out: Path,
    depth_range: DepthRange | None = None,
) -> dict[str, dict[str, float]]:
    """Saliency metrics of a network over scenes.

    Args:
        model: name for `create_model`.
        checkpoint: its weights, safetensors.
        folders: see `load_scenes`.
        out: JSON file to write the figures to.
        depth_range: that the network was trained with; the default one if None.

    Returns:
        Figures by what the network sees ("rgb+depth", "rgb") and metric.

    Raises:
        ModelError: if the checkpoint does not fit.
        DataError: if the data are unusable.
        MetricError: if the package that measures is not installed.
    """
    depth_range = depth_range or DepthRange()
    saliency_library()  # better now than after the first scene
    network = create_model(model)
    load_checkpoint(network, checkpoint)
    scenes = load_scenes(folders)
    compared: dict[str, list[SaliencyFigures]] = {"rgb+depth": [], "rgb": []}
    by_size = itertools.groupby(
        tqdm(sorted(scenes, key=_size), unit="scene", dynamic_ncols=True), _size
    )
    for size, alike in by_size:
        branch = saliency_branch(network, size, depth_range)
        for scene in alike:
            for modalities, entries in compared.items():
                _, judged = judge_scene(branch, scene, with_depth="depth" in modalities)
                entries.append(judged)
    figures = {name: summarise_saliency(entries) for name, entries in compared.items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    record = {"scenes": len(scenes), "figures": figures}
    out.write_text(json.dumps(record, indent=2) + "\n")
    return figures


def saliency_branch(
    network: nn.Module, size: tuple[int, int], depth_range: DepthRange
) -> SaliencyBranch:
    """A trained network as it runs on pictures of a size (height, width)."""
    device = next(network.parameters()).device
    branch = SaliencyBranch(
        # Tables are made on the CPU, where the weights must be to be folded with them.
        cast("HAF", copy.deepcopy(network).cpu()),
        rgb_size=size,
        depth_size=size,
        input_size=None,
        depth_range=depth_range,
    )
    return branch.to(device).eval()


def judge_scene(
    branch: SaliencyBranch, scene: Scene, *, with_depth: bool
) -> tuple[NDArray[np.uint8], SaliencyFigures]:
    """The map of a scene, uint8 (H, W), and how it compares with the mask."""
    truth = np.where(scene.mask > _FOREGROUND, 255, 0).astype(np.uint8)
    saliency = _find(branch, scene, with_depth=with_depth)
    return saliency, compare_saliency(saliency, truth)


def _size(scene: Scene) -> tuple[int, int]:
    return cast("tuple[int, int]", scene.mask.shape)


def _find(branch: SaliencyBranch, scene: Scene, *, with_depth: bool) -> NDArray[np.uint8]:
    raw = scene.depth.astype("<u2").view(np.uint8).reshape(*scene.depth.shape, 2)
    device = next(branch.parameters()).device
    metres, valid = unpack_depth(torch.from_numpy(raw).to(device))
    with torch.inference_mode():
        rgb = unpack_rgb8(torch.from_numpy(scene.rgb).to(device))
        probability = branch(rgb, metres, valid * float(with_depth))
        picture: NDArray[np.uint8] = pack_uint8(probability)[..., 0].cpu().numpy()
    return picture
