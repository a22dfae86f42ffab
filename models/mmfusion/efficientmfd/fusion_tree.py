"""The fusion network of EfficientMFD: a tree of pixel and object region features.

The article calls it ORPPT, its pixel branch PFMM and its region branches RFRM. Where article
and published weights disagree, this follows the weights. arXiv:2403.09323.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

REGIONS = 2
REGION_LEVELS = 3  # the pyramid's fourth level is of no use to fusion
_DILATIONS = (1, 2)
_SQUEEZE = 32  # hidden units that weigh the views of a region
_IMAGE_CHANNELS = 4  # infrared, red, green, blue


class PixelBlock(nn.Module):
    """Three 3x3 convolutions in a row, then two side by side: C channels to 2 x ``channels``."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in (inputs, channels, channels):
            layers += [nn.Conv2d(width, channels, 3, padding=1), nn.ReLU()]
        self.trunk = nn.Sequential(*layers)
        self.left = nn.Conv2d(channels, channels, 3, padding=1)
        self.right = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, 2 * channels, H, W)."""
        x = self.trunk(x)
        return torch.cat((self.left(x), self.right(x)), dim=1).relu()


class RegionMasks(nn.Module):
    """Two soft object masks from one pyramid level, by a small selective-kernel unit.

    The views (dilations) of a map are weighed by a softmax over the regions, not over the views
    as a textbook unit would: the published weights were trained so.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.views = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, REGIONS, 3, padding=dilation, dilation=dilation, bias=False),
                nn.BatchNorm2d(REGIONS),
                nn.ReLU(),
            )
            for dilation in _DILATIONS
        )
        self.weigh = nn.Sequential(
            nn.Linear(REGIONS, _SQUEEZE),
            nn.ReLU(),
            nn.Linear(_SQUEEZE, REGIONS * len(_DILATIONS)),
        )

    def forward(self, level: Tensor) -> Tensor:
        """Masks (N, 2, a, b), at least 0 and not bounded above, of a level (N, C, a, b)."""
        views = torch.stack([view(level) for view in self.views], dim=2)  # N, region, view, a, b
        scores = self.weigh(views.sum(dim=2).mean(dim=(2, 3)))
        weights = scores.unflatten(1, (REGIONS, len(_DILATIONS))).softmax(dim=1)
        masks: Tensor = (weights[..., None, None] * views).sum(dim=2)
        return masks


class RegionBranches(nn.Module):
    """Masked pyramid levels, merged to one map at image size.

    Published is: mask each level once per region, concatenate the regions, upsample, add the
    levels, 1x1 convolution. All of it is linear in the level, so the convolution goes first and
    masks and upsampling follow: the same map, without 2 x C channels at image size.
    """

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.masks = nn.ModuleList(RegionMasks(channels) for _ in range(REGION_LEVELS))
        self.merge = nn.Conv2d(REGIONS * channels, outputs, 1)

    def forward(self, levels: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """(N, outputs, H, W) from the finest pyramid levels; ``size`` is (H, W)."""
        outputs = self.merge.out_channels
        weight = self.merge.weight.unflatten(1, (REGIONS, -1)).transpose(0, 1).flatten(0, 1)
        merged: list[Tensor] = []
        for masks, level in zip(self.masks, levels, strict=True):
            by_region = functional.conv2d(level, weight).unflatten(1, (REGIONS, outputs))
            small = (masks(level)[:, :, None] * by_region).sum(dim=1)
            merged.append(
                functional.interpolate(small, size=size, mode="bilinear", align_corners=True)
            )
        bias = self.merge.bias
        assert bias is not None  # noqa: S101 -- built with one
        return (sum(merged[1:], merged[0]) + bias[:, None, None]).relu()


def _unit(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
    )


class FusionTree(nn.Module):
    """Weights of infrared and visible luminance from images and their feature pyramid."""

    def __init__(self, channels: int, pixel_channels: int) -> None:
        """Build with fresh weights.

        Args:
            channels: width of the pyramid.
            pixel_channels: width of the first pixel block.
        """
        super().__init__()
        base = pixel_channels
        wide = 4 * base
        self.pixel = nn.Sequential(
            PixelBlock(_IMAGE_CHANNELS, base), PixelBlock(2 * base, 2 * base)
        )
        self.regions = RegionBranches(channels, wide)
        self.pixel_unit = _unit(wide)
        self.gate_unit = _unit(wide)
        for conv in self.modules():
            if isinstance(conv, nn.Conv2d):  # the layers below keep PyTorch's default
                nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise((wide, 2 * base, 2 * base, 2 * base, base)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
        self.reconstruct = nn.Sequential(*layers, nn.Conv2d(base, 2, 1), nn.Sigmoid())

    def forward(self, images: Tensor, pyramid: Sequence[Tensor]) -> Tensor:
        """Fusion weights.

        Args:
            images: infrared, red, green, blue in [0, 1], (N, 4, H, W).
            pyramid: levels of strides 4, 8, 16 (and more, unused), (N, C, a, b) each.

        Returns:
            (N, 2, H, W) in (0, 1): weight of infrared, weight of visible. They do not sum to 1.
        """
        height, width = images.shape[-2:]
        regions = self.regions(pyramid[:REGION_LEVELS], (height, width))
        gate = functional.hardsigmoid(self.gate_unit(regions))
        pixels = self.pixel_unit(self.pixel(images))
        weights: Tensor = self.reconstruct(pixels * gate + pixels)
        return weights
