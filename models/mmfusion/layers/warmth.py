"""What stands out as warm in a thermal picture."""

from __future__ import annotations

from torch import Tensor

_LEAST_SPREAD = 1 / 255  # of noise, in units of white


def warmth_of(infrared: Tensor, seen: Tensor | None = None) -> Tensor:
    """How much each pixel stands out as warm from its whole picture, 0..1.

    Half-way one standard deviation above the mean. Not published.

    Args:
        infrared: (N, 1, H, W) in [0, 1].
        seen: same shape, 1 where the thermal camera sees and 0 where something stands in for it,
            which tells nothing of mean and deviation; None if it sees everything.

    Returns:
        Same shape.
    """
    if seen is None:
        seen = infrared.new_ones(()).expand_as(infrared)
    count = seen.sum(dim=(-2, -1), keepdim=True).clamp(min=1)
    excess = infrared - (seen * infrared).sum(dim=(-2, -1), keepdim=True) / count
    variance = (seen * excess.square()).sum(dim=(-2, -1), keepdim=True) / count
    return (4 * (excess / variance.clamp(min=_LEAST_SPREAD**2).sqrt() - 1)).sigmoid()
