"""Depth as its stream sees it: what stands before its surroundings, at two scales."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_SCALES = (8, 32)  # pixels that surroundings are averaged over; divisors of the network's stride
_GAIN = 16.0  # makes 5 cm at 0.8 m, within a range of 0.3 to 10 m, a step of 0.4


class Relief(nn.Module):
    """Depth, and by how much each pixel is nearer than its surroundings.

    Things on a table differ from it by a hundredth of the whole range, less than the table's own
    slant: a network that starts from nothing hardly finds them in depth as it is.

    The gain is stored with the weights, so that those trained without relief are refused here,
    and those trained with it elsewhere.
    """

    gain: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("gain", torch.tensor(_GAIN))

    def forward(self, depth: Tensor) -> Tensor:
        """Three channels of one.

        Args:
            depth: (N, 1, H, W) in [0, 1]; sides are multiples of 32.

        Returns:
            (N, 3, H, W): depth in [0, 1], then its relief against blocks of 8 and of 32 pixels
            in (-1, 1), 0 where depth is flat.
        """
        reliefs = (self._against(depth, scale) for scale in _SCALES)
        return torch.cat((depth, *reliefs), dim=1)

    def _against(self, depth: Tensor, scale: int) -> Tensor:
        surroundings = functional.interpolate(
            functional.avg_pool2d(depth, scale),
            scale_factor=float(scale),
            mode="bilinear",
            align_corners=False,
        )
        return torch.tanh(self.gain * (depth - surroundings))
