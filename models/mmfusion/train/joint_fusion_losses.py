"""What the fused luminance of EfficientMFD owes to its two sources. arXiv:2403.09323.

Where article and released training disagree, a `FusionForm` tells which of them to follow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from mmfusion.train.pixel_saliency import saliency_shares

FusionForm = Literal["released", "paper"]
WEIGHTS = (10.0, 10.0, 10.0)
_SSIM_WINDOW, _SSIM_SIGMA = 11, 1.5
_SSIM_C1, _SSIM_C2 = 0.01**2, 0.03**2
_DETAIL_SIGMA = 2.0
_DETAIL_WIDTHS = (3, 5, 7)  # of the blur


class _Form(NamedTuple):
    """What tells one form of the losses from the other.

    Attributes:
        targets: brightness on objects and elsewhere, of infrared and visible.
        detail_distance: of two maps, a scalar.
        detail_weights: for each width of the blur.
    """

    targets: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    detail_distance: Callable[[Tensor, Tensor], Tensor]
    detail_weights: tuple[float, float, float]


def joint_fusion_losses(
    fused: Tensor,
    infrared: Tensor,
    visible: Tensor,
    objects: Tensor,
    form: FusionForm = "released",
) -> Tensor:
    """Losses of structure, detail and brightness, to be weighted by `WEIGHTS` and added.

    Each is a mean over all pixels of all images.

    "released": brightness aims at the sum of both pictures on objects, which may exceed white, and
    at the brighter of both elsewhere. Detail is compared by L1, the finer ones ten times.

    "paper": both pictures are multiplied by their `saliency_shares` first; brightness aims at the
    larger product on objects and at the mean of both products elsewhere. As the shares add up to
    1, that is half as bright as the pictures where both are alike. Detail is compared by squares,
    all widths alike.

    Args:
        fused: luminance in units of white, (N, 1, H, W).
        infrared: same shape, in [0, 1].
        visible: largest of red, green and blue, same shape, in [0, 1].
        objects: 1 on objects, else 0, same shape, see `object_mask`.
        form: which of both.

    Returns:
        (3,): structure (1 less the mean SSIM with each picture), detail, brightness.
    """
    targets, detail_distance, detail_weights = _FORMS[form]
    structure = 1 - (_ssim(fused, visible) + _ssim(fused, infrared)) / 2
    detail = fused.new_zeros(())
    for width, weight in zip(_DETAIL_WIDTHS, detail_weights, strict=True):
        wanted = torch.maximum(_detail(infrared, width), _detail(visible, width))
        detail = detail + weight * detail_distance(_detail(fused, width), wanted)
    on_objects, elsewhere = targets(infrared, visible)
    inside = (objects * (fused - on_objects)).abs().mean()
    outside = ((1 - objects) * (fused - elsewhere)).abs().mean()
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


def _released_targets(infrared: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
    return infrared + visible, torch.maximum(infrared, visible)


def _paper_targets(infrared: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
    share = saliency_shares(infrared, visible)
    one, other = share * infrared, (1 - share) * visible
    return torch.maximum(one, other), (one + other) / 2


_FORMS: Mapping[FusionForm, _Form] = {
    "released": _Form(_released_targets, functional.l1_loss, (10.0, 10.0, 1.0)),
    "paper": _Form(_paper_targets, functional.mse_loss, (1.0, 1.0, 1.0)),
}


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
