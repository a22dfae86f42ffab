"""The detection head: stages that refine boxes, conditioned on diffusion time.

Chen et al., "DiffusionDet: Diffusion Model for Object Detection", ICCV 2023; its stages are
those of Sparse R-CNN (Sun et al., CVPR 2021) with time modulation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmfusion.efficientmfd.backbone import Pyramid
from mmfusion.efficientmfd.config import EfficientMFDConfig
from mmfusion.efficientmfd.roi_align import POSITIONS, RegionPool, pool_by_roi_align

_MAX_PERIOD = 10000
_TIME_EXPANSION = 4
_DYNAMIC_LAYERS = 2
_DELTA_WEIGHTS = (2.0, 2.0, 1.0, 1.0)
_MAX_SIZE_DELTA = math.log(100000 / 16)
_PRIOR = 0.01  # class probability of a fresh head


class TimeEmbedding(nn.Module):
    """Sines of diffusion time, through two layers: (N,) to (N, 4 x channels)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.waves = channels // 2
        wide = _TIME_EXPANSION * channels
        self.mlp = nn.Sequential(nn.Linear(channels, wide), nn.GELU(), nn.Linear(wide, wide))

    def forward(self, time: Tensor) -> Tensor:
        """Embed times (N,), 0..999."""
        index = torch.arange(self.waves, dtype=torch.float32, device=time.device)
        frequencies = torch.exp(index * -(math.log(_MAX_PERIOD) / (self.waves - 1)))
        angles = time.float()[:, None] * frequencies
        waves = torch.cat((angles.sin(), angles.cos()), dim=-1)
        embedded: Tensor = self.mlp(waves.to(next(self.mlp.parameters()).dtype))
        return embedded


class SelfAttention(nn.Module):
    """Attention among proposals, without positions: (N, P, C) to the same shape."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj = nn.Linear(channels, 3 * channels)
        self.out_proj = nn.Linear(channels, channels)

    def forward(self, proposals: Tensor) -> Tensor:
        """Attend."""
        packed = self.in_proj(proposals).unflatten(-1, (3, self.heads, -1))
        query, key, value = packed.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out


class DynamicInteraction(nn.Module):
    """Two layers over a proposal's region whose weights come from the proposal itself."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.channels, self.inner = channels, inner
        self.dynamic = nn.Linear(channels, _DYNAMIC_LAYERS * channels * inner)
        self.norm1 = nn.LayerNorm(inner)
        self.norm2 = nn.LayerNorm(channels)
        self.out = nn.Linear(channels * POSITIONS, channels)
        self.norm3 = nn.LayerNorm(channels)

    def forward(self, proposals: Tensor, regions: Tensor) -> Tensor:
        """(N, P, C) and (N, P, 49, C) to (N, P, C)."""
        first, second = self.dynamic(proposals).chunk(_DYNAMIC_LAYERS, dim=-1)
        x = regions @ first.unflatten(-1, (self.channels, self.inner))
        x = self.norm1(x).relu()
        x = x @ second.unflatten(-1, (self.inner, self.channels))
        x = self.norm2(x).relu()
        out: Tensor = self.norm3(self.out(x.flatten(2))).relu()
        return out


def _tower(channels: int, depth: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(channels, channels, bias=False), nn.LayerNorm(channels), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(channels, outputs))


class Stage(nn.Module):
    """One refinement of the proposals."""

    def __init__(self, config: EfficientMFDConfig) -> None:
        super().__init__()
        width = config.channels
        self.attention = SelfAttention(width, config.heads)
        self.norm1 = nn.LayerNorm(width)
        self.interaction = DynamicInteraction(width, config.dynamic_channels)
        self.norm2 = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, config.feed_forward),
            nn.ReLU(),
            nn.Linear(config.feed_forward, width),
        )
        self.norm3 = nn.LayerNorm(width)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(_TIME_EXPANSION * width, 2 * width))
        self.classify = _tower(width, config.class_layers, len(config.classes))
        self.regress = _tower(width, config.box_layers, 4)

    def forward(
        self, regions: Tensor, boxes: Tensor, proposals: Tensor | None, modulation: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Refine.

        Args:
            regions: features pooled in the boxes, (N, P, 49, C).
            boxes: corners in pixels, (N, P, 4).
            proposals: features from the stage before, (N, P, C); None in the first.
            modulation: scale less 1, and shift, (N or 1, 2 C).

        Returns:
            Logits (N, P, classes), refined boxes (N, P, 4), proposal features (N, P, C).
        """
        if proposals is None:
            proposals = regions.mean(dim=2)
        proposals = self.norm1(proposals + self.attention(proposals))
        proposals = self.norm2(proposals + self.interaction(proposals, regions))
        proposals = self.norm3(proposals + self.feed_forward(proposals))
        scale, shift = modulation[:, None].chunk(2, dim=-1)
        conditioned = proposals * (scale + 1) + shift
        refined = apply_deltas(self.regress(conditioned), boxes)
        return self.classify(conditioned), refined, proposals


def apply_deltas(deltas: Tensor, boxes: Tensor) -> Tensor:
    """Shift and scale boxes (..., 4) by (dx, dy, dw, dh), relative to their sizes."""
    sides = boxes[..., 2:] - boxes[..., :2]
    centres = boxes[..., :2] + sides / 2
    weights = torch.tensor(_DELTA_WEIGHTS, dtype=deltas.dtype, device=deltas.device)
    scaled = deltas / weights
    centres = centres + scaled[..., :2] * sides
    half = sides * scaled[..., 2:].clamp(max=_MAX_SIZE_DELTA).exp() / 2
    return torch.cat((centres - half, centres + half), dim=-1)


class DiffusionHead(nn.Module):
    """All stages and the time embedding that they share."""

    def __init__(self, config: EfficientMFDConfig) -> None:
        super().__init__()
        self.time = TimeEmbedding(config.channels)
        stages = nn.ModuleList(Stage(config) for _ in range(config.stages))
        self.stages = cast("Iterable[Stage]", stages)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as published: Xavier, and classes that are rare at first."""
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        for stage in self.stages:
            _, bias = stage.classify[-1].parameters()
            nn.init.constant_(bias, -math.log((1 - _PRIOR) / _PRIOR))

    def modulations(self, time: Tensor) -> Tensor:
        """What times (N,) mean to each stage, (stages, N, 2 C): constants if the times are."""
        embedded = self.time(time)
        return torch.stack([stage.modulation(embedded) for stage in self.stages])

    def forward(
        self,
        pyramid: Pyramid,
        boxes: Tensor,
        modulations: Tensor,
        pool: RegionPool = pool_by_roi_align,
    ) -> tuple[Tensor, Tensor]:
        """Refine boxes by all stages; no gradient passes from one stage's boxes to the next.

        Args:
            pyramid: of the merged modalities, batch N.
            boxes: corners in pixels, (N, P, 4).
            modulations: (stages, N or 1, 2 C), see `modulations`.
            pool: how regions are pooled.

        Returns:
            Logits (stages, N, P, classes) and boxes (stages, N, P, 4).
        """
        proposals: Tensor | None = None
        all_logits, all_boxes = [], []
        for stage, modulation in zip(self.stages, modulations, strict=True):
            boxes = boxes.detach()
            logits, boxes, proposals = stage(pool(pyramid, boxes), boxes, proposals, modulation)
            all_logits.append(logits)
            all_boxes.append(boxes)
        return torch.stack(all_logits), torch.stack(all_boxes)
