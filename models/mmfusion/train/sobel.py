"""How strongly pictures and maps change from pixel to pixel."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def sobel_magnitude(images: Tensor) -> Tensor:
    """Sum of the absolute responses of both 3x3 Sobel kernels, each channel by itself.

    Beyond the border is zero, so the border of a bright picture counts as an edge.

    Args:
        images: (N, C, H, W).

    Returns:
        Same shape.
    """
    images = functional.pad(images, (1, 1, 1, 1))
    rows = images[..., :-2, :] + 2 * images[..., 1:-1, :] + images[..., 2:, :]
    columns = images[..., :-2] + 2 * images[..., 1:-1] + images[..., 2:]
    across = rows[..., 2:] - rows[..., :-2]
    down = columns[..., 2:, :] - columns[..., :-2, :]
    return across.abs() + down.abs()
