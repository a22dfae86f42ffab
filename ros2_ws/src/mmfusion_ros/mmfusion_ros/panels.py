"""The pictures of one frame set side by side, for the report."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from mmfusion_ros.core.ground_truth import GroundTruth, read_mask
from mmfusion_ros.core.overlay import draw_overlay, draw_truth
from mmfusion_ros.core.results import Results
from mmfusion_ros.evaluation import rgb_picture, thermal_picture

_WIDTH = 440  # of one picture


def columns(outputs: Sequence[str]) -> list[str]:
    """What the pictures of a panel show, for an artifact with these outputs."""
    found = [
        name
        for name, output in (("saliency", "saliency"), ("detections", "boxes"))
        if output in outputs
    ]
    return ["colour", "thermal", "fused", *([" and ".join(found)] if found else [])]


def panel(results: Results, truth: GroundTruth, names: Sequence[str]) -> bytes:
    """Colour, thermal, fused, and what was found in it if the artifact looks for something.

    Args:
        results: of the set; what took no part is grey.
        truth: drawn beside what was found, white and dashed.
        names: of the classes.

    Returns:
        A PNG file.
    """
    rgb, thermal, fused = rgb_picture(results), thermal_picture(results), results.fused
    height, width = fused.shape[:2]
    blank = np.full_like(fused, 128)
    hot = blank if thermal is None else cv2.cvtColor(thermal, cv2.COLOR_GRAY2RGB)
    row = [blank if rgb is None else rgb, hot, fused]
    if results.saliency is not None or results.detections is not None:
        row.append(blank if rgb is None else _found(results, truth, names))
    if width > _WIDTH:
        size = (_WIDTH, round(height * _WIDTH / width))
        row = [cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for picture in row]
    strip = np.concatenate(row, axis=1)
    # Fast rather than small: it is kept for the length of the run only.
    _, file = cv2.imencode(".png", strip[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return bytes(file)


def _found(results: Results, truth: GroundTruth, names: Sequence[str]) -> NDArray[np.uint8]:
    picture = draw_overlay(results.fused, results.saliency, results.detections, names)
    stamp = results.frames.stamp_ns
    mask = boxes = None
    if truth.masks is not None and stamp in truth.masks:
        mask = read_mask(truth.masks[stamp])
    if truth.boxes is not None and stamp in truth.boxes:
        boxes = truth.boxes[stamp].boxes
    draw_truth(picture, mask, np.zeros((0, 4), np.float32) if boxes is None else boxes)
    return picture
