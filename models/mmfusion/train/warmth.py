"""Where thermal pictures have something to say that is not a matter of edges."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


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

    Args:
        fused: (N, 1, H, W) in [0, 1].
        infrared: same shape.
        visible: same shape.
        warmth: same shape, see `warmth_map`.
    """
    wanted = visible + warmth * (torch.maximum(infrared, visible) - visible)
    return (fused - wanted).abs().mean()
