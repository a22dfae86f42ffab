"""Objects found in the RGB picture, and how the graph's candidates become them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Of each class in one picture: COCO's evaluation looks at no more, so nothing is lost to it.
MOST_DETECTIONS = 100
# Detections that score less are published by those alone who ask for them.
MIN_SCORE = 0.3


@dataclass(frozen=True, eq=False)
class Detections:
    """Objects of one picture, best first; checked at construction, arrays read-only.

    Attributes:
        boxes: float32 (n, 4), x y of the upper left and the lower right corner in pixels of the
            RGB picture, whose own corners are (0, 0) and (width, height); within it where they
            come from `suppress`.
        scores: float32 (n,), 0..1, falling.
        classes: int32 (n,), indices into the artifact's classes.
        depths: float32 (n,), metres along the optical axis; NaN where not measured.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int32]
    depths: NDArray[np.float32]

    def __post_init__(self) -> None:
        count = len(self.scores)
        expected = {
            "boxes": (np.float32, (count, 4)),
            "scores": (np.float32, (count,)),
            "classes": (np.int32, (count,)),
            "depths": (np.float32, (count,)),
        }
        for name, (dtype, shape) in expected.items():
            array: NDArray[Any] = getattr(self, name)
            if array.dtype != dtype or array.shape != shape:
                raise ValueError(
                    f"{name} of detections are {array.dtype} {list(array.shape)}, expected "
                    f"{np.dtype(dtype)} {list(shape)}"
                )
            # A view: what the caller has stays as writeable as it was.
            frozen = array.view()
            frozen.flags.writeable = False
            object.__setattr__(self, name, frozen)
        if not (np.isfinite(self.boxes).all() and np.isfinite(self.scores).all()):
            raise ValueError("boxes and scores of detections must be finite")
        if (np.diff(self.scores) > 0).any():
            raise ValueError("detections must be sorted by falling score")

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, score: float) -> Detections:
        """Those that score at least ``score``."""
        count = int(np.count_nonzero(self.scores >= score))
        return Detections(
            self.boxes[:count], self.scores[:count], self.classes[:count], self.depths[:count]
        )


def suppress(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    classes: NDArray[np.int32],
    depths: NDArray[np.float32] | None,
    *,
    min_score: float,
    iou: float,
    limit: int,
    size: tuple[int, int],
) -> Detections:
    """Keep the best of the candidates that stand for the same object.

    Greedy non-maximum suppression within each class, of the boxes as they come: cut to the
    picture, two of different objects at its edge would look alike. Those that are kept are cut to
    the picture, and dropped if nothing of them is in it. A candidate is judged by better ones
    only: raising ``min_score`` gives the same as leaving out afterwards what scores less.
    Candidates with a box or score that is no number, or a box without area, are dropped; equal
    scores keep the order given.

    Args:
        boxes: (k, 4), as in `Detections`, also beyond the edges of the picture.
        scores: (k,), in any order.
        classes: (k,).
        depths: (k,), or None where the graph measures none.
        min_score: candidates that score less are dropped.
        iou: of two of one class with a larger overlap, the lower-scored one is dropped.
        limit: most detections of each class to keep.
        size: (height, width) of the picture.

    Returns:
        Detections with arrays of their own.
    """
    with np.errstate(invalid="ignore"):  # comparing NaN: false, as wanted
        usable = np.isfinite(boxes).all(axis=1) & np.isfinite(scores) & (scores >= min_score)
        usable &= (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    candidates = np.flatnonzero(usable)
    order = candidates[np.argsort(-scores[candidates], kind="stable")]
    chosen = order[_kept(boxes[order], classes[order], iou)]
    height, width = size
    inside = np.clip(boxes[chosen], np.float32(0), np.array([width, height] * 2, np.float32))
    seen = (inside[:, 2] > inside[:, 0]) & (inside[:, 3] > inside[:, 1])
    chosen, inside = chosen[seen], inside[seen]
    first = _first_of_each(classes[chosen], limit)
    chosen, inside = chosen[first], inside[first]
    if depths is None:
        depths = np.full(len(scores), np.nan, np.float32)
    return Detections(inside, scores[chosen], classes[chosen], depths[chosen])


def overlaps(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intersection over union of each box of (n, 4) with each of (m, 4): (n, m), areas > 0."""
    corners, others = first.T[:, :, None], second.T[:, None, :]
    width = np.minimum(corners[2], others[2])
    width -= np.maximum(corners[0], others[0])
    height = np.minimum(corners[3], others[3])
    height -= np.maximum(corners[1], others[1])
    shared: NDArray[np.float32] = np.maximum(width, 0, out=width)
    shared *= np.maximum(height, 0, out=height)
    union = _areas(first)[:, None] + _areas(second)[None, :]
    union -= shared
    shared /= union
    return shared


def _areas(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    areas: NDArray[np.float32] = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return areas


def _kept(boxes: NDArray[np.float32], classes: NDArray[np.int32], iou: float) -> NDArray[np.intp]:
    """Places of the boxes, best first, that no kept better one of their class overlaps."""
    # Nothing keeps a graph from boxes whose area no float32 holds: those overlap nothing.
    with np.errstate(over="ignore", invalid="ignore"):
        rivals = overlaps(boxes, boxes) > iou
    rivals &= classes[:, None] == classes[None, :]
    dropped = np.zeros(len(boxes), bool)
    kept: list[int] = []
    for place, row in enumerate(rivals):
        if dropped[place]:
            continue
        kept.append(place)
        dropped |= row
    return np.array(kept, np.intp)


def _first_of_each(classes: NDArray[np.int32], limit: int) -> NDArray[np.bool_]:
    """Which are among the first ``limit`` of their class."""
    first = np.zeros(len(classes), bool)
    for kind in np.unique(classes):
        first[np.flatnonzero(classes == kind)[:limit]] = True
    return first
