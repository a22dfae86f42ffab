"""The published systems as they were published: the baselines of `model_cost.py`.

Same weights and results as ours (checked there), without what makes ours cheaper: work that
never reaches an output is done, sums are not folded, maps are materialised at image size.
"""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmfusion.efficientmfd.fusion_tree import RegionBranches
from mmfusion.efficientmfd.network import EfficientMFD
from mmfusion.haf.fusion_block import FusionBlock
from mmfusion.haf.neck import TwinConv2d
from mmfusion.haf.network import HAF
from mmfusion.layers.selective_scan import selective_scan_reference
from mmfusion.s4fusion.network import S4Fusion
from mmfusion.train.level_pool import pool_on_own_level


class PublishedS4Fusion(nn.Module):
    """Each scan step by step, and the fusion of level 0 that nothing reads."""

    def __init__(self, network: S4Fusion) -> None:
        super().__init__()
        self.network = network

    def forward(self, infrared: Tensor, visible: Tensor) -> Tensor:
        """See `S4Fusion.forward`."""
        with patch("mmfusion.s4fusion.blocks.selective_scan", selective_scan_reference):
            network = self.network
            side = [infrared.shape[-2] - 1, infrared.shape[-1] - 1]
            if not any(extent % 12 for extent in side):  # else the result alone is compared
                network.fusion["0"](
                    network.embed_infrared(infrared), network.embed_visible(visible)
                )
            fused: Tensor = network(infrared, visible)
            return fused


class PublishedHAF(nn.Module):
    """Whole backbones, two correlations, unused projections, four outputs."""

    def __init__(self, network: HAF) -> None:
        super().__init__()
        self.network = network
        name = network.config.backbone
        whole: Any = (timm.create_model(name, pretrained=False, num_classes=0) for _ in range(2))
        tails = [(body.layers[-1].blocks, body.norm) for body in whole]
        self.last_stages = nn.ModuleList(blocks for blocks, _ in tails)
        self.last_norms = nn.ModuleList(norm for _, norm in tails)
        # Values, values and query of the other stream: rows of the projections that nobody reads.
        self.unread = nn.ModuleList(
            nn.Conv2d(width, 3 * width, 1, bias=False) for width in network.config.widths
        )

    def forward(self, rgb: Tensor, depth: Tensor) -> tuple[Tensor, ...]:
        """See `HAF.forward`."""
        network = self.network
        levels = []
        streams = (network.rgb_backbone, network.depth_backbone)
        images = (rgb, depth.expand(-1, 3, -1, -1))
        for stream, image, blocks, norm in zip(
            streams, images, self.last_stages, self.last_norms, strict=True
        ):
            maps = stream(image)
            norm(blocks(maps[-1].permute(0, 2, 3, 1)))
            with patch.object(TwinConv2d, "forward", _twin_unfolded):
                levels.append(network.neck(maps))
        fused = []
        for block, unread, auxiliary, primary in zip(
            network.fusion, self.unread, *levels, strict=True
        ):
            unread(auxiliary)
            fused.append(_two_correlations(block, auxiliary, primary))
        logits: tuple[Tensor, ...] = network.heads(network.decoder(tuple(fused)))
        return logits


def _twin_unfolded(self: TwinConv2d, coarsest: Tensor) -> Tensor:
    return functional.conv2d(torch.cat((coarsest, coarsest), 1), self.weight, padding=1)


def _two_correlations(block: FusionBlock, auxiliary: Tensor, primary: Tensor) -> Tensor:
    query = block.query(auxiliary)
    main = block.correlation(query, block.primary_key(primary))
    aside = block.correlation(query, block.auxiliary_key(auxiliary))
    moved = block._move(  # noqa: SLF001
        query, main - block.repulsion * aside
    )
    both = (auxiliary + block.auxiliary_share * moved, primary + block.primary_share * moved)
    fused: Tensor = block.project(torch.cat(both, dim=1))
    return fused


class PublishedEfficientMFD(nn.Module):
    """One backbone pass per modality, regions merged at image size, boxes sorted by level."""

    def __init__(self, network: EfficientMFD) -> None:
        super().__init__()
        self.network = network

    def forward(self, visible: Tensor, infrared: Tensor) -> tuple[Tensor, Tensor]:
        """Fusion weights and boxes of all stages, see `MFDOutput`."""
        network = self.network
        images = (visible, infrared.expand(-1, 3, -1, -1))
        pyramids = [network.features((image - network.mean) / network.std) for image in images]
        p2, p3, p4, p5 = (a + b for a, b in zip(*pyramids, strict=True))
        pyramid = (p2, p3, p4, p5)
        with patch.object(RegionBranches, "forward", _regions_at_image_size):
            weights, _ = network.fuse(visible, infrared, pyramid)
        noise = network.default_noise(1, 1)[0]
        with patch.object(network.head, "forward", self._head(network)):
            _, boxes = network.detect(pyramid, noise, (visible.shape[-2], visible.shape[-1]))
        return weights, boxes

    @staticmethod
    def _head(network: EfficientMFD) -> Any:
        run = network.head.forward

        def forward(pyramid: Any, boxes: Tensor, modulations: Tensor) -> tuple[Tensor, Tensor]:
            return run(pyramid, boxes, modulations, pool_on_own_level)

        return forward


def _regions_at_image_size(self: RegionBranches, levels: Any, size: tuple[int, int]) -> Tensor:
    large = []
    for masks, level in zip(self.masks, levels, strict=True):
        by_region = torch.cat([mask * level for mask in masks(level).split(1, dim=1)], dim=1)
        large.append(
            functional.interpolate(by_region, size=size, mode="bilinear", align_corners=True)
        )
    merged: Tensor = self.merge(large[0] + large[1] + large[2]).relu()
    return merged
