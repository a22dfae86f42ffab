"""Bring a camera's picture onto the RGB picture.

Two ways so far: scaling alone, for cameras that share one view, and a homography, exact for a
plane or a far scene. Both return a validity mask, 0 where the camera does not see.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Scaling(nn.Module):
    """One view, perhaps another resolution."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(1, C, h, w) to the RGB size, and the validity mask (1, 1, H, W)."""
        valid = image.new_ones(1, 1, *self.size)
        if tuple(image.shape[-2:]) == self.size:
            return image, valid
        scaled = functional.interpolate(image, self.size, mode="bilinear", align_corners=False)
        return scaled, valid


class Homography(nn.Module):
    """Sample a picture where a homography says each RGB pixel lies in it."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        height, width = size
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        pixels = torch.stack((columns, rows, torch.ones_like(rows)), dim=-1).float()
        self.register_buffer("pixels", pixels, persistent=False)  # (H, W, 3): x, y, 1
        self.pixels: Tensor

    def forward(self, image: Tensor, homography: Tensor) -> tuple[Tensor, Tensor]:
        """Warp ``image`` (1, C, h, w).

        Args:
            image: the other camera's picture.
            homography: (9,) row-major, RGB pixel (x, y, 1) to pixel of ``image``.

        Returns:
            Warped picture (1, C, H, W) and validity mask (1, 1, H, W), 0 or 1.
        """
        height, width = image.shape[-2:]
        mapped = self.pixels @ homography.view(3, 3).T
        depth = mapped[..., 2:]
        position = mapped[..., :2] / torch.where(depth.abs() < 1e-9, 1e-9, depth)
        limits = position.new_tensor([width - 1, height - 1])
        inside = ((position >= 0) & (position <= limits)).all(dim=-1) & (depth[..., 0] > 0)
        grid = 2 * position / limits.clamp(min=1) - 1
        warped = functional.grid_sample(
            image, grid[None], mode="bilinear", padding_mode="border", align_corners=True
        )
        return warped, inside[None, None].to(image.dtype)
