"""What a fused image owes to its two sources when no ground truth exists."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

_SSIM_C1, _SSIM_C2 = 0.01**2, 0.03**2


def intensity_loss(fused: Tensor, infrared: Tensor, visible: Tensor, warmth: Tensor) -> Tensor:
    """Mean absolute distance to the visible picture, and to the brighter one where it is warm.

    Warm pixels, few and what one looks for, count up to six times.

    Args:
        fused: (N, 1, H, W) in [0, 1].
        infrared: same shape.
        visible: same shape.
        warmth: same shape, see `warmth_map`.
    """
    wanted = visible + warmth * (torch.maximum(infrared, visible) - visible)
    return ((fused - wanted).abs() * (1 + 5 * warmth)).mean()


def warmth_map(infrared: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """How much each pixel stands out as warm from its whole picture, 0 to 255.

    Half-way one standard deviation above the mean.
    """
    values = infrared.astype(np.float32)
    spread = max(float(values.std()), 1.0)
    excess = (values - values.mean()) / spread - 1
    warmth: NDArray[np.uint8] = np.rint(255 / (1 + np.exp(-4 * excess))).astype(np.uint8)
    return warmth


def gradient_loss(fused: Tensor, infrared: Tensor, visible: Tensor) -> Tensor:
    """Mean absolute distance to the stronger source gradient, sign kept, per axis."""
    losses = []
    for axis in (-1, -2):
        source_ir, source_vi = (torch.diff(x, dim=axis) for x in (infrared, visible))
        target = torch.where(source_ir.abs() > source_vi.abs(), source_ir, source_vi)
        losses.append(functional.l1_loss(torch.diff(fused, dim=axis), target))
    return torch.stack(losses).mean()


def ssim_loss(fused: Tensor, source: Tensor) -> Tensor:
    """``1 - SSIM`` of one-channel images in [0, 1], Gaussian window 11, sigma 1.5."""
    offsets = torch.arange(11, dtype=fused.dtype, device=fused.device) - 5
    window = torch.exp(-(offsets**2) / (2 * 1.5**2))
    window = window / window.sum()

    def blur(x: Tensor) -> Tensor:
        return functional.conv2d(
            functional.conv2d(x, window.view(1, 1, 1, -1)), window.view(1, 1, -1, 1)
        )

    mean_f, mean_s = blur(fused), blur(source)
    var_f = blur(fused * fused) - mean_f**2
    var_s = blur(source * source) - mean_s**2
    cov = blur(fused * source) - mean_f * mean_s
    ssim = ((2 * mean_f * mean_s + _SSIM_C1) * (2 * cov + _SSIM_C2)) / (
        (mean_f**2 + mean_s**2 + _SSIM_C1) * (var_f + var_s + _SSIM_C2)
    )
    return 1 - ssim.mean()
