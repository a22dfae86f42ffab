"""The neck: one set of weights that readies the maps of either stream for fusion."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class TwinConv2d(nn.Conv2d):
    """3x3 convolution of a map concatenated with itself.

    Both halves of the kernel see the same map, so they are added first: half the work, the same
    result, and the same gradient in each half.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(2 * inputs, outputs, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, h, w) to (N, outputs, h, w)."""
        return functional.conv2d(x, self._sum(), padding=1)

    def folded(self) -> nn.Conv2d:
        """The plain convolution it amounts to."""
        weight = self._sum().detach()
        conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1, bias=False)
        conv.weight = nn.Parameter(weight, requires_grad=False)
        return conv

    def _sum(self) -> Tensor:
        first, second = self.weight.chunk(2, dim=1)
        return first + second


def normalised(conv: nn.Conv2d) -> nn.Sequential:
    """A convolution followed by batch norm and GELU."""
    return nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels), nn.GELU())


def conv_norm_act(inputs: int, outputs: int) -> nn.Sequential:
    """3x3 convolution, batch norm, GELU."""
    return normalised(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False))


class Neck(nn.Module):
    """Join each backbone map with the next coarser one.

    Training runs it on one stream after the other: each is then normalised by its own batch,
    while the running statistics become a mixture of both, as published.
    """

    def __init__(self, channels: Sequence[int], widths: Sequence[int]) -> None:
        """Build it.

        Args:
            channels: of the backbone maps, finest first.
            widths: channels of the levels, coarsest first.
        """
        super().__init__()
        coarse_first = tuple(reversed(channels))
        self.reduce = nn.ModuleList(
            conv_norm_act(inputs, outputs)
            for inputs, outputs in zip(coarse_first[:-1], widths[1:], strict=True)
        )
        self.merge = nn.ModuleList([normalised(TwinConv2d(coarse_first[0], widths[0]))])
        self.merge.extend(
            conv_norm_act(inputs + width, width)
            for inputs, width in zip(coarse_first[1:], widths[1:], strict=True)
        )

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Backbone maps (N, C, h, w), finest first, to the four levels, coarsest first."""
        coarse_first = tuple(reversed(maps))
        levels = [self.merge[0](coarse_first[0])]
        for coarser, own, reduce, merge in zip(
            coarse_first[:-1], coarse_first[1:], self.reduce, self.merge[1:], strict=True
        ):
            context = functional.interpolate(
                reduce(coarser), size=own.shape[-2:], mode="bilinear", align_corners=False
            )
            levels.append(merge(torch.cat((own, context), dim=1)))
        return tuple(levels)
