"""Resizing with antialiasing, as two matrix products.

Training data are resized the way Pillow does it; engines know no such operator, but products with
constant matrices are the same thing.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class Resize(nn.Module):
    """Bilinear with antialiasing, from one fixed size to another."""

    def __init__(self, source: tuple[int, int], target: tuple[int, int]) -> None:
        """Prepare the weights.

        Args:
            source: (height, width) in pixels.
            target: (height, width) in pixels.
        """
        super().__init__()
        self.identity = source == target
        rows = resize_weights(source[0], target[0])
        columns = resize_weights(source[1], target[1]).T
        self.register_buffer("rows", torch.from_numpy(rows), persistent=False)
        self.register_buffer("columns", torch.from_numpy(columns.copy()), persistent=False)
        self.rows: Tensor
        self.columns: Tensor

    def forward(self, image: Tensor) -> Tensor:
        """(N, C, h, w) of the source size to (N, C, H, W) of the target size."""
        if self.identity:
            return image
        return self.rows @ image @ self.columns


def resize_weights(source: int, target: int) -> NDArray[np.float32]:
    """Share of each source pixel in each target pixel: (target, source), rows sum to 1.

    A triangle as wide as two target pixels (two source pixels when enlarging), centred where
    the target pixel's centre lies (half-pixel rule): Pillow's and torchvision's ``BILINEAR``.
    """
    scale = source / target
    support = max(scale, 1.0)
    centres = (np.arange(target) + 0.5) * scale
    distance = np.abs(np.arange(source)[None] + 0.5 - centres[:, None]) / support
    weights = np.clip(1.0 - distance, 0.0, None)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)
