"""Pictures at a fraction of their size, and back."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def shrink(image: Tensor, factor: int) -> Tensor:
    """Area average by an integer factor; the border block of an uneven side is smaller."""
    return functional.avg_pool2d(image, factor, ceil_mode=True, count_include_pad=False)


def enlarge(image: Tensor, factor: int, height: int, width: int) -> Tensor:
    """Bilinear enlargement by an integer factor, cut to ``height`` x ``width``."""
    large = functional.interpolate(image, scale_factor=factor, mode="bilinear", align_corners=False)
    return large[..., :height, :width]


def smooth(image: Tensor, factor: int) -> Tensor:
    """What is left of a picture that was shrunk, at its own size."""
    return enlarge(shrink(image, factor), factor, image.shape[-2], image.shape[-1])
