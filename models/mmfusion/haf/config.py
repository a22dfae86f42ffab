"""The shapes that a HAF network comes in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mmfusion.errors import ModelError

STRIDE = 32  # of the coarsest level
_LEVELS = 4


@dataclass(frozen=True)
class HAFConfig:
    """Shape of the network. The defaults are the published one.

    Levels are counted as published: the first is the coarsest (stride 32), the fourth the finest
    (stride 4).

    Attributes:
        backbone: timm name of the network that each stream runs: a Swin, of which the maps
            before each stage's blocks are taken, or one that offers maps at strides 4 to 32.
        input_size: (height, width) that the frequency responses are stored for. Other sizes
            run too, with responses resampled.
        widths: channels of each level after the neck.
        decoder_widths: channels of each decoder stage; the last is at half the input's size.
        saliency_width: channels of the last hidden map.
        head_channels: channels that share a gate; divides every width.
        steps: steps of the fusion dynamics (published: T = 1).
        repulsion: how strongly a fused state is pushed off the auxiliary stream's correlation
            with itself (published: gamma = 0.4).
        relief: whether the depth stream sees depth and its relief, see `Relief`; else depth, three
            times, as published.
        primary: stream whose keys attract. The other, the auxiliary one, gives the query and
            gets the larger share of the result.
        drop_path: stochastic depth of a Swin in training, rising linearly over the blocks of the
            whole network to this rate.
    """

    backbone: str = "swin_base_patch4_window12_384"
    input_size: tuple[int, int] = (384, 384)
    widths: tuple[int, int, int, int] = (1024, 512, 256, 128)
    decoder_widths: tuple[int, int, int, int] = (512, 256, 128, 64)
    saliency_width: int = 32
    head_channels: int = 32
    steps: int = 1
    repulsion: float = 0.4
    relief: bool = False
    primary: Literal["rgb", "depth"] = "depth"
    drop_path: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what no network can be built of.

        Raises:
            ModelError: naming the attribute.
        """
        if any(side < STRIDE or side % STRIDE for side in self.input_size):
            raise ModelError(
                f"HAFConfig: input_size is {self.input_size}; give multiples of {STRIDE}"
            )
        if len(self.widths) != _LEVELS or len(self.decoder_widths) != _LEVELS:
            raise ModelError(
                f"HAFConfig: widths {self.widths} and decoder_widths {self.decoder_widths}; give "
                f"{_LEVELS} each, coarsest level first"
            )
        if any(width % self.head_channels for width in self.widths):
            raise ModelError(
                f"HAFConfig: head_channels is {self.head_channels}; choose a divisor of all "
                f"widths {self.widths}"
            )
        if self.steps < 1:
            raise ModelError(f"HAFConfig: steps is {self.steps}; give at least 1")
        if self.primary not in {"rgb", "depth"}:
            raise ModelError(f"HAFConfig: primary is {self.primary!r}; choose 'rgb' or 'depth'")


PRESETS: Mapping[str, HAFConfig] = {
    # As published.
    "haf_swin_base": HAFConfig(),
    "haf_swin_tiny": HAFConfig(
        backbone="swin_tiny_patch4_window7_224",
        widths=(768, 384, 192, 96),
        decoder_widths=(384, 192, 96, 48),
        saliency_width=24,
    ),
    # For embedded GPUs.
    "haf_resnet18": HAFConfig(
        backbone="resnet18",
        widths=(256, 192, 128, 64),
        decoder_widths=(128, 96, 64, 32),
        saliency_width=16,
    ),
    # For CPUs.
    "haf_mobilenetv3_small": HAFConfig(
        backbone="mobilenetv3_small_100",
        input_size=(256, 256),
        widths=(96, 48, 32, 16),
        decoder_widths=(64, 48, 32, 16),
        saliency_width=16,
        head_channels=16,
        relief=True,
    ),
    # The same with momentum: the dynamics of the article's figures, idle at one step.
    "haf_mobilenetv3_small_t3": HAFConfig(
        backbone="mobilenetv3_small_100",
        input_size=(256, 256),
        widths=(96, 48, 32, 16),
        decoder_widths=(64, 48, 32, 16),
        saliency_width=16,
        head_channels=16,
        relief=True,
        steps=3,
    ),
}
