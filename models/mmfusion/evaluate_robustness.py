"""How a saliency network fares when one of its cameras fails; see docs/evaluate.md."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from mmfusion.checkpoint import load_checkpoint
from mmfusion.corruptions import CORRUPTIONS, Corruption, Stream, closeness_of, metres_of
from mmfusion.errors import DataError
from mmfusion.graph.depth_range import DepthRange
from mmfusion.metrics import saliency_library, structure_and_error
from mmfusion.quality import write_evaluation
from mmfusion.registry import create_model
from mmfusion.robustness_picture import draw_robustness
from mmfusion.saliency_scenes import (
    find_salient,
    scenes_with_branch,
    trained_depth,
    truth_of,
)
from mmfusion.train.scenes import Scene, load_scenes

STREAMS = ("depth", "rgb")
SEEDS = (0, 1, 2)


class _Trial(NamedTuple):
    """One fault of one stream at one level; the seed is None where nothing is drawn."""

    stream: str
    corruption: Corruption
    level: float
    seed: int | None


def evaluate_robustness(
    model: str,
    checkpoint: Path,
    folders: Sequence[Path],
    out: Path,
) -> dict[str, dict[str, float]]:
    """S-measure and mean absolute error of a network while one of its streams is corrupted.

    Every scene is seen clean, then with each corruption of depth, then of RGB. What is drawn
    depends on scene, corruption and seed alone, so all networks see the same.

    Args:
        model: name for `create_model`.
        checkpoint: its weights, safetensors; depth is read as in their training, see
            `trained_depth`.
        folders: see `load_scenes`.
        out: JSON file for all figures; the picture of them goes beside it, as PNG.

    Returns:
        S, MAE and the change of S by what was done ("clean", "depth noise 0.05", ...).

    Raises:
        ModelError: if the checkpoint does not fit.
        DataError: if the data are unusable, or ``out`` has the name of the picture.
        MetricError: if the package that measures is not installed.
    """
    picture = out.with_suffix(".png")
    if picture == out:
        raise DataError(f"the figures cannot go to {out}, where their picture goes; name a .json")
    saliency_library()  # better now than after the first scene
    network = create_model(model)
    sha256 = load_checkpoint(network, checkpoint)
    reading = trained_depth(checkpoint)
    depth_range = reading.range
    scenes = load_scenes(folders, reading)
    trials = list(_trials())
    figures: dict[_Trial | None, list[tuple[float, float]]] = {t: [] for t in (None, *trials)}
    total = len(scenes) * len(figures)
    with tqdm(total=total, unit="map", dynamic_ncols=True) as progress:
        for branch, scene in scenes_with_branch(network, scenes, depth_range):
            clean = _streams(scene, depth_range)
            truth = truth_of(scene)
            for trial, entries in figures.items():
                streams = clean if trial is None else clean | _corrupted(clean, trial, scene.name)
                saliency = find_salient(branch, *_tensors(streams, depth_range))
                entries.append(structure_and_error(saliency, truth))
                progress.update()
    means = {trial: _means(entries) for trial, entries in figures.items()}
    record = {
        "model": model,
        "checkpoint_sha256": sha256,
        "scenes": len(scenes),
        "depth_range_m": [depth_range.near_m, depth_range.far_m],
        "relative_depth": reading.relative,
        "seeds": list(SEEDS),
        "clean": means[None],
        "corrupted": list(_rows(means)),
    }
    write_evaluation(out, record)
    picture.write_bytes(draw_robustness(record))
    return _table(record)


def _trials() -> Iterator[_Trial]:
    for stream in STREAMS:
        for corruption in CORRUPTIONS:
            for level in corruption.levels:
                for seed in SEEDS if corruption.drawn else (None,):
                    yield _Trial(stream, corruption, level, seed)


def _streams(scene: Scene, depth_range: DepthRange) -> dict[str, Stream]:
    near, far = depth_range.near_m, depth_range.far_m
    known = scene.depth > 0
    closeness = closeness_of(scene.depth * np.float32(1e-3), near, far)
    return {
        "depth": Stream(np.where(known, closeness, 0).astype(np.float32), known),
        "rgb": Stream(scene.rgb / np.float32(255), np.ones(scene.mask.shape, bool)),
    }


def _corrupted(clean: dict[str, Stream], trial: _Trial, scene: str) -> dict[str, Stream]:
    """The one stream that the trial corrupts."""
    names = (trial.stream, trial.corruption.name, scene)
    rng = np.random.default_rng([trial.seed or 0, *(zlib.crc32(name.encode()) for name in names)])
    return {trial.stream: trial.corruption.apply(clean[trial.stream], trial.level, rng)}


def _tensors(streams: dict[str, Stream], depth_range: DepthRange) -> tuple[Tensor, Tensor, Tensor]:
    """RGB, metres and validity as `SaliencyBranch` takes them."""
    depth = streams["depth"]
    metres = metres_of(depth.image, depth_range.near_m, depth_range.far_m)
    return (
        torch.from_numpy(streams["rgb"].image).permute(2, 0, 1)[None],
        torch.from_numpy(metres)[None, None],
        torch.from_numpy(depth.known)[None, None].float(),
    )


def _means(entries: Sequence[tuple[float, float]]) -> dict[str, float]:
    structure, error = np.mean(entries, axis=0).tolist()
    return {"S": structure, "MAE": error}


def _rows(means: dict[_Trial | None, dict[str, float]]) -> Iterator[dict[str, Any]]:
    """One row per stream, corruption and level, with the mean over the seeds and each of them."""
    for stream in STREAMS:
        for corruption in CORRUPTIONS:
            for level in corruption.levels:
                seeds = SEEDS if corruption.drawn else (None,)
                found = [means[_Trial(stream, corruption, level, seed)] for seed in seeds]
                row = {"stream": stream, "corruption": corruption.name, "level": level}
                row |= {name: float(np.mean([entry[name] for entry in found])) for name in found[0]}
                yield row | ({"by_seed": found} if corruption.drawn else {})


def _table(record: dict[str, Any]) -> dict[str, dict[str, float]]:
    rows = {"clean": record["clean"] | {"S change": 0.0}}
    for row in record["corrupted"]:
        title = f"{row['stream']} {row['corruption']}"
        if row["corruption"] != "lost":
            title += f" {row['level']:g}"
        change = row["S"] - record["clean"]["S"]
        rows[title] = {"S": row["S"], "MAE": row["MAE"], "S change": change}
    return rows
