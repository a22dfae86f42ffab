"""Measure a saliency network on scenes it was not trained on, with depth and without."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from mmfusion.checkpoint import load_checkpoint
from mmfusion.graph.depth_range import DepthRange
from mmfusion.metrics import compare_saliency, saliency_library, summarise_saliency
from mmfusion.metrics.saliency import SaliencyFigures
from mmfusion.registry import create_model
from mmfusion.saliency_scenes import (
    scenes_with_branch,
    see_scene,
    trained_depth_range,
    truth_of,
)
from mmfusion.train.scenes import load_scenes


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
        depth_range: that the network was trained with; see `trained_depth_range` if None.

    Returns:
        Figures by what the network sees ("rgb+depth", "rgb") and metric.

    Raises:
        ModelError: if the checkpoint does not fit.
        DataError: if the data are unusable.
        MetricError: if the package that measures is not installed.
    """
    saliency_library()  # better now than after the first scene
    network = create_model(model)
    load_checkpoint(network, checkpoint)
    depth_range = depth_range or trained_depth_range(checkpoint)
    scenes = load_scenes(folders)
    compared: dict[str, list[SaliencyFigures]] = {"rgb+depth": [], "rgb": []}
    with tqdm(total=len(scenes), unit="scene", dynamic_ncols=True) as progress:
        for branch, scene in scenes_with_branch(network, scenes, depth_range):
            truth = truth_of(scene)
            for modalities, entries in compared.items():
                saliency = see_scene(branch, scene, with_depth="depth" in modalities)
                entries.append(compare_saliency(saliency, truth))
            progress.update()
    figures = {name: summarise_saliency(entries) for name, entries in compared.items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    record = {"scenes": len(scenes), "figures": figures}
    out.write_text(json.dumps(record, indent=2) + "\n")
    return figures
