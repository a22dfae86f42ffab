"""Feature maps as four sequences and back, and two modalities as one sequence."""

from __future__ import annotations

import torch
from torch import Tensor

DIRECTIONS = 4


def to_sequences(maps: Tensor) -> Tensor:
    """Read a map in four directions.

    Args:
        maps: (N, h, w, C), the same channels for every direction, or (N, h, w, 4, C), each
            direction its own.

    Returns:
        (N, h*w, 4, C): row-major, column-major, and the reverse of both.
    """
    per_direction = [maps[..., k, :] if maps.dim() == 5 else maps for k in range(DIRECTIONS)]
    rows, columns = per_direction[0], per_direction[1].transpose(1, 2)
    rows_back, columns_back = per_direction[2], per_direction[3].transpose(1, 2)
    return torch.stack(
        (
            rows.flatten(1, 2),
            columns.flatten(1, 2),
            rows_back.flatten(1, 2).flip(1),
            columns_back.flatten(1, 2).flip(1),
        ),
        dim=2,
    )


def from_sequences(sequences: Tensor, height: int, width: int) -> Tensor:
    """Undo the ordering of each direction and add the four maps.

    Args:
        sequences: (N, height*width, 4, C).
        height: of the map.
        width: of the map.

    Returns:
        (N, height, width, C).
    """
    rows = sequences[:, :, 0] + sequences[:, :, 2].flip(1)
    columns = sequences[:, :, 1] + sequences[:, :, 3].flip(1)
    by_column = columns.unflatten(1, (width, height)).transpose(1, 2)
    merged: Tensor = rows.unflatten(1, (height, width)) + by_column
    return merged


def interleave(first: Tensor, second: Tensor) -> Tensor:
    """Merge two sequences (N, T, ...) into one (N, 2T, ...): first on even steps, second on odd."""
    return torch.stack((first, second), dim=2).flatten(1, 2)


def deinterleave(sequence: Tensor) -> tuple[Tensor, Tensor]:
    """Undo `interleave`."""
    pairs = sequence.unflatten(1, (-1, 2))
    return pairs[:, :, 0], pairs[:, :, 1]
