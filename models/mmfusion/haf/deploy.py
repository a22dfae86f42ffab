"""A trained HAF network as an inference engine wants it: one size, one output, no FFT."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from mmfusion.errors import ModelError
from mmfusion.haf.fusion_block import FusionBlock
from mmfusion.haf.neck import TwinConv2d
from mmfusion.haf.network import HAF, fuse, level_size, pad_to_stride, padded_size
from mmfusion.layers.spectral import SpectralCorrelation


class HAFDeploy(nn.Module):
    """The first logit of a `HAF` network, for images of one size.

    Equal to the network up to rounding. The correlations are products with constant matrices,
    in float32 and with the learned responses inside; both streams pass the neck as one batch;
    the heads that only training needs are left out; kernels that see a map twice are folded.
    """

    def __init__(self, model: HAF, size: tuple[int, int]) -> None:
        """Copy the weights of a network.

        Args:
            model: trained; stays as it is.
            size: (height, width) of the images.

        Raises:
            ModelError: if a side is not positive.
        """
        super().__init__()
        if min(size) < 1:
            raise ModelError(f"HAFDeploy: size is {size}; give (height, width) in pixels")
        self.size = size
        self.config = model.config
        self.rgb_backbone = copy.deepcopy(model.rgb_backbone)
        self.depth_backbone = copy.deepcopy(model.depth_backbone)
        self.relief = copy.deepcopy(model.relief)
        self.neck = copy.deepcopy(model.neck)
        self.fusion = copy.deepcopy(model.fusion)
        self.decoder = copy.deepcopy(model.decoder)
        self.saliency = copy.deepcopy(model.heads.saliency)

        for stream in (self.rgb_backbone, self.depth_backbone):
            stream.prepare(padded_size(size))
        if not self.relief:
            _fold_repeated_channel(self.depth_backbone)
        coarsest = cast("nn.Sequential", self.neck.merge[0])
        coarsest[0] = cast("TwinConv2d", coarsest[0]).folded()
        for level, block in enumerate(cast("Iterable[FusionBlock]", self.fusion)):
            spectral = cast("SpectralCorrelation", block.correlation)
            block.correlation = spectral.as_matrices(level_size(size, level))
        self.requires_grad_(requires_grad=False).eval()

    def forward(self, rgb: Tensor, depth: Tensor) -> Tensor:
        """Logits of registered pairs.

        Args:
            rgb: (N, 3, H, W), normalised by the mean and deviation of ImageNet.
            depth: (N, 1, H, W) in [0, 1].

        Returns:
            (N, 1, H, W); a sigmoid makes them saliency.

        Raises:
            ModelError: if the images have other channels or another size.
        """
        height, width = self.size
        if rgb.shape[1:] != (3, height, width) or depth.shape[1:] != (1, height, width):
            raise ModelError(
                f"this HAF takes rgb (N, 3, {height}, {width}) and depth (N, 1, {height}, {width}),"
                f" got {tuple(rgb.shape)} and {tuple(depth.shape)}; resize, or build HAFDeploy for "
                "the size at hand"
            )
        rgb, depth = pad_to_stride(rgb), pad_to_stride(depth)
        if self.relief:
            depth = self.relief(depth)
        pairs = zip(self.rgb_backbone(rgb), self.depth_backbone(depth), strict=True)
        levels = self.neck([torch.cat(pair) for pair in pairs])
        halves = [level.chunk(2) for level in levels]
        fused = fuse(
            self.fusion, [rgb for rgb, _ in halves], [depth for _, depth in halves], self.config
        )
        logits: Tensor = self.saliency(self.decoder(fused)[-1])
        return logits[..., :height, :width]


def _fold_repeated_channel(stream: nn.Module) -> None:
    """Let a stream take depth as one channel: add up the kernels that all see it."""
    conv = next(module for module in stream.modules() if isinstance(module, nn.Conv2d))
    conv.weight = nn.Parameter(conv.weight.detach().sum(1, keepdim=True))
    conv.in_channels = 1
