"""What stands out as warm in a thermal picture."""

from __future__ import annotations

from torch import Tensor

_LEAST_SPREAD = 1 / 255  # of noise, in units of white


def warmth(infrared: Tensor) -> Tensor:
    """How much each pixel stands out as warm from its whole picture, 0..1.

    Half-way one standard deviation above the mean. Not published.

    Args:
        infrared: (N, C, H, W) in [0, 1].

    Returns:
        Same shape.
    """
    excess = infrared - infrared.mean(dim=(-2, -1), keepdim=True)
    spread = excess.square().mean(dim=(-2, -1), keepdim=True).sqrt().clamp(min=_LEAST_SPREAD)
    return (4 * (excess / spread - 1)).sigmoid()
