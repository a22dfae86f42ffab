"""Pooling of box regions from a feature pyramid, with shapes that no box can change.

Every box is pooled on all levels; masks keep the level it belongs to. RoIAlign with half-pixel
alignment (He et al., ICCV 2017; "aligned" in Detectron2): 7x7 bins of 2x2 samples.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import roi_align  # type: ignore[import-untyped]

from mmfusion.efficientmfd.backbone import STRIDES, Pyramid

BINS = 7
POSITIONS = BINS * BINS
_SAMPLES = 2  # per bin and axis
# Box areas from which on the next coarser level serves: 112, 224, 448 pixels squared. In units of
# 64 pixels, exact in any precision: square pixels exceed what float16 holds.
_UNIT = 64
_AREA_LIMITS = (3.0625, 12.25, 49.0)

RegionPool = Callable[[Pyramid, Tensor], Tensor]
"""Pyramid and boxes (N, P, 4), corners in pixels, to features (N, P, 49, C), row by row."""


def level_masks(boxes: Tensor) -> list[Tensor]:
    """For each pyramid level, whether boxes (..., 4) belong to it: bool (...), finest first."""
    sides = (boxes[..., 2:] - boxes[..., :2]) / _UNIT
    area = sides[..., 0] * sides[..., 1]
    above_2, above_3, above_4 = (area >= limit for limit in _AREA_LIMITS)
    return [~above_2, above_2 & ~above_3, above_3 & ~above_4, above_4]


def pool_by_roi_align(pyramid: Pyramid, boxes: Tensor) -> Tensor:
    """The RoIAlign operator on each level; ONNX RoiAlign when exported. See `RegionPool`."""
    images, proposals = boxes.shape[:2]
    rows = torch.arange(images, dtype=boxes.dtype, device=boxes.device)
    rows = rows[:, None, None].expand(images, proposals, 1)
    regions = torch.cat((rows, boxes), dim=-1).flatten(0, 1)

    def pool(level: Tensor, stride: int) -> Tensor:
        pooled: Tensor = roi_align(
            level, regions, BINS, 1 / stride, sampling_ratio=_SAMPLES, aligned=True
        )
        return pooled.view(images, proposals, -1, POSITIONS).transpose(2, 3)

    return _on_own_level(pool, pyramid, boxes)


def pool_by_grid_sample(pyramid: Pyramid, boxes: Tensor) -> Tensor:
    """The same from bilinear grid sampling, for runtimes without RoIAlign. See `RegionPool`."""

    def pool(level: Tensor, stride: int) -> Tensor:
        return _grid_sample(level, boxes / stride)

    return _on_own_level(pool, pyramid, boxes)


def _on_own_level(pool: Callable[[Tensor, int], Tensor], pyramid: Pyramid, boxes: Tensor) -> Tensor:
    pooled = [
        pool(level, stride) * mask[..., None, None].to(level.dtype)
        for level, stride, mask in zip(pyramid, STRIDES, level_masks(boxes), strict=True)
    ]
    p2, p3, p4, p5 = pooled
    return p2 + p3 + p4 + p5


def _grid_sample(level: Tensor, boxes: Tensor) -> Tensor:
    """RoIAlign of boxes (N, P, 4) in pixels of the level: (N, P, 49, C)."""
    proposals = boxes.shape[1]
    height, width = level.shape[-2:]
    x, x_inside = _sample_positions(boxes[..., 0], boxes[..., 2], width)
    y, y_inside = _sample_positions(boxes[..., 1], boxes[..., 3], height)
    side = BINS * _SAMPLES
    grid = torch.stack(
        (
            x[:, :, None, :].expand(-1, -1, side, -1),
            y[:, :, :, None].expand(-1, -1, -1, side),
        ),
        dim=-1,
    )
    samples = functional.grid_sample(
        level, grid.flatten(1, 2), mode="bilinear", padding_mode="border", align_corners=True
    )
    inside = (y_inside[:, :, :, None] & x_inside[:, :, None, :]).to(level.dtype)
    samples = samples * inside.flatten(1, 2)[:, None]  # (N, C, P * 14, 14)
    pooled = functional.avg_pool2d(samples, _SAMPLES)  # (N, C, P * 7, 7)
    return pooled.reshape(*pooled.shape[:2], proposals, POSITIONS).permute(0, 2, 3, 1)


def _sample_positions(low: Tensor, high: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Where an axis is sampled, in [-1, 1] of the grid, (N, P, 14); and which samples count."""
    side = BINS * _SAMPLES
    fractions = (torch.arange(side, dtype=low.dtype, device=low.device) + 0.5) / side
    position = low[..., None] + (high - low)[..., None] * fractions - 0.5
    inside = (position >= -1) & (position <= length)
    return position * (2 / max(length - 1, 1)) - 1, inside
