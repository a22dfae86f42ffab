"""What a diffusion detector owes to the objects of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import (  # type: ignore[import-untyped]
    generalized_box_iou_loss,
    sigmoid_focal_loss,
)

from mmfusion.train.detection_matching import (
    CLASS_WEIGHT,
    FOCAL_ALPHA,
    FOCAL_GAMMA,
    GIOU_WEIGHT,
    L1_WEIGHT,
    UNMATCHED,
    Objects,
    match_proposals,
)
from mmfusion.train.processes import Processes

WEIGHTS = (CLASS_WEIGHT, L1_WEIGHT, GIOU_WEIGHT)


def detection_losses(
    logits: Tensor,
    boxes: Tensor,
    objects: Sequence[Objects],
    size: tuple[int, int],
    *,
    labelled: Tensor | None = None,
    processes: Processes | None = None,
) -> Tensor:
    """Losses of every stage, to be weighted by `WEIGHTS` and added.

    Each is a sum over the batch, divided by the count of matched proposals (not of objects).

    Args:
        logits: class scores of every stage, (S, N, P, C).
        boxes: corners in pixels, (S, N, P, 4).
        objects: of each image.
        size: (height, width) of the images in pixels.
        labelled: bool (N, C), which classes the labels of an image cover; others take no part
            in its class loss. All if None.
        processes: that the batch is spread over; their mean is that of the whole batch. This
            one alone if None.

    Returns:
        (S, 3): focal loss of classes (Lin et al., ICCV 2017), L1 distance of corners in units of
        the image, and 1 - GIoU (Rezatofighi et al., CVPR 2019).

    Raises:
        DataError: if an image has more objects than proposals.
    """
    if labelled is None:
        labelled = torch.ones_like(logits[0, :, 0], dtype=torch.bool)
    stages = zip(logits, boxes, strict=True)
    losses = []
    for stage in stages:
        sums, matched = _stage_sums(*stage, objects, size, labelled)
        losses.append(sums / _matched_each(sums.new_tensor(matched), processes))
    return torch.stack(losses)


def _matched_each(matched: Tensor, processes: Processes | None) -> Tensor:
    """Matched proposals per process; all processes together have one at least."""
    if processes is None:
        return matched.clamp(min=1)
    return processes.mean(matched).clamp(min=1 / processes.count)


def _stage_sums(
    logits: Tensor,
    boxes: Tensor,
    objects: Sequence[Objects],
    size: tuple[int, int],
    labelled: Tensor,
) -> tuple[Tensor, int]:
    """Losses (3,), added over the batch, and how many proposals are matched."""
    wanted_classes = torch.zeros_like(logits)
    found, wanted = [], []
    for image, truth in enumerate(objects):
        match = match_proposals(logits[image], boxes[image], truth, size)
        rows = (match != UNMATCHED).nonzero().flatten()
        wanted_classes[image, rows, truth.labels[match[rows]]] = 1
        found.append(boxes[image, rows])
        wanted.append(truth.boxes[match[rows]])
    focal = sigmoid_focal_loss(logits, wanted_classes, alpha=FOCAL_ALPHA, gamma=FOCAL_GAMMA)
    matched, targets = torch.cat(found), torch.cat(wanted)
    height, width = size
    scale = boxes.new_tensor((width, height, width, height))
    sums = (
        (focal * labelled[:, None]).sum(),
        functional.l1_loss(matched / scale, targets / scale, reduction="sum"),
        generalized_box_iou_loss(matched, targets, reduction="sum"),
    )
    return torch.stack(sums), len(matched)
