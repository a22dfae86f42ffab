"""Region pooling with fixed shapes equals pooling each box on its own level."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")

from hypothesis import given, settings
from hypothesis import strategies as st

from mmfusion.efficientmfd.roi_align import (
    level_masks,
    pool_by_grid_sample,
    pool_by_roi_align,
)

pytestmark = pytest.mark.torch


def pyramid_of(images, channels, rows, columns, dtype=torch.float32):
    return tuple(
        torch.randn(images, channels, rows * 32 // stride, columns * 32 // stride, dtype=dtype)
        for stride in (4, 8, 16, 32)
    )


def random_boxes(images, proposals, rows, columns, dtype=torch.float32):
    """Boxes of every level: inside, across borders, far outside, and empty ones."""
    size = torch.tensor([columns * 32.0, rows * 32.0], dtype=dtype)
    centres = (torch.rand(images, proposals, 2, dtype=dtype) * 2 - 0.5) * size
    sides = torch.exp(torch.rand(images, proposals, 2, dtype=dtype) * 8 - 1)
    sides[:, ::7] = 0
    return torch.cat((centres - sides / 2, centres + sides / 2), dim=-1)


def published_level(box):
    side = ((box[2] - box[0]) * (box[3] - box[1])).sqrt()
    level = torch.floor(4 + torch.log2(side / 224 + 1e-8))
    return int(level.clamp(2, 5)) - 2


def pool_by_index_lists(pyramid, boxes):
    """Each box on its own level alone, as the release does."""
    images, proposals = boxes.shape[:2]
    out = torch.zeros(images, proposals, 49, pyramid[0].shape[1], dtype=boxes.dtype)
    for image in range(images):
        levels = torch.tensor([published_level(box) for box in boxes[image]])
        for index, level in enumerate(pyramid):
            chosen = (levels == index).nonzero().flatten()
            pooled = torchvision.ops.roi_align(
                level[image : image + 1],
                [boxes[image, chosen]],
                output_size=(7, 7),
                spatial_scale=1 / (4 << index),
                sampling_ratio=2,
                aligned=True,
            )
            out[image, chosen] = pooled.flatten(2).transpose(1, 2)
    return out


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**20))
def test_masked_pooling_equals_index_lists(images, rows, columns, seed):
    torch.manual_seed(seed)
    pyramid = pyramid_of(images, 3, rows, columns)
    boxes = random_boxes(images, 40, rows, columns)
    assert torch.equal(pool_by_roi_align(pyramid, boxes), pool_by_index_lists(pyramid, boxes))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**20))
def test_grid_samples_equal_roi_align(images, rows, columns, seed):
    torch.manual_seed(seed)
    pyramid = pyramid_of(images, 3, rows, columns, torch.float64)
    boxes = random_boxes(images, 40, rows, columns, torch.float64)
    torch.testing.assert_close(
        pool_by_grid_sample(pyramid, boxes), pool_by_roi_align(pyramid, boxes)
    )


def test_levels_by_area():
    sides = torch.tensor([0.0, 111.9, 112.0, 223.9, 224.0, 447.9, 448.0, 1e9])
    boxes = torch.stack((sides * 0, sides * 0, sides / 2, sides * 2), dim=-1)
    levels = torch.stack(level_masks(boxes)).long()
    assert levels.sum(dim=0).tolist() == [1] * 8
    assert levels.argmax(dim=0).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("pool", [pool_by_roi_align, pool_by_grid_sample])
def test_a_box_far_outside_pools_zeros(pool):
    pyramid = pyramid_of(1, 2, 2, 2)
    boxes = torch.tensor([[[900.0, 900, 950, 950], [-1e6, 0, -9e5, 10]]])
    assert (pool(pyramid, boxes) == 0).all()


@pytest.mark.parametrize("pool", [pool_by_roi_align, pool_by_grid_sample])
def test_a_ramp_pools_to_bin_centres(pool):
    # Pixel (x, y) of the level holds x: a bin's mean is the x of its centre, half a pixel off.
    ramp = torch.arange(32.0).expand(1, 1, 32, 32).contiguous()
    pyramid = (ramp, *(torch.zeros(1, 1, 32 // f, 32 // f) for f in (2, 4, 8)))
    pooled = pool(pyramid, torch.tensor([[[8.0, 16, 64, 72]]]))[0, 0, :, 0].view(7, 7)
    expected = 2 + (torch.arange(7) + 0.5) * 2 - 0.5
    torch.testing.assert_close(pooled, expected.expand(7, 7))
