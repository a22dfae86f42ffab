"""A picture of what `evaluate_robustness` found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from mmfusion.corruptions import CORRUPTIONS, Corruption
from mmfusion.drawing import Canvas, write_text

Colour = tuple[int, int, int]

_WIDTH, _HEIGHT = 330, 250  # of a panel
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 34, 42  # margins of its frame
_HEADER = 40
_GREY, _LIGHT = (140, 140, 140), (225, 225, 225)
_BLUE, _RED = (170, 90, 20), (40, 40, 200)  # blue, green, red
_PALE = (215, 180, 140)
_LEGEND = (
    (490, _GREY, "clean"),
    (390, _BLUE, "corrupted (dots: seeds)"),
    (150, _RED, "stream lost"),
)


def draw_robustness(record: dict[str, Any]) -> bytes:
    """Panels of S against level, a row per stream and a column per corruption.

    A line in each panel shows the clean value, another one the value without the stream at all.
    Dots are the seeds.

    Args:
        record: as `evaluate_robustness` writes it.

    Returns:
        PNG file.
    """
    streams = list(dict.fromkeys(row["stream"] for row in record["corrupted"]))
    graded = [corruption for corruption in CORRUPTIONS if len(corruption.levels) > 1]
    means = [record["clean"], *record["corrupted"]]
    seen = [entry for row in record["corrupted"] for entry in row.get("by_seed", ())]
    scale = _scale([entry["S"] for entry in (*means, *seen)])
    canvas = np.full((_HEADER + _HEIGHT * len(streams), _WIDTH * len(graded), 3), 255, np.uint8)
    write_text(canvas, f"{record['model']}: S-measure, {record['scenes']} scenes", (12, 26), 0.6)
    for before_end, colour, label in _LEGEND:
        left = canvas.shape[1] - before_end
        cv2.line(canvas, (left, 21), (left + 24, 21), colour, 2, cv2.LINE_AA)
        write_text(canvas, label, (left + 32, 26))
    for row, stream in enumerate(streams):
        found = [entry for entry in record["corrupted"] if entry["stream"] == stream]
        lost = next(entry["S"] for entry in found if entry["corruption"] == "lost")
        for column, corruption in enumerate(graded):
            top, left = _HEADER + row * _HEIGHT, column * _WIDTH
            panel = canvas[top : top + _HEIGHT, left : left + _WIDTH]
            entries = [entry for entry in found if entry["corruption"] == corruption.name]
            write_text(panel, f"{stream}: {corruption.name}", (_LEFT, _TOP - 10), 0.5)
            _draw_panel(panel, corruption, entries, (record["clean"]["S"], lost), scale)
    return bytes(cv2.imencode(".png", canvas)[1])


def _draw_panel(
    panel: Canvas,
    corruption: Corruption,
    entries: Sequence[dict[str, Any]],
    marks: tuple[float, float],
    scale: tuple[float, float],
) -> None:
    low, high = scale
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def height_of(value: float) -> int:
        return round(bottom - (value - low) / (high - low) * (bottom - _TOP))

    for tick in np.linspace(low, high, 5):
        cv2.line(panel, (_LEFT, height_of(tick)), (right, height_of(tick)), _LIGHT, 1)
        write_text(panel, f"{tick:.2f}", (10, height_of(tick) + 4))
    for mark, colour in zip(marks, (_GREY, _RED), strict=True):
        cv2.line(panel, (_LEFT, height_of(mark)), (right, height_of(mark)), colour, 2, cv2.LINE_AA)
    spacing = (right - _LEFT) / len(entries)
    places = [round(_LEFT + (index + 0.5) * spacing) for index in range(len(entries))]
    for place, entry in zip(places, entries, strict=True):
        write_text(panel, f"{entry['level']:g}", (place - 12, bottom + 18))
        for seen in entry.get("by_seed", ()):
            cv2.circle(panel, (place, height_of(seen["S"])), 5, _PALE, -1, cv2.LINE_AA)
    write_text(panel, corruption.meaning, (_LEFT, bottom + 35))
    line = [(place, height_of(entry["S"])) for place, entry in zip(places, entries, strict=True)]
    cv2.polylines(panel, [np.array(line, np.int32)], False, _BLUE, 2, cv2.LINE_AA)  # noqa: FBT003
    for point in line:
        cv2.circle(panel, point, 3, _BLUE, -1, cv2.LINE_AA)
    cv2.rectangle(panel, (_LEFT, _TOP), (right, bottom), _GREY, 1)


def _scale(values: Sequence[float]) -> tuple[float, float]:
    """Ends of the axis: twentieths around all values, with some room."""
    return math.floor(min(values) * 20 - 0.2) / 20, math.ceil(max(values) * 20 + 0.2) / 20
