"""The shapes that an EfficientMFD network comes in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mmfusion.errors import ModelError

SIZE_MULTIPLE = 32  # images are padded until their sides are multiples of it

M3FD_CLASSES = ("People", "Car", "Bus", "Lamp", "Motorcycle", "Truck")


@dataclass(frozen=True)
class EfficientMFDConfig:
    """Shape of the network. The defaults are the published one.

    Attributes:
        backbone: timm model whose feature maps have strides 4, 8, 16 and 32, with a tag for
            certain pretrained weights. Built with fresh ones.
        frozen_start: keep the backbone's batch norm, its stem and its first stage as they are,
            as published: right if training starts from pretrained weights. If training starts
            from nothing, frozen batch norm would be no norm at all: say False.
        channels: width of the pyramid and of the proposal features.
        pixel_channels: width of the first pixel block; the fusion network is up to 4 times
            as wide.
        fusion_stride: compute fusion weights at this fraction of the image's sides, on means
            of squares of pixels, and interpolate them. A power of 2 up to 32; 1 is published.
        proposals: boxes that detection starts from.
        stages: refinements of each box, each with its own weights.
        heads: attention heads of a stage; divide ``channels``.
        feed_forward: hidden width of a stage's feed-forward layer.
        dynamic_channels: inner width of the layers that each proposal makes for itself.
        class_layers: hidden layers in front of the class scores.
        box_layers: hidden layers in front of the box deltas.
        sampling_steps: diffusion steps; 1 is published.
        classes: class names; the position is the label.

    Raises:
        ModelError: if widths, heads and strides do not fit together.
    """

    backbone: str = "resnet50.tv_in1k"
    frozen_start: bool = True
    channels: int = 256
    pixel_channels: int = 32
    fusion_stride: int = 1
    proposals: int = 500
    stages: int = 6
    heads: int = 8
    feed_forward: int = 2048
    dynamic_channels: int = 64
    class_layers: int = 1
    box_layers: int = 3
    sampling_steps: int = 1
    classes: tuple[str, ...] = M3FD_CLASSES

    def __post_init__(self) -> None:
        if self.channels % (2 * self.heads):
            raise ModelError(
                f"{self.channels} channels do not split into {self.heads} heads of even width; "
                "expected a multiple of twice the heads: choose other channels"
            )
        if self.fusion_stride < 1 or SIZE_MULTIPLE % self.fusion_stride:
            raise ModelError(
                f"fusion_stride {self.fusion_stride} does not divide padded images; expected "
                f"a divisor of {SIZE_MULTIPLE}: choose 1, 2 or 4"
            )


PRESETS: Mapping[str, EfficientMFDConfig] = {
    # As published: 111 M parameters.
    "efficientmfd_r50": EfficientMFDConfig(),
    # For embedded GPUs.
    "efficientmfd_r18": EfficientMFDConfig(
        backbone="resnet18",
        channels=128,
        pixel_channels=16,
        proposals=200,
        stages=3,
        feed_forward=512,
        dynamic_channels=32,
    ),
    # For CPUs, started from pretrained weights.
    "efficientmfd_lite0": EfficientMFDConfig(
        backbone="tf_efficientnet_lite0",
        channels=64,
        pixel_channels=8,
        fusion_stride=2,
        proposals=100,
        stages=4,
        heads=4,
        feed_forward=256,
        dynamic_channels=16,
        box_layers=1,
    ),
    # For CPUs; trained from nothing.
    "efficientmfd_tiny": EfficientMFDConfig(
        backbone="mobilenetv3_small_100",
        frozen_start=False,
        channels=64,
        pixel_channels=8,
        fusion_stride=2,
        proposals=100,
        stages=2,
        heads=4,
        feed_forward=256,
        dynamic_channels=16,
        box_layers=1,
    ),
}
