"""Measure a detection network on pairs it was not trained on, with both cameras and with one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import box_iou  # type: ignore[import-untyped]
from tqdm import tqdm

from mmfusion.checkpoint import load_checkpoint
from mmfusion.efficientmfd.deploy import EfficientMFDDeploy
from mmfusion.efficientmfd.network import EfficientMFD
from mmfusion.efficientmfd.post_processing import detections
from mmfusion.failures import Failures
from mmfusion.metrics import JudgedBoxes, average_precision, detection_library
from mmfusion.quality import (
    BOTH,
    SEEN_OF_PAIRS,
    Figures,
    describe_data,
    quality_entries,
    write_evaluation,
)
from mmfusion.registry import create_model
from mmfusion.train.boxed_pairs import BoxedPair, load_boxed_pairs
from mmfusion.train.degradation import degrade

_STATED = ("AP50", "AP75", "AP")
_WHITE = 255.0
_DRAWN_SCORE = 0.3
_MATCHED_IOU = 0.5
_TRUTH, _FOUND = (0, 200, 0), (255, 160, 0)  # RGB


def evaluate_detection(
    model: str,
    checkpoint: Path,
    folders: Sequence[Path],
    out: Path,
    *,
    data_name: str | None = None,
    failures: Path | None = None,
) -> Figures:
    """Average precision of a network over pairs.

    Args:
        model: name for `create_model`.
        checkpoint: its weights, safetensors.
        folders: see `load_boxed_pairs`.
        out: JSON file to write the figures to, those of each class too, with entries for a
            manifest's ``quality``.
        data_name: what ``quality`` calls the data; None for the number of pairs and the names
            of the folders.
        failures: folder for pictures of the pairs with the most wrong boxes, see
            `count_wrong_boxes`.

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
    sha256 = load_checkpoint(network, checkpoint)
    network.eval()
    classes = network.config.classes
    pairs = load_boxed_pairs(folders, classes)
    worst = Failures(failures) if failures else None
    judged: dict[str, list[JudgedBoxes]] = {name: [] for name in SEEN_OF_PAIRS}
    for pair in tqdm(pairs, unit="pair", dynamic_ncols=True):
        for name, entries in judged.items():
            fused, boxes = detect_objects(network, pair, name)
            entries.append(boxes)
            if worst and name == BOTH:
                missed, false = count_wrong_boxes(boxes)
                caption = f"{pair.name}: {missed} missed, {false} false"
                worst.add(missed + false, caption, partial(_panels, pair, fused, boxes, classes))
    record: dict[str, Any] = {
        "model": model,
        "checkpoint_sha256": sha256,
        "pairs": len(pairs),
        "figures": {},
    }
    means: Figures = {}
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
    data = data_name or describe_data(len(pairs), "pair", folders)
    record["quality"] = quality_entries(means, _STATED, "depth", data)
    write_evaluation(out, record)
    if worst:
        worst.write()
    return means


@torch.inference_mode()
def detect_objects(
    network: EfficientMFD, pair: BoxedPair, modalities: str = BOTH
) -> tuple[NDArray[np.uint8], JudgedBoxes]:
    """Run a network on a pair at its own size.

    Args:
        network: in evaluation mode.
        pair: what it sees, and what is to be found.
        modalities: one of `SEEN_OF_PAIRS`.

    Returns:
        The fused luminance, uint8 (H, W), and detections beside the truth.
    """
    whole = {
        "rgb": torch.from_numpy(pair.visible).permute(2, 0, 1).float(),
        "thermal": torch.from_numpy(pair.infrared)[None].float(),
    }
    # Certain faults: the generator decides nothing.
    seen = degrade(whole, SEEN_OF_PAIRS[modalities], np.random.default_rng(0), white=_WHITE)
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


def count_wrong_boxes(judged: JudgedBoxes) -> tuple[int, int]:
    """Objects that were missed, and boxes that are on none or on one that another box is on.

    A box of at least the score from which `draw_detections` draws is on an object of its class
    if their IoU is at least 0.5; the highest-scored one has it.
    """
    missed, false = 0, 0
    for kind in judged.labelled:
        drawn = (judged.scores >= _DRAWN_SCORE) & (judged.classes == kind)
        by_score = np.argsort(-judged.scores[drawn], kind="stable")
        found, truths = judged.boxes[drawn][by_score], judged.truth_boxes
        truths = truths[judged.truth_classes == kind]
        overlaps = box_iou(*(torch.from_numpy(boxes.astype(float)) for boxes in (found, truths)))
        free = np.ones(len(truths), np.bool_)
        for row in overlaps.numpy():
            overlap = np.where(free, row, 0)
            if overlap.max(initial=0) >= _MATCHED_IOU:
                free[overlap.argmax()] = False
            else:
                false += 1
        missed += int(free.sum())
    return missed, false


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


def _panels(
    pair: BoxedPair, fused: NDArray[np.uint8], judged: JudgedBoxes, classes: Sequence[str]
) -> Mapping[str, NDArray[np.uint8]]:
    return {
        "visible": pair.visible,
        "infrared": pair.infrared,
        "fused; truth green, found orange": draw_detections(fused, judged, classes),
    }
