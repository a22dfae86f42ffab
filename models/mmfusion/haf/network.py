"""The HAF network: two streams, a shared neck, fusion at four levels, one decoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from torch import Tensor, nn
from torch.nn import functional

from mmfusion.errors import ModelError
from mmfusion.haf.backbone import create_stream
from mmfusion.haf.config import STRIDE, HAFConfig
from mmfusion.haf.decoder import Decoder, Heads
from mmfusion.haf.fusion_block import FusionBlock
from mmfusion.haf.neck import Neck
from mmfusion.haf.relief import Relief


class HAF(nn.Module):
    """Find salient objects in a colour image with registered depth.

    Parameters that the published network holds and never uses do not exist here.
    """

    def __init__(self, config: HAFConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or HAFConfig()
        self.rgb_backbone = create_stream(config)
        self.depth_backbone = create_stream(config)
        self.relief = Relief() if config.relief else None
        self.neck = Neck(self.rgb_backbone.channels, config.widths)
        self.fusion = nn.ModuleList(
            FusionBlock(width, level_size(config.input_size, level), config)
            for level, width in enumerate(config.widths)
        )
        self.decoder = Decoder(config.widths, config.decoder_widths)
        self.heads = Heads(config.decoder_widths, config.saliency_width)

    def start_from(self, whole: nn.Module) -> None:
        """Give both backbones, depth's too, the weights of the network timm has by their name."""
        for stream in (self.rgb_backbone, self.depth_backbone):
            stream.start_from(whole)

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """Those that `start_from` sets."""
        return chain(self.rgb_backbone.parameters(), self.depth_backbone.parameters())

    def forward(self, rgb: Tensor, depth: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits of registered pairs.

        Sizes that are no multiples of 32 are padded at the bottom and right by repeating the
        edge, and the logits cut back.

        Args:
            rgb: (N, 3, H, W), normalised by the mean and deviation of ImageNet.
            depth: (N, 1, H, W), or (N, 3, H, W) with one channel repeated, in [0, 1].

        Returns:
            Four logits (N, 1, H, W), finest first. The first is the result; the others come from
            coarser stages and are trained along.

        Raises:
            ModelError: if the images have other channels or differ in size.
        """
        check_images(rgb, depth)
        height, width = rgb.shape[-2:]
        rgb, depth = pad_to_stride(rgb), pad_to_stride(depth)
        rgb_levels = self.neck(self.rgb_backbone(rgb))
        seen = self.relief(depth[:, :1]) if self.relief else depth.expand(-1, 3, -1, -1)
        depth_levels = self.neck(self.depth_backbone(seen))
        fused = fuse(self.fusion, rgb_levels, depth_levels, self.config)
        logits = self.heads(self.decoder(fused))
        finest, second, third, coarsest = (y[..., :height, :width] for y in logits)
        return finest, second, third, coarsest


def padded_size(size: tuple[int, int]) -> tuple[int, int]:
    """An image size rounded up to multiples of 32."""
    height, width = (-(-side // STRIDE) * STRIDE for side in size)
    return height, width


def level_size(size: tuple[int, int], level: int) -> tuple[int, int]:
    """Size of the map of a level, 0 being the coarsest, for an image size."""
    height, width = padded_size(size)
    return height // (STRIDE >> level), width // (STRIDE >> level)


def pad_to_stride(image: Tensor) -> Tensor:
    """Repeat the bottom and right edges up to multiples of 32."""
    height, width = image.shape[-2:]
    if (height, width) == (padded := padded_size((height, width))):
        return image
    border = (0, padded[1] - width, 0, padded[0] - height)
    return functional.pad(image, border, mode="replicate")


def fuse(
    blocks: nn.ModuleList,
    rgb_levels: Sequence[Tensor],
    depth_levels: Sequence[Tensor],
    config: HAFConfig,
) -> tuple[Tensor, ...]:
    """Fuse level by level, in the roles that the configuration gives the streams."""
    primary, auxiliary = depth_levels, rgb_levels
    if config.primary == "rgb":
        primary, auxiliary = auxiliary, primary
    return tuple(block(*pair) for block, *pair in zip(blocks, auxiliary, primary, strict=True))


def check_images(rgb: Tensor, depth: Tensor) -> None:
    """Refuse what is no pair of registered images.

    Raises:
        ModelError: saying which shapes were given.
    """
    if (
        rgb.dim() != 4
        or depth.dim() != 4
        or rgb.shape[1] != 3
        or depth.shape[1] not in {1, 3}
        or rgb.shape[0] != depth.shape[0]
        or rgb.shape[-2:] != depth.shape[-2:]
    ):
        raise ModelError(
            "HAF takes rgb (N, 3, H, W) and depth (N, 1, H, W) of one size, got "
            f"{tuple(rgb.shape)} and {tuple(depth.shape)}; register and resize depth to rgb first"
        )
