"""Detections from the raw output of the network: as published, outside of compiled graphs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import nms  # type: ignore[import-untyped]

CANDIDATES = 500
IOU_THRESHOLD = 0.5


class Detections(NamedTuple):
    """Detections in one image, by falling score.

    Attributes:
        boxes: corners in pixels within the image, (M, 4).
        scores: (M,), in (0, 1).
        labels: positions in the class names, int64 (M,).
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


def detections(
    logits: Tensor,
    boxes: Tensor,
    size: tuple[int, int],
    *,
    score_threshold: float = 0.0,
    output_size: tuple[int, int] | None = None,
) -> Detections:
    """Suppress, scale and clip.

    Args:
        logits: class scores of the last stage, (P, C), or of several sampling steps, each of
            which then contributes its own candidates, (K, P, C).
        boxes: corners in pixels, (P, 4) or (K, P, 4).
        size: (height, width) of the image that was given to the network.
        score_threshold: least score; 0 for measuring mean average precision.
        output_size: (height, width) to scale boxes to; ``size`` if None.
    """
    if logits.dim() == 2:
        logits, boxes = logits[None], boxes[None]
    candidates = [_best_pairs(*step) for step in zip(logits, boxes, strict=True)]
    found = Detections(*(torch.cat(parts) for parts in zip(*candidates, strict=True)))
    found = _select(found, found.scores >= score_threshold)
    found = _select(found, _suppress(found))
    height, width = output_size or size
    scale = found.boxes.new_tensor((width / size[1], height / size[0]) * 2)
    corners = (found.boxes * scale).unflatten(-1, (2, 2))
    clipped = corners.clamp(min=0).minimum(corners.new_tensor((width, height)))
    found = found._replace(boxes=clipped.flatten(-2))
    return _select(found, (clipped[:, 1] > clipped[:, 0]).all(dim=-1))


def _best_pairs(logits: Tensor, boxes: Tensor) -> Detections:
    """The best pairs of proposal and class; a box may come with several classes."""
    classes = logits.shape[-1]
    probabilities = logits.sigmoid().flatten()
    scores, pairs = probabilities.topk(min(CANDIDATES, len(probabilities)))
    return Detections(boxes[pairs // classes], scores, pairs % classes)


def _suppress(found: Detections) -> Tensor:
    """Indices of what survives class-wise suppression, by falling score."""
    kept = [torch.zeros(0, dtype=torch.long, device=found.scores.device)]
    for label in found.labels.unique():
        own = (found.labels == label).nonzero().flatten()
        kept.append(own[nms(found.boxes[own], found.scores[own], IOU_THRESHOLD)])
    indices = torch.cat(kept)
    return indices[found.scores[indices].argsort(descending=True, stable=True)]


def _select(found: Detections, which: Tensor) -> Detections:
    return Detections(*(field[which] for field in found))
