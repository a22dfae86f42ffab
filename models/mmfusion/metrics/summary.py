"""From one value per frame to one line per measure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True)
class Summary:
    """One measure over a set of frames.

    Attributes:
        mean: mean over the frames that count; NaN where none does, like the percentiles.
        p5: 5th percentile.
        p50: median.
        p95: 95th percentile.
        count: number of frames that count.
        left_out: number of frames without a finite value, kept out of everything above.
    """

    mean: float
    p5: float
    p50: float
    p95: float
    count: int
    left_out: int


def aggregate(per_frame: Iterable[Mapping[str, float]]) -> dict[str, Summary]:
    """Summarise per-frame values.

    A value that is NaN or infinite, or missing from a frame, is left out of that measure and
    counted, so that an undefined frame neither spoils a mean nor vanishes.

    Args:
        per_frame: name to value, one mapping for each frame.

    Returns:
        Name to summary, names in order of first appearance; empty for no frames.
    """
    frames = list(per_frame)
    names = dict.fromkeys(name for frame in frames for name in frame)
    return {name: _summarise([frame.get(name, math.nan) for frame in frames]) for name in names}


def _summarise(values: list[float]) -> Summary:
    finite = [value for value in values if math.isfinite(value)]
    left_out = len(values) - len(finite)
    if not finite:
        return Summary(math.nan, math.nan, math.nan, math.nan, 0, left_out)
    p5, p50, p95 = (float(value) for value in np.percentile(finite, (5, 50, 95)))
    return Summary(float(np.mean(finite)), p5, p50, p95, len(finite), left_out)
