"""Orders of the four directions, on maps small enough to read."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from mmfusion.layers.cross_scan import (
    deinterleave,
    from_sequences,
    interleave,
    to_sequences,
)

pytestmark = pytest.mark.torch


def test_the_four_orders():
    grid = torch.arange(6.0).view(1, 2, 3, 1)  # 0 1 2 / 3 4 5
    rows, columns, rows_back, columns_back = to_sequences(grid)[0, :, :, 0].T.tolist()
    assert rows == [0, 1, 2, 3, 4, 5]
    assert columns == [0, 3, 1, 4, 2, 5]
    assert rows_back == rows[::-1]
    assert columns_back == columns[::-1]


def test_each_direction_may_have_its_own_channels():
    maps = torch.randn(2, 3, 5, 4, 7)
    sequences = to_sequences(maps)
    for k in range(4):
        assert torch.equal(sequences[:, :, k], to_sequences(maps[..., k, :])[:, :, k])


def test_merging_undoes_the_orders():
    grid = torch.randn(2, 3, 5, 4)
    assert torch.allclose(from_sequences(to_sequences(grid), 3, 5), 4 * grid)


def test_infrared_stands_before_visible_and_both_come_back():
    first, second = torch.randn(2, 5, 4, 3), torch.randn(2, 5, 4, 3)
    both = interleave(first, second)
    assert torch.equal(both[:, 0], first[:, 0])
    assert torch.equal(both[:, 1], second[:, 0])
    assert all(map(torch.equal, deinterleave(both), (first, second)))
