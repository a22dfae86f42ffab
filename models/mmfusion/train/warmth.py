"""What a fused picture owes to a visible one, and to a thermal one where things stand out as warm.

Not published.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_ATTENTION = 5.0  # what is warm is little of a picture, and what one looks for


def warmth_loss(fused: Tensor, infrared: Tensor, visible: Tensor, warmth: Tensor) -> Tensor:
    """Mean absolute distance to the visible picture, and to the brighter one where it is warm.

    Warm pixels count up to six times.

    Args:
        fused: (N, 1, H, W) in [0, 1].
        infrared: same shape.
        visible: same shape.
        warmth: same shape, see `warmth_of`.
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
