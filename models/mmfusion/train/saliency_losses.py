"""What makes a saliency map good: HAF's loss."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional


def saliency_loss(logits: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Binary cross entropy plus soft IoU, summed over the outputs (deep supervision).

    The union counts overlaps twice and both terms of the quotient are raised by one, as
    published.

    Args:
        logits: each (N, 1, H, W).
        mask: (N, 1, H, W) in [0, 1].
    """
    return sum((_bce(y, mask) + _iou(y, mask) for y in logits), start=mask.new_zeros(()))


def _bce(logits: Tensor, mask: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, mask)


def _iou(logits: Tensor, mask: Tensor) -> Tensor:
    probability = logits.sigmoid()
    shared = (probability * mask).sum(dim=(1, 2, 3))
    both = (probability + mask).sum(dim=(1, 2, 3))
    return (1 - (shared + 1) / (both - shared + 1)).mean()
