"""A fusion network at the resolution a board can afford."""

from __future__ import annotations

from torch import Tensor, nn

from mmfusion.graph.photometry import enlarge, shrink


class LumaFusion(nn.Module):
    """Runs a fusion network on pictures ``scale`` times smaller.

    What the network changes in the luma is enlarged and added to the full picture, so detail
    finer than it saw stays that of the visible image.
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
        small = shrink(luma, self.scale)
        change = self.network(shrink(infrared, self.scale), small) - small
        return luma + enlarge(change, self.scale, *luma.shape[-2:])
