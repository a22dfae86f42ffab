"""The shapes that an S4Fusion network comes in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class S4FusionConfig:
    """Shape of the network. The defaults are the published one.

    Attributes:
        channels: model channels at full token resolution; doubled at each level below.
        depths: VSS blocks per encoder level; the decoder mirrors them.
        states: state size of the VSS blocks.
        fusion_states: state size of the cross-modal blocks.
        fusion_blocks: cross-modal blocks per fusion layer.
        unused_published_layers: hold the layers that the published weights contain and the
            published forward pass computes in vain (the fusion of level 0, the norm of the
            tail), so that those weights load and save completely. They never run.
        blend: read the output as the log-odds of taking a pixel from infrared rather than from
            visible, instead of as luminance. Not published: the tokens of a narrow network
            cannot carry every pixel, but they can say which picture to trust where; and such
            weights may be computed small and applied at full size.
        detail: how much a richer picture counts where details are blended, see
            `mmfusion.s4fusion.blend`; 0 blends by the log-odds alone, as training does, or
            nothing would be learnt of details.
    """

    channels: int = 48
    depths: tuple[int, ...] = (1, 2, 1)
    states: int = 12
    fusion_states: int = 18
    fusion_blocks: int = 3
    unused_published_layers: bool = True
    blend: bool = False
    detail: float = 0.0


PRESETS: Mapping[str, S4FusionConfig] = {
    # As published: 3.56 M parameters.
    "s4fusion": S4FusionConfig(),
    # For CPUs and small boards: says which picture to take where, see S4FusionConfig.blend.
    "s4fusion_tiny": S4FusionConfig(
        channels=24,
        depths=(1, 1, 1),
        states=4,
        fusion_states=6,
        fusion_blocks=1,
        unused_published_layers=False,
        blend=True,
        detail=8.0,
    ),
}
