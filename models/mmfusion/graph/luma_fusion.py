"""A fusion network at the resolution a board can afford."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmfusion.graph.photometry import enlarge, shrink


class LumaFusion(nn.Module):
    """Runs a fusion network on pictures ``scale`` times smaller.

    What the network makes of them beyond their pixel-wise maximum is enlarged and added to the
    maximum at full size, so detail finer than it saw is that of the brighter picture.
    """

    def __init__(self, network: nn.Module, scale: int) -> None:
        super().__init__()
        self.network = network
        self.scale = scale

    def forward(self, infrared: Tensor, luma: Tensor) -> Tensor:
        """Fuse (N, 1, H, W) pictures in [0, 1]; the result may lie slightly outside."""
        if self.scale == 1:
            full: Tensor = self.network(infrared, luma)
            return full
        small = shrink(infrared, self.scale), shrink(luma, self.scale)
        change = self.network(*small) - torch.maximum(*small)
        return torch.maximum(infrared, luma) + enlarge(change, self.scale, *luma.shape[-2:])
