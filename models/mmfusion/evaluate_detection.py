"""Measure a detection network on pairs it was not trained on, with both cameras and with one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from mmfusion.checkpoint import load_checkpoint
from mmfusion.efficientmfd.deploy import EfficientMFDDeploy
from mmfusion.efficientmfd.network import EfficientMFD
from mmfusion.efficientmfd.post_processing import detections
from mmfusion.metrics import JudgedBoxes, average_precision, detection_library
from mmfusion.registry import create_model
from mmfusion.train.boxed_pairs import BoxedPair, load_boxed_pairs
from mmfusion.train.degradation import Degradation, degrade

BOTH = "rgb+thermal"
_SEEN = {
    BOTH: Degradation(),
    "rgb": Degradation(drop_thermal=1.0),
    "thermal": Degradation(drop_rgb=1.0),
}
MODALITIES = tuple(_SEEN)
_WHITE = 255.0
_DRAWN_SCORE = 0.3
_TRUTH, _FOUND = (0, 200, 0), (255, 160, 0)  # RGB


def evaluate_detection(
    model: str, checkpoint: Path, folders: Sequence[Path], out: Path
) -> dict[str, dict[str, float]]:
    """Average precision of a network over pairs.

    Args:
        model: name for `create_model`.
        checkpoint: its weights, safetensors.
        folders: see `load_boxed_pairs`.
        out: JSON file to write the figures to, those of each class too.

    Returns:
        Means over the classes that occur, by what the network sees and metric. Without a camera
        it sees the other's picture in its place.

    Raises:
        ModelError: if the checkpoint does not fit.
        DataError: if the data are unusable.
        MetricError: if the package that measures is not installed.
    """
    detection_library()  # better now than after the first pair
    network = cast("EfficientMFD", create_model(model))
    load_checkpoint(network, checkpoint)
    network.eval()
    classes = network.config.classes
    pairs = load_boxed_pairs(folders, classes)
    judged: dict[str, list[JudgedBoxes]] = {name: [] for name in MODALITIES}
    for pair in tqdm(pairs, unit="pair", dynamic_ncols=True):
        for name, entries in judged.items():
            entries.append(detect_objects(network, pair, name)[1])
    record: dict[str, Any] = {"pairs": len(pairs), "figures": {}}
    means: dict[str, dict[str, float]] = {}
    for name, entries in judged.items():
        figures = average_precision(entries, classes)
        means[name] = {
            "AP50": figures.mean.ap50 or 0.0,
            "AP75": figures.mean.ap75 or 0.0,
            "AP": figures.mean.ap or 0.0,
        }
        by_class = {
            kind: {"AP50": f.ap50, "AP": f.ap, "objects": f.truths}
            for kind, f in figures.classes.items()
            if f.truths
        }
        record["figures"][name] = {**means[name], "classes": by_class}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=2) + "\n")
    return means


@torch.inference_mode()
def detect_objects(
    network: EfficientMFD, pair: BoxedPair, modalities: str = BOTH
) -> tuple[NDArray[np.uint8], JudgedBoxes]:
    """Run a network on a pair at its own size.

    Args:
        network: in evaluation mode.
        pair: what it sees, and what is to be found.
        modalities: one of `MODALITIES`.

    Returns:
        The fused luminance, uint8 (H, W), and detections beside the truth.
    """
    whole = {
        "rgb": torch.from_numpy(pair.visible).permute(2, 0, 1).float(),
        "thermal": torch.from_numpy(pair.infrared)[None].float(),
    }
    # Certain faults: the generator decides nothing.
    seen = degrade(whole, _SEEN[modalities], np.random.default_rng(0), white=_WHITE)
    visible, infrared = (seen[name][None].to(network.mean) for name in ("rgb", "thermal"))
    size = (infrared.shape[-2], infrared.shape[-1])
    deployed = EfficientMFDDeploy(network, *size, network.config.sampling_steps)
    output = deployed(visible, infrared)
    found = detections(output.logits[0], output.boxes[0], size)
    both = torch.cat((infrared, visible.amax(dim=1, keepdim=True)), dim=1)
    fused = (output.fusion_weights * both).sum(dim=1)[0].clamp(0, _WHITE).byte()
    return fused.cpu().numpy(), JudgedBoxes(
        found.boxes.cpu().numpy(),
        found.scores.cpu().numpy(),
        found.labels.cpu().numpy(),
        pair.boxes,
        pair.labels,
        np.zeros(len(pair.boxes), np.bool_),
        frozenset(np.flatnonzero(pair.labelled).tolist()),
    )


def draw_detections(
    picture: NDArray[np.uint8], judged: JudgedBoxes, classes: Sequence[str]
) -> NDArray[np.uint8]:
    """A grey picture with what is there in green and what was found in orange, RGB."""
    canvas = cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB)
    for box in judged.truth_boxes.round().astype(int):
        cv2.rectangle(canvas, box[:2].tolist(), box[2:].tolist(), _TRUTH, 1)
    for place in np.flatnonzero(judged.scores >= _DRAWN_SCORE):
        box = judged.boxes[place].round().astype(int)
        cv2.rectangle(canvas, box[:2].tolist(), box[2:].tolist(), _FOUND, 1)
        text = f"{classes[judged.classes[place]]} {judged.scores[place]:.2f}"
        corner = (int(box[0]), max(10, int(box[1]) - 3))
        cv2.putText(canvas, text, corner, cv2.FONT_HERSHEY_SIMPLEX, 0.4, _FOUND, 1, cv2.LINE_AA)
    return np.asarray(canvas, np.uint8)
