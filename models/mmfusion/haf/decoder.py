"""From fused maps to saliency: a top-down decoder and its output heads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmfusion.haf.neck import conv_norm_act


class Doubling(nn.Module):
    """Twice the size, corners aligned with corners."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) to (N, C, 2h, 2w)."""
        return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


class Refinement(nn.Module):
    """ConvNeXt block: depth-wise 7x7 and a perceptron per token, added with a learned scale."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.spread = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.expand = nn.Linear(channels, 4 * channels)
        self.contract = nn.Linear(4 * channels, channels)
        self.scale = nn.Parameter(torch.full((channels,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) to the same shape."""
        tokens = self.norm(self.spread(x).permute(0, 2, 3, 1))
        tokens = self.scale * self.contract(functional.gelu(self.expand(tokens)))
        refined: Tensor = x + tokens.permute(0, 3, 1, 2)
        return refined


class Decoder(nn.Module):
    """Each stage doubles the previous one's map, joined with the fused map of its level."""

    def __init__(self, widths: Sequence[int], decoder_widths: Sequence[int]) -> None:
        """Build it.

        Args:
            widths: channels of the fused maps, coarsest first.
            decoder_widths: channels of the four results.
        """
        super().__init__()
        from_before = (0, *decoder_widths[:-1])
        self.upscale = nn.ModuleList(
            nn.Sequential(conv_norm_act(before + width, outputs), Doubling())
            for before, width, outputs in zip(from_before, widths, decoder_widths, strict=True)
        )
        # The coarsest result is not refined.
        self.refine = nn.ModuleList(Refinement(width) for width in decoder_widths[1:])

    def forward(self, fused: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Fused maps (N, C, h, w), coarsest first, to maps of twice their sizes."""
        results = [self.upscale[0](fused[0])]
        for own, upscale, refine in zip(fused[1:], self.upscale[1:], self.refine, strict=True):
            results.append(refine(upscale(torch.cat((results[-1], own), dim=1))))
        return tuple(results)


class Heads(nn.Module):
    """Saliency logits from the decoder's maps: one head that counts, three to train with."""

    def __init__(self, decoder_widths: Sequence[int], saliency_width: int) -> None:
        super().__init__()
        self.saliency = nn.Sequential(
            conv_norm_act(decoder_widths[-1], saliency_width),
            Doubling(),
            nn.Conv2d(saliency_width, 1, 3, padding=1),
        )
        self.side = nn.ModuleList(
            nn.Conv2d(width, 1, 3, padding=1) for width in reversed(decoder_widths[:-1])
        )

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Decoder maps, coarsest first, to four logits (N, 1, H, W), from fine to coarse."""
        saliency = self.saliency(maps[-1])
        size = saliency.shape[-2:]
        first, second, third = (
            functional.interpolate(head(x), size=size, mode="bilinear", align_corners=False)
            for head, x in zip(self.side, reversed(maps[:-1]), strict=True)
        )
        return saliency, first, second, third
