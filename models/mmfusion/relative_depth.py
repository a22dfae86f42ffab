"""8-bit depth pictures, which tell nearer from farther but no distance.

Most published RGB-D saliency sets have them. They are read as closeness, as a network sees depth,
and put into millimetres, so that all depth goes one way from there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mmfusion.corruptions import closeness_of, metres_of
from mmfusion.errors import DataError
from mmfusion.graph.depth_range import DepthRange

RelativeDepth = Literal["left_out", "near_bright", "near_dark"]

_WHITE = 255
_MOST_MM = np.iinfo(np.uint16).max
_MOST_OFF = 1.0  # grey levels


@dataclass(frozen=True)
class DepthReading:
    """How a network's depth pictures are read.

    Attributes:
        range: that the network tells apart.
        relative: what becomes of samples with 8-bit depth: "left_out", or read with
            the grey level v as closeness v / 255 ("near_bright") or 1 - v / 255 ("near_dark").
    """

    range: DepthRange = field(default_factory=DepthRange)
    relative: RelativeDepth = "left_out"


def millimetres_by_level(reading: DepthReading) -> NDArray[np.uint16] | None:
    """Depth that each grey level of relative depth stands for.

    Args:
        reading: says which end is near, and the range that closeness spans.

    Returns:
        uint16 (256,), millimetres, never 0, which would be unknown: `DepthMapping` makes of them
        the closeness that was read, but for whole millimetres. None if relative depth is left
        out.

    Raises:
        DataError: if whole millimetres to 65.535 m are too coarse for 256 levels of the range.
    """
    if reading.relative == "left_out":
        return None
    near, far = reading.range.near_m, reading.range.far_m
    levels = np.arange(_WHITE + 1, dtype=np.float32)
    closeness = (levels if reading.relative == "near_bright" else levels[::-1]) / np.float32(_WHITE)
    whole = np.minimum(np.rint(1e3 * metres_of(closeness, near, far)), _MOST_MM)
    off = _WHITE * np.abs(closeness_of(np.float32(1e-3) * whole, near, far) - closeness).max()
    if off > _MOST_OFF:
        raise DataError(
            f"relative_depth is {reading.relative}, but in whole millimetres up to 65535 the range "
            f"of {near:g} to {far:g} m is {off:.1f} of 255 grey levels off; expected at most "
            f"{_MOST_OFF:g}, as with near_m 0.3 and far_m 10"
        )
    millimetres: NDArray[np.uint16] = whole.astype(np.uint16)
    return millimetres
