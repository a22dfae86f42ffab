"""A fusion network at the resolution a board can afford."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from mmfusion.errors import ExportError
from mmfusion.layers.scaling import enlarge, shrink
from mmfusion.s4fusion.network import S4Fusion


class LumaFusion(nn.Module):
    """Runs a fusion network on pictures ``scale`` times smaller.

    A network that blends gives its log-odds at the small size; they are enlarged and applied to
    the full pictures, which therefore keep every detail.
    """

    def __init__(self, network: nn.Module, scale: int = 1) -> None:
        """Wrap a network.

        Args:
            network: called as ``network(infrared, visible)``.
            scale: 1 runs it at full size.

        Raises:
            ExportError: if the scale is below 1, or not 1 and the network does not blend.
        """
        super().__init__()
        self.network = network
        self.scale = scale
        if scale < 1:
            raise ExportError(f"fusion scale is {scale}; expected at least 1")
        if scale != 1 and not (isinstance(network, S4Fusion) and network.config.blend):
            raise ExportError(
                f"fusion_scale {scale} needs a network that blends, such as s4fusion_tiny; "
                "export this one with fusion_scale 1"
            )

    def forward(self, infrared: Tensor, luma: Tensor) -> Tensor:
        """Fuse (N, 1, H, W) pictures in [0, 1]; the result may lie slightly outside."""
        if self.scale == 1:
            full: Tensor = self.network(infrared, luma)
            return full
        small = shrink(infrared, self.scale), shrink(luma, self.scale)
        network = cast("S4Fusion", self.network)
        log_odds = enlarge(network.log_odds(*small), self.scale, *luma.shape[-2:])
        return network.choose(log_odds, infrared, luma)
