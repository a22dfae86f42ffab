"""What a fused picture owes to a visible one, and to a thermal one where things stand out as warm.

Not published.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

_ATTENTION = 5.0  # what is warm is little of a picture, and what one looks for


def warmth_map(infrared: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """How much each pixel stands out as warm from its whole picture, 0 to 255.

    Half-way one standard deviation above the mean.
    """
    values = infrared.astype(np.float32)
    spread = max(float(values.std()), 1.0)
    excess = (values - values.mean()) / spread - 1
    warmth: NDArray[np.uint8] = np.rint(255 / (1 + np.exp(-4 * excess))).astype(np.uint8)
    return warmth


def warmth_loss(fused: Tensor, infrared: Tensor, visible: Tensor, warmth: Tensor) -> Tensor:
    """Mean absolute distance to the visible picture, and to the brighter one where it is warm.

    Warm pixels count up to six times.

    Args:
        fused: (N, 1, H, W) in [0, 1].
        infrared: same shape.
        visible: same shape.
        warmth: same shape, see `warmth_map`.
    """
    wanted = visible + warmth * (torch.maximum(infrared, visible) - visible)
    return ((fused - wanted).abs() * (1 + _ATTENTION * warmth)).mean()


def contrast_loss(fused: Tensor, infrared: Tensor, visible: Tensor) -> Tensor:
    """Mean absolute distance to the stronger of both steps from pixel to pixel, sign and all.

    Args:
        fused: (N, 1, H, W) in [0, 1].
        infrared: same shape.
        visible: same shape.
    """
    losses = []
    for axis in (-1, -2):
        step_ir, step_vi = (torch.diff(picture, dim=axis) for picture in (infrared, visible))
        wanted = torch.where(step_ir.abs() > step_vi.abs(), step_ir, step_vi)
        losses.append(functional.l1_loss(torch.diff(fused, dim=axis), wanted))
    return torch.stack(losses).mean()
