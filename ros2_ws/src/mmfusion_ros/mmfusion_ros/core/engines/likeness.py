"""How alike two engines' outputs are, in the measures of a manifest's tolerances."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mmfusion_ros.core.detections import MIN_SCORE, Detections, overlaps, suppress

# Equal pictures have no PSNR; this stands for more than anything that differs can have.
EQUAL_DB = 150.0
# Detections that score less than is published are not asked for, but may match one that scores
# more: a score that slips below the line is no loss.
_PARTNER_SCORE = MIN_SCORE / 2
_IOU = 0.5
# Of the window of SSIM, and its two constants for 8-bit pictures.
_SIGMA, _WIDTH = 1.5, 11
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def psnr_db(reference: NDArray[Any], other: NDArray[Any]) -> float:
    """Peak signal-to-noise ratio of two 8-bit pictures; `EQUAL_DB` for equal ones."""
    difference = reference.astype(np.float64) - other
    error = float(np.mean(difference * difference))
    return EQUAL_DB if error == 0 else float(10 * np.log10(255**2 / error))


def mean_absolute_error(reference: NDArray[Any], other: NDArray[Any]) -> float:
    """Mean difference of two arrays of one shape."""
    return float(np.mean(np.abs(reference.astype(np.float64) - other)))


def ssim(reference: NDArray[Any], other: NDArray[Any]) -> float:
    """Mean structural similarity of two 8-bit pictures, (H, W) or (H, W, 3)."""
    first, second = reference.astype(np.float64), other.astype(np.float64)

    def mean(values: NDArray[Any]) -> NDArray[Any]:
        blurred: NDArray[Any] = cv2.GaussianBlur(values, (_WIDTH, _WIDTH), _SIGMA)
        return blurred

    m1, m2 = mean(first), mean(second)
    v1, v2 = mean(first * first) - m1 * m1, mean(second * second) - m2 * m2
    together = mean(first * second) - m1 * m2
    likeness = (2 * m1 * m2 + _C1) * (2 * together + _C2)
    likeness /= (m1 * m1 + m2 * m2 + _C1) * (v1 + v2 + _C2)
    return float(likeness.mean())


class MatchedShare:
    """Counts, over frames, the detections of two engines that have a partner in the other's."""

    def __init__(self, nms_iou: float, limit: int, size: tuple[int, int]) -> None:
        """Prepare.

        Args:
            nms_iou: overlap above which one of two of a class is dropped.
            limit: most detections of each class.
            size: (height, width) of the picture.
        """
        self._nms_iou, self._limit, self._size = nms_iou, limit, size
        self.matched = 0
        self.total = 0

    def add(self, reference: Mapping[str, NDArray[Any]], other: Mapping[str, NDArray[Any]]) -> None:
        """Count one frame: outputs of both engines."""
        first, second = self._detections(reference), self._detections(other)
        for wanted, partners in ((first, second), (second, first)):
            asked = wanted.above(MIN_SCORE)
            self.total += len(asked)
            self.matched += _with_partner(asked, partners)

    @property
    def value(self) -> float:
        """The share; not a number as long as neither has found anything."""
        return self.matched / self.total if self.total else float("nan")

    def _detections(self, outputs: Mapping[str, NDArray[Any]]) -> Detections:
        return suppress(
            outputs["boxes"],
            outputs["scores"],
            outputs["classes"],
            None,
            min_score=_PARTNER_SCORE,
            iou=self._nms_iou,
            limit=self._limit,
            size=self._size,
        )


def _with_partner(asked: Detections, partners: Detections) -> int:
    """How many have one of their class that overlaps enough, each its own; best first."""
    alike = overlaps(asked.boxes, partners.boxes)
    alike[asked.classes[:, None] != partners.classes[None, :]] = 0
    count = 0
    for row in range(len(asked)):
        if not len(partners):
            break
        best = int(alike[row].argmax())
        if alike[row, best] >= _IOU:
            alike[:, best] = 0
            count += 1
    return count
