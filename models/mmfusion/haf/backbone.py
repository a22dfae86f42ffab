"""One stream's feature maps, at strides 4, 8, 16 and 32."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, cast

import timm
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from mmfusion.errors import ModelError
from mmfusion.haf.config import HAFConfig
from mmfusion.timm_weights import colour_statistics, copy_weights

_STRIDES = [4, 8, 16, 32]
_SEPARATE = -100.0  # added to the attention logit of tokens that must not see each other


class Stream(nn.Module, ABC):
    """Base of what turns an image (N, 3, H, W) into four maps (N, C, H/s, W/s), finest first.

    Attributes:
        channels: of the four maps.
    """

    channels: tuple[int, ...]

    def prepare(self, size: tuple[int, int]) -> None:
        """Make ready whatever depends on the image size, before an export fixes it."""

    @abstractmethod
    def start_from(self, whole: nn.Module) -> None:
        """Take over the weights of the whole network that timm has by the backbone's name."""


class SwinStream(Stream):
    """The first three stages of a Swin transformer.

    Its maps are what enters each stage: the patch embedding, and the results of the three patch
    mergings. They are neither the outputs of the stages nor normalised, and the last stage
    therefore does not exist here.

    Maps that are no multiple of the window are padded. Padding takes no part in attention, nor
    do tokens that only the cyclic shift made neighbours see each other.
    """

    def __init__(self, name: str, drop_path: float) -> None:
        super().__init__()
        body = cast(
            "Any",
            timm.create_model(
                name,
                pretrained=False,
                num_classes=0,
                strict_img_size=False,
                drop_path_rate=drop_path,
            ),
        )
        self.channels = tuple(info["num_chs"] for info in body.feature_info)
        self.embed = body.patch_embed
        self.stages = nn.ModuleList(stage.blocks for stage in body.layers[:-1])
        self.merges = nn.ModuleList(stage.downsample for stage in body.layers[1:])
        self._grid = (0, 0)
        for blocks in self.stages:
            for block in cast("Any", blocks):
                block.dynamic_mask = False  # the masks are set by `prepare`

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Maps of an image whose sides are multiples of 32."""
        self.prepare((image.shape[-2], image.shape[-1]))
        tokens = self.embed(image)
        maps = [tokens]
        for blocks, merge in zip(self.stages, self.merges, strict=True):
            tokens = merge(blocks(tokens))
            maps.append(tokens)
        return tuple(tokens.permute(0, 3, 1, 2) for tokens in maps)

    def prepare(self, size: tuple[int, int]) -> None:
        """Set shifts and attention masks for an image size."""
        grid = (size[0] // _STRIDES[0], size[1] // _STRIDES[0])
        if grid == self._grid:
            return
        self._grid = grid
        like = self.embed.proj.weight
        for level, blocks in enumerate(self.stages):
            rows, columns = grid[0] >> level, grid[1] >> level
            masks: dict[tuple[int, int], Tensor | None] = {}
            for index, block in enumerate(cast("Any", blocks)):
                window = block.window_size
                # A map within one window has no neighbours to exchange with.
                shift = (
                    window[0] // 2 if index % 2 and rows > window[0] else 0,
                    window[1] // 2 if index % 2 and columns > window[1] else 0,
                )
                if shift not in masks:
                    mask = window_mask((rows, columns), window, shift)
                    masks[shift] = None if mask is None else mask.to(like.device, like.dtype)
                block.shift_size, block.attn_mask = shift, masks[shift]

    def start_from(self, whole: nn.Module) -> None:
        """Take over the weights of a Swin of timm, less its last stage's blocks."""
        swin = cast("Any", whole)
        self.embed.load_state_dict(swin.patch_embed.state_dict())
        for blocks, merge, layer, following in zip(
            self.stages, self.merges, swin.layers[:-1], swin.layers[1:], strict=True
        ):
            blocks.load_state_dict(layer.blocks.state_dict())
            merge.load_state_dict(following.downsample.state_dict())


class PyramidStream(Stream):
    """A convolutional network of timm that offers its maps."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.body = timm.create_model(
            name, pretrained=False, features_only=True, out_indices=(1, 2, 3, 4)
        )
        info = cast("Any", self.body).feature_info
        if info.reduction() != _STRIDES:
            raise ModelError(
                f"backbone {name!r} has maps at strides {info.reduction()}, expected {_STRIDES}; "
                "choose one such as resnet18"
            )
        self.channels = tuple(info.channels())

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Maps of an image whose sides are multiples of 32."""
        return tuple(self.body(image))

    def start_from(self, whole: nn.Module) -> None:
        """Take over the weights of the network that the extractor is cut from."""
        copy_weights(self.body, whole)


def create_stream(config: HAFConfig) -> Stream:
    """Build one stream with fresh weights; nothing is downloaded.

    Raises:
        ModelError: if timm does not know the backbone, or it has other strides or is used with
            other colours than the graph gives it.
    """
    if not timm.is_model(config.backbone):
        raise ModelError(
            f"unknown backbone {config.backbone!r}; expected a name of timm such as resnet18"
        )
    mean, std = colour_statistics(config.backbone)
    if (mean, std) != (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD):
        raise ModelError(
            f"backbone {config.backbone!r} takes colours of mean {mean} and deviation {std}; "
            f"expected ImageNet's, {IMAGENET_DEFAULT_MEAN} and {IMAGENET_DEFAULT_STD}, which HAF "
            "normalises by; choose one such as resnet18"
        )
    if config.backbone.startswith("swin_"):
        return SwinStream(config.backbone, config.drop_path)
    return PyramidStream(config.backbone)


def window_mask(
    grid: tuple[int, int], window: tuple[int, int], shift: tuple[int, int]
) -> Tensor | None:
    """What to add to the attention logits of each window of a shifted, then padded map.

    Args:
        grid: (rows, columns) of the map.
        window: (rows, columns) of a window.
        shift: by how much the map was rolled up and left.

    Returns:
        (windows, tokens, tokens), 0 where two tokens may see each other; windows row by row.
        None if all of them may.
    """
    rows, columns = (_regions(*axis) for axis in zip(grid, window, shift, strict=True))
    if not rows.any() and not columns.any():
        return None
    # In the middle of inference mode too, these must serve a later training step.
    with torch.inference_mode(mode=False):
        region = 3 * rows[:, None] + columns[None, :]
        tiles = region.unflatten(1, (-1, window[1])).unflatten(0, (-1, window[0]))
        tokens = tiles.transpose(1, 2).flatten(2).flatten(0, 1)
        same = tokens[:, :, None] == tokens[:, None, :]
        return torch.zeros(same.shape).masked_fill(~same, _SEPARATE)


def _regions(size: int, window: int, shift: int) -> Tensor:
    """Along one axis, rolled and padded: 0 in place, 1 rolled over the edge, 2 padding."""
    with torch.inference_mode(mode=False):
        index = torch.arange(-(-size // window) * window)
        return (index >= size - shift).long() + (index >= size).long()


def own_swin_name(key: str) -> str:
    """Name within a `SwinStream` of a weight of Microsoft's Swin release.

    The release has the merging that follows a stage inside it. Keys that a `SwinStream` has no
    place for come out as names it does not have.
    """
    parts = key.split(".")
    if parts[0] == "patch_embed":
        parts[0] = "embed"
    elif parts[0] == "layers" and len(parts) > 3:
        kind = {"blocks": "stages", "downsample": "merges"}.get(parts[2], parts[2])
        parts[:3] = [kind, parts[1]]
    return ".".join(parts)
