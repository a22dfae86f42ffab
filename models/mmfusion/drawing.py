"""What pictures of results have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

Canvas = NDArray[np.uint8]

BLACK = (40, 40, 40)
_LEAST_WIDTH = 320  # of a panel: its title must fit
_HEADER, _TITLE, _GAP = 30, 24, 6  # pixels


def write_text(canvas: Canvas, text: str, place: tuple[int, int], size: float = 0.42) -> None:
    """Write onto a picture; ``place`` (x, y) is where the line begins."""
    cv2.putText(canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, BLACK, 1, cv2.LINE_AA)


def draw_row(caption: str, panels: Mapping[str, Canvas]) -> Canvas:
    """Pictures side by side under their titles, and a caption over all.

    Args:
        caption: a line of text.
        panels: pictures of one size, uint8 (H, W) or RGB (H, W, 3), by title. Small ones are
            enlarged by a whole number.

    Returns:
        RGB, uint8 (H', W', 3).
    """
    columns = []
    for title, picture in panels.items():
        colour = cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB) if picture.ndim == 2 else picture
        times = max(1, math.ceil(_LEAST_WIDTH / picture.shape[1]))
        column: Canvas = np.pad(
            colour.repeat(times, axis=0).repeat(times, axis=1),
            ((_TITLE, 0), (0, _GAP), (0, 0)),
            constant_values=255,
        ).astype(np.uint8, copy=False)
        write_text(column, title, (2, _TITLE - 8))
        columns.append(column)
    row: Canvas = np.pad(
        np.hstack(columns), ((_HEADER, 0), (_GAP, 0), (0, 0)), constant_values=255
    ).astype(np.uint8, copy=False)
    write_text(row, caption, (_GAP, _HEADER - 10), 0.5)
    return row
