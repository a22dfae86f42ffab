"""What the fused luminance of EfficientMFD owes to its two sources. arXiv:2403.09323.

Where article and released training disagree, this follows the released training.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

WEIGHTS = (10.0, 10.0, 10.0)
_SSIM_WINDOW, _SSIM_SIGMA = 11, 1.5
_SSIM_C1, _SSIM_C2 = 0.01**2, 0.03**2
_DETAIL_SIGMA = 2.0
_DETAIL_WEIGHTS = ((3, 10.0), (5, 10.0), (7, 1.0))  # width of the blur, weight


def joint_fusion_losses(
    fused: Tensor, infrared: Tensor, visible: Tensor, objects: Tensor
) -> Tensor:
    """Losses of structure, detail and brightness, to be weighted by `WEIGHTS` and added.

    Brightness aims at the sum of both pictures on objects, which may exceed white, and at the
    brighter of both elsewhere.

    Args:
        fused: luminance in units of white, (N, 1, H, W).
        infrared: same shape, in [0, 1].
        visible: largest of red, green and blue, same shape, in [0, 1].
        objects: 1 on objects, else 0, same shape, see `object_mask`.

    Returns:
        (3,): structure (1 less the mean SSIM with each picture), detail, brightness.
    """
    structure = 1 - (_ssim(fused, visible) + _ssim(fused, infrared)) / 2
    detail = fused.new_zeros(())
    for width, weight in _DETAIL_WEIGHTS:
        wanted = torch.maximum(_detail(infrared, width), _detail(visible, width))
        detail = detail + weight * functional.l1_loss(_detail(fused, width), wanted)
    inside = (objects * (fused - (visible + infrared))).abs().mean()
    outside = ((1 - objects) * (fused - torch.maximum(visible, infrared))).abs().mean()
    return torch.stack((structure, detail, inside + outside))


def object_mask(boxes: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """1 within any box, else 0: (N, 1, H, W).

    Args:
        boxes: corners in pixels, (n, 4), of each image; cut to whole pixels.
        size: (height, width) of the images.
    """
    mask = torch.zeros(len(boxes), 1, *size)
    for image, corners in zip(mask, boxes, strict=True):
        for x1, y1, x2, y2 in corners.clamp(min=0).int().tolist():
            image[:, y1:y2, x1:x2] = 1
    return mask


def _detail(image: Tensor, width: int) -> Tensor:
    return image - _blur(image, width, _DETAIL_SIGMA)


def _blur(image: Tensor, width: int, sigma: float) -> Tensor:
    """Gaussian of an odd ``width``; beyond the image is black.

    As products with band matrices: on CPUs, the backward pass of the convolution of one channel
    takes longer than that of the whole network.
    """
    height, length = image.shape[-2:]
    return _band(height, width, sigma).to(image) @ image @ _band(length, width, sigma).to(image)


@cache
def _band(length: int, width: int, sigma: float) -> Tensor:
    """Blur of a signal as a symmetric matrix (length, length)."""
    offsets = torch.arange(width, dtype=torch.float64) - width // 2
    window = torch.exp(-(offsets**2) / (2 * sigma**2))
    position = torch.arange(length)
    distance = (position[:, None] - position).abs()
    inside = distance <= width // 2
    weights = torch.exp(-(distance.double() ** 2) / (2 * sigma**2)) / window.sum()
    return torch.where(inside, weights, 0.0).float()


def _ssim(one: Tensor, other: Tensor) -> Tensor:
    """Mean structural similarity (Wang et al., 2004), black beyond the image."""

    def blur(image: Tensor) -> Tensor:
        return _blur(image, _SSIM_WINDOW, _SSIM_SIGMA)

    mean_1, mean_2, product = blur(one), blur(other), blur(one * other)
    square_1, square_2 = blur(one * one), blur(other * other)
    variances = square_1 - mean_1**2 + square_2 - mean_2**2
    covariance = product - mean_1 * mean_2
    similarity = ((2 * mean_1 * mean_2 + _SSIM_C1) * (2 * covariance + _SSIM_C2)) / (
        (mean_1**2 + mean_2**2 + _SSIM_C1) * (variances + _SSIM_C2)
    )
    return similarity.mean()
