"""The S4Fusion network: two encoders, fusion between them, one decoder."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmfusion.s4fusion.blocks import (
    FusionLayer,
    PatchEmbed,
    PatchExpand,
    PatchMerge,
    VSSBlock,
    run_together,
)
from mmfusion.s4fusion.config import S4FusionConfig

_PATCH, _STRIDE = 4, 3
_TAIL_CHANNELS = 12


class EncoderLevel(nn.Module):
    """VSS blocks of one modality at one level, and the merge that leads to the next."""

    def __init__(self, channels: int, states: int, depth: int, *, last: bool) -> None:
        super().__init__()
        blocks = nn.ModuleList(VSSBlock(channels, states) for _ in range(depth))
        self.blocks = cast("Iterable[VSSBlock]", blocks)
        self.merge = nn.Identity() if last else PatchMerge(channels)


class DecoderLevel(nn.Module):
    """The expansion from the level below (none at the deepest), then VSS blocks."""

    def __init__(self, channels: int, states: int, depth: int, *, first: bool) -> None:
        super().__init__()
        self.expand = nn.Identity() if first else PatchExpand(channels)
        self.blocks = nn.Sequential(*(VSSBlock(channels, states) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        """Map of the level below (or of this one, at the deepest) to this level's map."""
        out: Tensor = self.blocks(self.expand(x))
        return out


class Tail(nn.Module):
    """Tokens to pixels: a linear expansion, overlap-add of 4x4 patches at stride 3, 1x1 conv.

    All three are linear, so they run as the one transposed convolution they amount to; that
    also avoids ONNX Col2Im, which TensorRT lacks.
    """

    def __init__(self, channels: int, *, unused_norm: bool) -> None:
        super().__init__()
        self.expand = nn.Linear(channels, _TAIL_CHANNELS * _PATCH**2, bias=False)
        self.conv = nn.Conv2d(_TAIL_CHANNELS, 1, kernel_size=1)
        nn.init.trunc_normal_(self.expand.weight, std=0.02)
        if unused_norm:
            self.unused_norm = nn.LayerNorm(_TAIL_CHANNELS).requires_grad_(requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, h, w, C) to (N, 1, 3h+1, 3w+1)."""
        patches = self.expand.weight.unflatten(0, (_TAIL_CHANNELS, _PATCH, _PATCH))
        kernel = torch.einsum("c,cijm->mij", self.conv.weight.flatten(), patches)
        return functional.conv_transpose2d(
            x.permute(0, 3, 1, 2), kernel[:, None], self.conv.bias, stride=_STRIDE
        )


class S4Fusion(nn.Module):
    """Fuse an infrared and a visible image into one luminance image, or tell how to blend them."""

    def __init__(self, config: S4FusionConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or S4FusionConfig()
        levels = len(config.depths)
        widths = [config.channels << level for level in range(levels)]

        def encoder() -> Iterable[EncoderLevel]:
            encoder_levels = nn.ModuleList(
                EncoderLevel(width, config.states, depth, last=level == levels - 1)
                for level, (width, depth) in enumerate(zip(widths, config.depths, strict=True))
            )
            return cast("Iterable[EncoderLevel]", encoder_levels)

        self.embed_infrared = PatchEmbed(config.channels)
        self.embed_visible = PatchEmbed(config.channels)
        self.encoder_infrared = encoder()
        self.encoder_visible = encoder()
        # Named by level: level 0 is fused by the skip sum alone.
        self.fusion = nn.ModuleDict(
            {
                str(level): FusionLayer(widths[level], config.fusion_states, config.fusion_blocks)
                for level in range(0 if config.unused_published_layers else 1, levels)
            }
        )
        if config.unused_published_layers:
            self.fusion["0"].requires_grad_(requires_grad=False)  # no gradient ever reaches it
        self.decoder = nn.ModuleList(
            DecoderLevel(width, config.states, depth, first=index == 0)
            for index, (width, depth) in enumerate(
                zip(reversed(widths), reversed(config.depths), strict=True)
            )
        )
        self.tail = Tail(config.channels, unused_norm=config.unused_published_layers)

    def no_weight_decay(self) -> set[str]:
        """Names of what no optimiser should let decay: the scans' dynamics and skips."""
        return {
            name
            for name, _ in self.named_parameters()
            if name.rpartition(".")[2] in {"log_a", "skip"}
        }

    def forward(self, infrared: Tensor, visible: Tensor) -> Tensor:
        """Fuse registered pairs; `LumaFusion` makes a picture of either kind of output.

        Args:
            infrared: (N, 1, H, W) in [0, 1].
            visible: luma of the visible image, (N, 1, H, W) in [0, 1].

        Returns:
            (N, 1, H, W): fused luminance, slightly outside [0, 1] at times as it is linear; of
            a network whose configuration says ``blend``, log-odds of infrared.

        Raises:
            ValueError: if the images are not one-channel or differ in shape.
        """
        if infrared.shape != visible.shape or infrared.dim() != 4 or infrared.shape[1] != 1:
            raise ValueError(
                "S4Fusion takes infrared and visible of one shape (N, 1, H, W), got "
                f"{tuple(infrared.shape)} and {tuple(visible.shape)}"
            )
        height, width = infrared.shape[-2:]
        levels = len(self.config.depths)
        (top, bottom), (left, right) = padding(height, levels), padding(width, levels)
        border = (left, right, top, bottom)
        out = self._fuse(functional.pad(infrared, border), functional.pad(visible, border))
        return out[..., top : top + height, left : left + width]

    def _fuse(self, infrared: Tensor, visible: Tensor) -> Tensor:
        x, y = self.embed_infrared(infrared), self.embed_visible(visible)
        skips = []
        pairs = zip(self.encoder_infrared, self.encoder_visible, strict=True)
        for level, (level_ir, level_vi) in enumerate(pairs):
            # Fusion takes what enters a level, before its blocks.
            skips.append(self.fusion[str(level)](x, y) if level else None)
            for blocks in zip(level_ir.blocks, level_vi.blocks, strict=True):
                x, y = run_together(blocks, (x, y))
            x, y = level_ir.merge(x), level_vi.merge(y)
        fused = x + y
        for decode, skip in zip(self.decoder, [None, *reversed(skips[1:])], strict=True):
            fused = decode(fused if skip is None else fused + skip)
        out: Tensor = self.tail(fused)
        return out


def padding(side: int, levels: int = 3) -> tuple[int, int]:
    """Zeros before and after an image side so that patches and halvings come out even.

    Patches of 4 at stride 3 cover a side exactly if ``side - 4`` is a multiple of 3, and the
    ``(side - 1) / 3`` tokens must halve ``levels - 1`` times: 12 m + 1 pixels for three levels.

    Args:
        side: pixels, at least 1.
        levels: resolution levels of the network.

    Returns:
        (before, after); their sum is the smallest possible, ``before`` the smaller half.
    """
    unit = _STRIDE << (levels - 1)
    missing = (1 - side) % unit if side > 1 else unit
    return missing // 2, missing - missing // 2
