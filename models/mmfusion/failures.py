"""The worst samples of an evaluation, as pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import cv2

from mmfusion.drawing import Canvas, draw_row
from mmfusion.errors import DataError

MOST = 6


class _Failure(NamedTuple):
    badness: float
    caption: str
    panels: Mapping[str, Canvas]


class Failures:
    """Keeps the pictures of the worst samples while all are measured."""

    def __init__(self, folder: Path) -> None:
        """Keep none yet.

        Args:
            folder: for the pictures, created if absent; those of an earlier run go.

        Raises:
            DataError: if it is no folder.
        """
        if folder.exists() and not folder.is_dir():
            raise DataError(f"--failures {folder} is a file; expected a folder")
        folder.mkdir(parents=True, exist_ok=True)
        for earlier in folder.glob("worst_*.png"):
            earlier.unlink()
        self._folder = folder
        self._worst: list[_Failure] = []

    def add(self, badness: float, caption: str, draw: Callable[[], Mapping[str, Canvas]]) -> None:
        """Tell of a sample.

        Args:
            badness: the more the worse; a sample for which it is not finite is passed over.
            caption: its name and figures.
            draw: gives pictures as `draw_row` takes them; called if the sample is among the
                worst so far.
        """
        if not math.isfinite(badness):
            return
        if len(self._worst) < MOST or badness > self._worst[-1].badness:
            self._worst.append(_Failure(badness, caption, draw()))
            self._worst.sort(key=lambda failure: failure.badness, reverse=True)
            del self._worst[MOST:]

    def write(self) -> None:
        """Write ``worst_1.png``, which is the worst, ``worst_2.png``, and so on."""
        for rank, failure in enumerate(self._worst, 1):
            row = draw_row(failure.caption, failure.panels)
            encoded = cv2.imencode(".png", row[..., ::-1])[1]
            (self._folder / f"worst_{rank}.png").write_bytes(bytes(encoded))
