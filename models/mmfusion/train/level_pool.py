"""Pooling of box regions where shapes may depend on the boxes."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import roi_align  # type: ignore[import-untyped]

from mmfusion.efficientmfd.backbone import STRIDES, Pyramid
from mmfusion.efficientmfd.roi_align import BINS, POSITIONS, level_masks

_SAMPLES = 2  # per bin and axis


def pool_on_own_level(pyramid: Pyramid, boxes: Tensor) -> Tensor:
    """The same as `pool_by_roi_align`, but each box is pooled on the level it belongs to alone.

    A quarter of the work, backwards too. See `RegionPool`.
    """
    images, proposals = boxes.shape[:2]
    channels = pyramid[0].shape[1]
    pooled = pyramid[0].new_zeros(images, proposals, POSITIONS, channels)
    for level, stride, mask in zip(pyramid, STRIDES, level_masks(boxes), strict=True):
        image, _ = own = mask.nonzero(as_tuple=True)
        regions = torch.cat((image[:, None].to(boxes), boxes[own]), dim=1)
        values = roi_align(level, regions, BINS, 1 / stride, sampling_ratio=_SAMPLES, aligned=True)
        pooled = pooled.index_put(own, values.flatten(2).transpose(1, 2))
    return pooled
