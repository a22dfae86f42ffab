"""The picture for people: fused, with what is salient tinted and what is detected framed."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from mmfusion_ros.core.detections import Detections

Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]

_TINT: Colour = (255, 60, 0)
_TINT_SHARE = 0.45  # where the saliency is certain
_TRUTH: Colour = (255, 255, 255)
_GOLDEN_RATIO = 0.6180339887498949
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_DASH = 5  # pixels


def class_colour(index: int) -> Colour:
    """A colour for a class, r g b: always the same, and well apart from its neighbours'."""
    hue = (0.33 + index * _GOLDEN_RATIO) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def label_of(name: str, score: float, depth: float) -> str:
    """What is written beside a detection, like "person 0.87 3.2 m"; depth in metres or NaN."""
    measured = f" {depth:.1f} m" if math.isfinite(depth) else ""
    return f"{name} {score:.2f}{measured}"


def draw_overlay(
    fused: Picture,
    saliency: Picture | None,
    detections: Detections | None,
    names: Sequence[str],
) -> Picture:
    """Draw what a result says into a copy of its fused picture.

    Args:
        fused: uint8 (H, W, 3), r g b.
        saliency: uint8 (H, W), 255 for certain; None for no tint.
        detections: to frame; None for none.
        names: of the classes.

    Returns:
        uint8 (H, W, 3), r g b.
    """
    picture = fused.copy() if saliency is None else _tinted(fused, saliency)
    if detections is None:
        return picture
    for place in reversed(range(len(detections))):  # the best on top
        kind = int(detections.classes[place])
        depth, score = float(detections.depths[place]), float(detections.scores[place])
        text = label_of(names[kind], score, depth)
        _frame(picture, _corners(detections.boxes[place]), class_colour(kind), text)
    return picture


def draw_truth(picture: Picture, mask: Picture | None, boxes: NDArray[np.float32]) -> None:
    """Draw ground truth into a picture, unlike anything of `draw_overlay`: white and dashed.

    Args:
        picture: uint8 (H, W, 3), changed.
        mask: uint8 (H, W), above 128 on the object; None for none.
        boxes: float32 (n, 4), x y x y.
    """
    if mask is not None:
        object_mask = (mask > 128).astype(np.uint8)
        outlines, _ = cv2.findContours(object_mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        for outline in outlines:
            points = outline[:, 0]
            dashes = points[np.arange(len(points)) % (2 * _DASH) < _DASH]
            picture[dashes[:, 1], dashes[:, 0]] = _TRUTH
    for box in boxes:
        left, top, right, bottom = _corners(box)
        for start, end in (
            ((left, top), (right, top)),
            ((left, bottom), (right, bottom)),
            ((left, top), (left, bottom)),
            ((right, top), (right, bottom)),
        ):
            _dashed(picture, start, end)


def _tinted(fused: Picture, saliency: Picture) -> Picture:
    share = np.rint(saliency * np.float32(_TINT_SHARE)).astype(np.uint16)[..., None]
    mixed = (fused * (255 - share) + np.array(_TINT, np.uint16) * share) // 255
    return np.asarray(mixed, np.uint8)


def _corners(box: NDArray[np.float32]) -> tuple[int, int, int, int]:
    """Outermost pixels of a box."""
    left, top = np.floor(box[:2]).astype(int).tolist()
    right, bottom = (np.ceil(box[2:]).astype(int) - 1).tolist()
    return left, top, right, bottom


def _frame(picture: Picture, corners: tuple[int, int, int, int], colour: Colour, text: str) -> None:
    height, width = picture.shape[:2]
    left, top, right, bottom = corners
    thickness = max(1, round(height / 300))
    cv2.rectangle(picture, (left, top), (right, bottom), colour, thickness)
    scale = max(0.35, height / 1100)
    (text_width, text_height), base = cv2.getTextSize(text, _FONT, scale, 1)
    # Above the box; inside where that would be outside of the picture.
    x = max(0, min(left, width - text_width))
    y = top - base if top - base - text_height >= 0 else top + text_height + thickness
    background = (x, y - text_height - 1), (x + text_width, y + base - 1)
    cv2.rectangle(picture, *background, colour, cv2.FILLED)
    cv2.putText(picture, text, (x, y), _FONT, scale, (0, 0, 0), 1, cv2.LINE_AA)


def _dashed(picture: Picture, start: tuple[int, int], end: tuple[int, int]) -> None:
    """A dashed line along one axis."""
    (left, top), (right, bottom) = start, end
    length = max(right - left, bottom - top)
    across = right > left
    for begin in range(0, length + 1, 2 * _DASH):
        stop = min(begin + _DASH - 1, length)
        first, last = (
            (left + step, top) if across else (left, top + step) for step in (begin, stop)
        )
        cv2.line(picture, first, last, _TRUTH, 1)
