"""Depth: bytes to metres, and metres to what a network sees.

The mapping is one function for training and inference, so that a network meets on the robot what
it was trained on.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmfusion.graph.depth_range import DepthRange
from mmfusion.graph.photometry import unpack_counts
from mmfusion.graph.resize import Resize

# What a network sees where nothing is known of depth, and everywhere when there is no depth.
NEUTRAL_DEPTH = 0.5
_MILLIMETRE = 1e-3


def unpack_depth(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Depth of a picture in metres, and where it is known.

    Args:
        raw: uint8 (H, W, 2), little-endian 16UC1 millimetres with 0 for unknown; or float32
            (H, W) 32FC1 metres, where NaN, infinities and what is not positive are unknown
            (REP 118).

    Returns:
        Metres and validity (0 or 1), each (1, 1, H, W); metres are 0 where unknown.
    """
    if raw.dtype == torch.uint8:
        metres = _MILLIMETRE * unpack_counts(raw)
        return metres, (metres > 0).to(metres.dtype)
    metres = raw[None, None]
    known = (metres > 0) & (metres < float("inf"))  # false for NaN
    return torch.where(known, metres, 0.0), known.to(metres.dtype)


class DepthMapping(nn.Module):
    """Metric depth with holes to a map in [0, 1] without: near is bright.

    1 at the near end of the range, 0 at its far end, linear in inverse depth between: as stereo
    disparity, which the depth maps of saliency data sets are. Holes are averaged over when the
    size changes; what is still unknown takes the mean of the smallest block around it
    in which something is known (blocks of 2, 4, 8, ... pixels); with nothing known anywhere the
    map is `NEUTRAL_DEPTH` throughout.
    """

    def __init__(
        self, source: tuple[int, int], target: tuple[int, int], depth_range: DepthRange
    ) -> None:
        """Prepare for fixed sizes.

        Args:
            source: (height, width) of the depth picture.
            target: (height, width) that the network takes.
            depth_range: what the network tells apart.
        """
        super().__init__()
        self.depth_range = depth_range
        self.resize = Resize(source, target)

    def forward(self, metres: Tensor, valid: Tensor) -> Tensor:
        """Map depth.

        Args:
            metres: (N, 1, h, w).
            valid: (N, 1, h, w), 1 where it is known, else 0.

        Returns:
            (N, 1, H, W) in [0, 1].
        """
        near, far = self.depth_range.near_m, self.depth_range.far_m
        closeness = (1 / metres.clamp(near, far) - 1 / far) / (1 / near - 1 / far)
        weight = self.resize(valid)
        known = weight > 1e-3
        mean = self.resize(valid * closeness) / torch.where(known, weight, 1.0)
        return fill_holes(mean, known.to(mean.dtype))


def fill_holes(picture: Tensor, known: Tensor) -> Tensor:
    """Give unknown pixels the mean of the smallest block around them with known ones.

    Args:
        picture: (N, 1, H, W).
        known: (N, 1, H, W), 0 or 1.

    Returns:
        (N, 1, H, W); `NEUTRAL_DEPTH` where the whole picture is unknown.
    """
    height, width = picture.shape[-2:]
    sums, counts = known * picture, known
    levels = []
    while max(height, width) > 1:
        levels.append((sums, counts, height, width))
        # Averages of both: the common factor, and the padding of uneven sides, cancel out.
        sums, counts = _halve(sums), _halve(counts)
        height, width = sums.shape[-2:]
    filled = torch.where(counts > 0, sums / torch.where(counts > 0, counts, 1.0), NEUTRAL_DEPTH)
    for sums, counts, height, width in reversed(levels):
        enlarged = functional.interpolate(filled, scale_factor=2.0, mode="nearest")
        mean = sums / torch.where(counts > 0, counts, 1.0)
        filled = torch.where(counts > 0, mean, enlarged[..., :height, :width])
    return filled


def _halve(image: Tensor) -> Tensor:
    height, width = image.shape[-2:]
    padded = functional.pad(image, (0, width % 2, 0, height % 2))
    return functional.avg_pool2d(padded, 2)
