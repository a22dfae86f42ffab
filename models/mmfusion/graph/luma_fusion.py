"""A fusion network at the resolution a board can afford, and the picture that it makes."""

from __future__ import annotations

from torch import Tensor, nn

from mmfusion.errors import ExportError
from mmfusion.layers.scaling import enlarge, shrink
from mmfusion.s4fusion.blend import blend
from mmfusion.s4fusion.config import S4FusionConfig
from mmfusion.s4fusion.network import S4Fusion


class LumaFusion(nn.Module):
    """Runs a fusion network on pictures ``scale`` times smaller.

    A network that blends gives its log-odds at the small size; they are enlarged and applied to
    the full pictures, which therefore keep every detail. While the network is in training mode
    they are applied without regard to detail, see `S4FusionConfig.detail`.
    """

    def __init__(self, network: nn.Module, scale: int = 1) -> None:
        """Wrap a network.

        Args:
            network: called as ``network(infrared, visible)``; gives a picture, or log-odds if
                it is an `S4Fusion` that blends.
            scale: 1 runs it at full size.

        Raises:
            ExportError: if the scale is below 1, or not 1 and the network does not blend.
        """
        super().__init__()
        self.network = network
        self.scale = scale
        self._blending: S4FusionConfig | None = None
        if isinstance(network, S4Fusion) and network.config.blend:
            self._blending = network.config
        if scale < 1:
            raise ExportError(f"fusion scale is {scale}; expected at least 1")
        if scale != 1 and self._blending is None:
            raise ExportError(
                f"fusion_scale {scale} needs a network that blends, such as s4fusion_tiny; "
                "export this one with fusion_scale 1"
            )

    def forward(self, infrared: Tensor, luma: Tensor, seen: Tensor | None = None) -> Tensor:
        """Fuse pictures; the result may lie slightly outside of [0, 1].

        Args:
            infrared: (N, 1, H, W) in [0, 1].
            luma: same shape.
            seen: same shape, 1 where infrared is a thermal picture and 0 where luma stands in for
                it; None if it is one everywhere.
        """
        small = (infrared, luma)
        if self.scale != 1:
            small = shrink(infrared, self.scale), shrink(luma, self.scale)
        # As a module, so that an exported graph tells what is the network's.
        out: Tensor = self.network(*small)
        if self._blending is None:
            return out
        if self.scale != 1:
            out = enlarge(out, self.scale, *luma.shape[-2:])
        # The network's mode, not that of this module, which may be built anew around it.
        detail = 0.0 if self.network.training else self._blending.detail
        return blend(out, infrared, luma, detail, seen)
