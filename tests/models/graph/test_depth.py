"""Depth: bytes to metres, holes, and what a network sees of it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from hypothesis import given, settings
from hypothesis import strategies as st

from mmfusion.errors import ExportError
from mmfusion.graph.depth import NEUTRAL_DEPTH, DepthMapping, fill_holes, unpack_depth
from mmfusion.graph.depth_range import DepthRange

pytestmark = pytest.mark.torch


def as_bytes(millimetres):
    array = np.ascontiguousarray(millimetres, "<u2")
    return torch.from_numpy(array.view(np.uint8).reshape(*array.shape, 2))


def brute_force(picture, known):
    """The mean of the smallest block of 1, 2, 4, ... pixels in which something is known."""
    filled = np.full(picture.shape, NEUTRAL_DEPTH, np.float64)
    for row, column in np.ndindex(*picture.shape):
        side = 1
        while True:
            top, left = row // side * side, column // side * side
            block = np.s_[top : top + side, left : left + side]
            if known[block].any():
                filled[row, column] = picture[block][known[block]].mean()
                break
            if side >= max(picture.shape):
                break
            side *= 2
    return filled


def test_millimetres_become_metres_and_zero_is_unknown():
    metres, valid = unpack_depth(as_bytes([[0, 1500], [65535, 1]]))
    assert torch.allclose(metres[0, 0], torch.tensor([[0, 1.5], [65.535, 0.001]]))
    assert valid[0, 0].tolist() == [[0, 1], [1, 1]]


def test_float_metres_know_several_ways_to_be_unknown():
    raw = torch.tensor([[1.5, float("nan")], [float("inf"), -1.0], [0.0, 2.0]])
    metres, valid = unpack_depth(raw)
    assert valid[0, 0].tolist() == [[1, 0], [0, 0], [0, 1]]
    assert metres[0, 0].tolist() == [[1.5, 0], [0, 0], [0, 2]]


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 13), st.integers(1, 13), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_holes_take_the_mean_of_the_smallest_block_around_them(height, width, seed, share):
    rng = np.random.default_rng(seed)
    picture = rng.random((height, width))
    known = rng.random((height, width)) < share**2
    filled = fill_holes(
        torch.from_numpy(picture)[None, None], torch.from_numpy(known)[None, None].double()
    )
    np.testing.assert_allclose(filled[0, 0].numpy(), brute_force(picture, known), atol=1e-12)


def test_near_is_bright_and_what_is_out_of_range_is_clipped():
    metres = torch.tensor([[0.1, 0.5], [0.8, 9.0]])[None, None]
    mapped = DepthMapping((2, 2), (2, 2), DepthRange(0.5, 2.0))(metres, torch.ones_like(metres))
    # In inverse metres: 2 is near, 0.5 far; 1.25 lies half way.
    torch.testing.assert_close(mapped[0, 0], torch.tensor([[1, 1], [0.5, 0]]))


def test_a_hole_does_not_darken_what_is_around_it():
    metres, valid = torch.full((1, 1, 8, 8), 2.0), torch.ones(1, 1, 8, 8)
    metres[..., 3:5, 3:5], valid[..., 3:5, 3:5] = 0, 0
    mapped = DepthMapping((8, 8), (4, 4), DepthRange(1, 4))(metres, valid)
    assert torch.allclose(mapped, torch.full((1, 1, 4, 4), 1 / 3))


@pytest.mark.parametrize("metres", [0.0, 1.0, 1e9])
def test_without_depth_the_map_is_neutral(metres):
    picture = torch.full((1, 1, 12, 16), metres)
    mapped = DepthMapping((12, 16), (5, 7), DepthRange())(picture, torch.zeros_like(picture))
    assert torch.equal(mapped, torch.full((1, 1, 5, 7), NEUTRAL_DEPTH))


@pytest.mark.parametrize("limits", [(0, 1), (2, 2), (3, 1), (1, float("inf")), (float("nan"), 1)])
def test_impossible_ranges_are_refused(limits):
    with pytest.raises(ExportError, match="expected 0 < near < far"):
        DepthRange(*limits)


def test_real_depth_is_filled_smoothly(shared_dir):
    files = sorted((shared_dir / "data" / "rgbdt" / "val" / "depth").glob("*.png"))
    for file in files[::5]:
        raw = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        metres, valid = unpack_depth(as_bytes(raw))
        mapped = DepthMapping(raw.shape, (384, 384), DepthRange())(metres, valid)
        assert 0 < valid.mean() < 1  # there are holes
        low, high = np.quantile(raw[raw > 0], (0.001, 0.999)) * 1e-3
        near, far = ((1 / z - 0.1) / (1 / 0.3 - 0.1) for z in (low, high))
        inside = (mapped >= far - 0.02) & (mapped <= near + 0.02)
        assert inside.float().mean() > 0.98  # nothing like the black of raw holes, nor white
