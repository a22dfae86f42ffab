"""Measure a saliency network on scenes it was not trained on, with depth and without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mmfusion.checkpoint import load_checkpoint
from mmfusion.corruptions import closeness_of
from mmfusion.failures import Failures
from mmfusion.graph.depth_range import DepthRange
from mmfusion.metrics import compare_saliency, saliency_library, summarise_saliency
from mmfusion.metrics.saliency import SaliencyFigures
from mmfusion.quality import Figures, describe_data, quality_entries, write_evaluation
from mmfusion.registry import create_model
from mmfusion.saliency_scenes import (
    scenes_with_branch,
    see_scene,
    trained_depth,
    truth_of,
)
from mmfusion.train.scenes import Scene, load_scenes

Picture = NDArray[np.uint8]

_WITH_DEPTH = "rgb+depth"
_STATED = ("S", "F_max", "E_max", "F_weighted", "MAE")


def evaluate_saliency(
    model: str,
    checkpoint: Path,
    folders: Sequence[Path],
    out: Path,
    *,
    data_name: str | None = None,
    failures: Path | None = None,
) -> Figures:
    """Saliency metrics of a network over scenes.

    Args:
        model: name for `create_model`.
        checkpoint: its weights, safetensors; depth is read as in their training, see
            `trained_depth`.
        folders: see `load_scenes`.
        out: JSON file to write the figures to, with entries for a manifest's ``quality``.
        data_name: what ``quality`` calls the data; None for the number of scenes and the names
            of the folders.
        failures: folder for pictures of the scenes with the lowest S-measure with depth.

    Returns:
        Figures by what the network sees ("rgb+depth", "rgb") and metric.

    Raises:
        ModelError: if the checkpoint does not fit.
        DataError: if the data are unusable.
        MetricError: if the package that measures is not installed.
    """
    saliency_library()  # better now than after the first scene
    network = create_model(model)
    sha256 = load_checkpoint(network, checkpoint)
    reading = trained_depth(checkpoint)
    depth_range = reading.range
    scenes = load_scenes(folders, reading)
    worst = Failures(failures) if failures else None
    compared: dict[str, list[SaliencyFigures]] = {_WITH_DEPTH: [], "rgb": []}
    with tqdm(total=len(scenes), unit="scene", dynamic_ncols=True) as progress:
        for branch, scene in scenes_with_branch(network, scenes, depth_range):
            truth = truth_of(scene)
            for modalities, entries in compared.items():
                saliency = see_scene(branch, scene, with_depth="depth" in modalities)
                entries.append(compare_saliency(saliency, truth))
                if worst and modalities == _WITH_DEPTH:
                    likeness, error = entries[-1].s_measure, entries[-1].mae
                    caption = f"{scene.name}: S {likeness:.3f}, MAE {error:.3f}"
                    draw = partial(_panels, scene, truth, saliency, depth_range)
                    worst.add(-likeness, caption, draw)
            progress.update()
    figures = {name: summarise_saliency(entries) for name, entries in compared.items()}
    data = data_name or describe_data(len(scenes), "scene", folders)
    record = {
        "model": model,
        "checkpoint_sha256": sha256,
        "scenes": len(scenes),
        "depth_range_m": [depth_range.near_m, depth_range.far_m],
        "relative_depth": reading.relative,
        "figures": figures,
        "quality": quality_entries(figures, _STATED, "thermal", data),
    }
    write_evaluation(out, record)
    if worst:
        worst.write()
    return figures


def _panels(
    scene: Scene, truth: Picture, saliency: Picture, depth_range: DepthRange
) -> Mapping[str, Picture]:
    closeness = closeness_of(scene.depth * np.float32(1e-3), depth_range.near_m, depth_range.far_m)
    closeness = np.where(scene.depth > 0, closeness, 0)
    # Beyond some metres, all of a scene is far by the network's measure.
    depth = (closeness * (255 / max(closeness.max(), 1e-6))).astype(np.uint8)
    return {
        "rgb": scene.rgb,
        "depth (nearest is white, unknown black)": depth,
        "truth": truth,
        "saliency": saliency,
    }
