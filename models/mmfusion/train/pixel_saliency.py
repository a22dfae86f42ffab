"""How much each pixel stands out of its picture, told by the picture's histogram."""

from __future__ import annotations

import torch
from torch import Tensor

_LEVELS = 256


def saliency_shares(one: Tensor, other: Tensor) -> Tensor:
    """The first picture's share in the saliency of both, pixel by pixel.

    The saliency of a pixel is the sum of its distances in grey levels from all pixels of its
    picture. The share is S / (S + S'), as article arXiv:2403.09323 must mean: it prints a minus,
    which has no value where both stand out alike.

    Args:
        one: (N, 1, H, W) in [0, 1].
        other: same shape.

    Returns:
        Same shape, in [0, 1]; 1/2 where neither picture has any saliency.
    """
    mine, theirs = _saliency(one), _saliency(other)
    both = mine + theirs
    return torch.where(both > 0, mine / both, 0.5)


def _saliency(images: Tensor) -> Tensor:
    """Of 8-bit grey levels, each image by itself."""
    levels = (images * (_LEVELS - 1)).round().long().flatten(1)
    counts = images.new_zeros(len(images), _LEVELS)
    counts.scatter_add_(1, levels, torch.ones_like(levels, dtype=counts.dtype))
    level = torch.arange(_LEVELS, dtype=counts.dtype, device=counts.device)
    distances = (level[:, None] - level).abs()
    return (counts @ distances).gather(1, levels).view_as(images)
