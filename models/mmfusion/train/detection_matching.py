"""Which proposals answer for which objects: dynamic-k assignment.

As EfficientMFD (arXiv:2403.09323) and DiffusionDet (ICCV 2023) are trained; the rule is the
"SimOTA" of Ge et al., "YOLOX: Exceeding YOLO Series in 2021".
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torchvision.ops import box_iou, generalized_box_iou  # type: ignore[import-untyped]

from mmfusion.errors import DataError

UNMATCHED = -1
CLASS_WEIGHT, L1_WEIGHT, GIOU_WEIGHT = 2.0, 5.0, 2.0
FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0
_CENTRE_RADIUS = 2.5  # in full sizes of the object
_OFF_CENTRE_COST = 100.0
_NO_CANDIDATE_COST = 1e4
_TAKEN_COST = 1e5
_IOUS_COUNTED = 5
_EPSILON = 1e-8


class Objects(NamedTuple):
    """What is to be found in one image.

    Attributes:
        boxes: corners in pixels, (n, 4).
        labels: positions in the class names, int64 (n,).
    """

    boxes: Tensor
    labels: Tensor


@torch.no_grad()
def match_proposals(
    logits: Tensor, boxes: Tensor, objects: Objects, size: tuple[int, int]
) -> Tensor:
    """Assign the proposals of one image and stage.

    Every object gets as many proposals as its best five overlaps add up to, at least one while
    there are free ones; a proposal serves one object at most.

    Args:
        logits: class scores, (P, C).
        boxes: corners in pixels, (P, 4).
        objects: n of them.
        size: (height, width) of the image in pixels.

    Returns:
        For each proposal the position of its object, or `UNMATCHED`: int64 (P,).

    Raises:
        DataError: if there are more objects than proposals.
    """
    proposals, count = len(boxes), len(objects.labels)
    if count > proposals:
        raise DataError(
            f"an image holds {count} objects, the network proposes {proposals} boxes; expected no "
            "more objects than proposals: leave objects out or choose a larger model"
        )
    if count == 0:
        return boxes.new_full((proposals,), UNMATCHED, dtype=torch.long)
    overlaps = box_iou(boxes, objects.boxes)
    costs = _costs(logits, boxes, objects, size)
    wanted = overlaps.topk(min(_IOUS_COUNTED, proposals), dim=0).values.sum(dim=0)
    ranks = costs.argsort(dim=0, stable=True).argsort(dim=0)
    matched = _resolve(ranks < wanted.int().clamp(min=1), costs)
    # A round serves one more object at least while proposals are free. With none free, the rule
    # as published never ends: the owner of a proposal wins each time. Such objects go without.
    for _ in range(count):
        unserved = ~matched.any(dim=0)
        if not unserved.any():
            break
        costs = costs + _TAKEN_COST * matched.any(dim=1, keepdim=True)
        cheapest = torch.zeros_like(matched).scatter_(0, costs.argmin(dim=0, keepdim=True), 1)
        matched = _resolve(matched | (cheapest & unserved), costs)
    return torch.where(matched.any(dim=1), matched.int().argmax(dim=1), UNMATCHED)


def _resolve(matched: Tensor, costs: Tensor) -> Tensor:
    """Leave each proposal (row) only the cheapest of the objects that took it."""
    taken_costs = costs.masked_fill(~matched, float("inf"))
    return matched & one_hot(taken_costs.argmin(dim=1), costs.shape[1]).bool()


def _costs(logits: Tensor, boxes: Tensor, objects: Objects, size: tuple[int, int]) -> Tensor:
    """What it costs each proposal to answer for each object: (P, n)."""
    height, width = size
    scale = boxes.new_tensor((width, height, width, height))
    p = logits.sigmoid()
    positive = FOCAL_ALPHA * (1 - p) ** FOCAL_GAMMA * -(p + _EPSILON).log()
    negative = (1 - FOCAL_ALPHA) * p**FOCAL_GAMMA * -(1 - p + _EPSILON).log()
    classes = (positive - negative)[:, objects.labels]
    distances = torch.cdist(boxes / scale, objects.boxes / scale, p=1)
    overlaps = generalized_box_iou(boxes, objects.boxes)
    in_box, in_centre = _insideness(boxes, objects.boxes)
    candidate = (in_box | in_centre).any(dim=1, keepdim=True)
    costs: Tensor = (
        L1_WEIGHT * distances
        + CLASS_WEIGHT * classes
        - GIOU_WEIGHT * overlaps
        + _OFF_CENTRE_COST * ~(in_box & in_centre)
        + _NO_CANDIDATE_COST * ~candidate
    )
    return costs


def _insideness(boxes: Tensor, objects: Tensor) -> tuple[Tensor, Tensor]:
    """Whether centres of boxes lie in objects, and near their centres: two of bool (P, n)."""
    centres = ((boxes[:, :2] + boxes[:, 2:]) / 2)[:, None]
    low, high = objects[:, :2], objects[:, 2:]
    radius = _CENTRE_RADIUS * (high - low)
    middle = (low + high) / 2
    in_box = ((centres > low) & (centres < high)).all(dim=-1)
    in_centre = ((centres > middle - radius) & (centres < middle + radius)).all(dim=-1)
    return in_box, in_centre
