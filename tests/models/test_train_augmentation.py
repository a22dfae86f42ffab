"""Augmentation: pictures of a sample stay aligned, and a seed decides all of it."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("torchvision", reason="torchvision is not installed")

from torchvision import tv_tensors

from mmfusion.errors import DataError
from mmfusion.train.augmentation import (
    Augmentation,
    augment,
    haf_sample,
    square_crop,
    to_floats,
    to_sample,
)
from mmfusion.train.boxed_pairs import BoxedPair
from mmfusion.train.pairs import Pair
from mmfusion.train.scenes import Scene

pytestmark = pytest.mark.torch

MOVES = {"smallest_window": 0.5, "mirror": 0.5, "flip": 0.5, "rotation": 20}
EVERYTHING = Augmentation(**MOVES, brightness=0.3, contrast=0.3, saturation=0.3)


def rng(seed=0):
    return np.random.default_rng(seed)


def ramp(height=40, width=60):
    return np.arange(height * width).reshape(height, width)


@pytest.fixture
def scene():
    """A square that stands out, near, with a hole in depth."""
    rgb = np.full((80, 100, 3), 40, np.uint8)
    depth, mask = np.full((80, 100), 4000, np.uint16), np.zeros((80, 100), np.uint8)
    square = np.s_[20:60, 20:60]
    rgb[square], depth[square], mask[square] = 220, 1000, 255
    depth[:, 70:75] = 0
    return Scene("s", rgb, depth, mask)


@pytest.fixture
def boxed():
    visible, infrared = np.full((96, 128, 3), 60, np.uint8), np.full((96, 128), 30, np.uint8)
    visible[30:80, 40:70], infrared[30:80, 40:70] = 200, 255
    return BoxedPair(
        "b",
        visible,
        infrared,
        np.array([[40, 30, 70, 80]], np.float32),
        np.array([3], np.int64),
        np.array([True, False]),
    )


def test_crops_for_fusion_are_flipped_windows_of_both(tmp_path):
    pictures = ramp()
    pair = Pair("p", (pictures // 256).astype(np.uint8), (pictures % 256).astype(np.uint8))
    steps, corners = set(), set()
    generator = rng()
    for _ in range(60):
        crop = square_crop(to_sample(pair), 24, generator)
        assert crop.keys() == {"rgb", "thermal"}
        thermal, luma = (crop[name].long()[0] for name in ("thermal", "rgb"))
        window = 256 * thermal + luma  # where each pixel came from
        down, right = window.diff(dim=0).unique().tolist(), window.diff(dim=1).unique().tolist()
        assert len(down) == len(right) == 1
        steps.add((down[0], right[0]))
        corners.add(window.min().item())
    assert steps == {(60, 1), (-60, 1), (60, -1), (-60, -1)}
    assert len(corners) > 40
    with pytest.raises(DataError, match="a picture is 40x60; expected at least the crop, 41"):
        square_crop(to_sample(pair), 41, generator)


def test_other_pictures_come_along():
    sample = {
        "thermal": tv_tensors.Image(torch.rand(1, 30, 30)),
        "note": torch.arange(3),
    }
    sample["warmth"] = tv_tensors.Image(2 * sample["thermal"])
    crop = square_crop(sample, 20, rng())
    torch.testing.assert_close(crop["warmth"], 2 * crop["thermal"])
    assert crop["note"].tolist() == [0, 1, 2]


def test_numbers_become_metres_and_shares(scene):
    floats = to_floats(to_sample(scene))
    assert {k: tuple(v.shape) for k, v in floats.items()} == {
        "rgb": (3, 80, 100),
        "depth": (1, 80, 100),
        "mask": (1, 80, 100),
    }
    assert floats["depth"].unique().tolist() == pytest.approx([0, 1, 4])
    assert floats["mask"].unique().tolist() == [0, 1]
    assert floats["rgb"].amax().item() == pytest.approx(220 / 255)


def test_pictures_stay_aligned_and_no_depth_is_invented(scene):
    generator = rng()
    for _ in range(30):
        sample = augment(to_sample(scene), (48, 64), Augmentation(**MOVES), generator)
        assert sample["rgb"].shape == (3, 48, 64)
        depth, mask, bright = sample["depth"], sample["mask"] == 1, sample["rgb"][:1] > 0.5
        assert set(depth.unique().tolist()) <= {0.0, 1.0, 4.0}
        assert torch.equal(depth == 1, mask)
        assert (bright != mask).float().mean() < 0.02  # edges are smooth in colour


def test_boxes_stay_on_their_objects(boxed):
    generator = rng()
    counts = []
    for _ in range(60):
        how = Augmentation(smallest_window=0.4, mirror=0.5, flip=0.5)
        sample = augment(to_sample(boxed), (48, 64), how, generator)
        counts.append(len(sample["boxes"]))
        assert len(sample["labels"]) == counts[-1]
        assert sample["labelled"].tolist() == [True, False]
        for x1, y1, x2, y2 in sample["boxes"].round().int().tolist():
            assert 0 <= x1 < x2 <= 64
            assert 0 <= y1 < y2 <= 48
            assert sample["thermal"][0, y1 + 1 : y2 - 1, x1 + 1 : x2 - 1].amin() > 0.8
            outside = sample["thermal"].clone()
            outside[0, max(0, y1 - 1) : y2 + 1, max(0, x1 - 1) : x2 + 1] = 0
            assert outside.amax() < 0.2
    assert set(counts) == {0, 1}  # some are cut off too far
    whole = augment(to_sample(boxed), (96, 128), Augmentation(smallest_window=1), generator)
    assert whole["boxes"].tolist() == [[40, 30, 70, 80]]
    assert whole["labels"].tolist() == [3]


def test_turned_boxes_hold_their_objects(boxed):
    generator = rng(1)
    for _ in range(20):
        how = Augmentation(smallest_window=1, rotation=15)
        sample = augment(to_sample(boxed), (96, 128), how, generator)
        ((x1, y1, x2, y2),) = sample["boxes"].tolist()
        rows, columns = torch.nonzero(sample["thermal"][0] > 0.5, as_tuple=True)
        assert columns.min() == pytest.approx(x1, abs=2)
        assert columns.max() + 1 == pytest.approx(x2, abs=2)
        assert rows.min() == pytest.approx(y1, abs=2)
        assert rows.max() + 1 == pytest.approx(y2, abs=2)


def test_light_changes_in_colour_alone(boxed):
    how = Augmentation(smallest_window=1, brightness=0.5, contrast=0.5, saturation=0.5)
    sample = augment(to_sample(boxed), (96, 128), how, rng())
    same = to_floats(to_sample(boxed))
    assert torch.equal(sample["thermal"], same["thermal"])
    assert not torch.equal(sample["rgb"], same["rgb"])
    assert sample["rgb"].amin() >= 0
    assert sample["rgb"].amax() <= 1


def test_a_seed_decides_whatever_torch_draws(boxed, scene):
    first = augment(to_sample(boxed), (48, 64), EVERYTHING, rng(3))
    torch.rand(7)
    state = torch.random.get_rng_state()
    second = augment(to_sample(boxed), (48, 64), EVERYTHING, rng(3))
    third = augment(to_sample(boxed), (48, 64), EVERYTHING, rng(4))
    turned, again = haf_sample(scene, rng(5)), haf_sample(scene, rng(5))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["rgb"], third["rgb"])
    for name in ("rgb", "depth", "mask"):
        np.testing.assert_array_equal(getattr(turned, name), getattr(again, name))


def test_hafs_samples_are_the_published_ones(scene):
    generator = rng()
    sizes, mirrored, turned, peppered, shades = set(), 0, 0, [], set()
    for _ in range(150):
        sample = haf_sample(scene, generator)
        height, width = sample.mask.shape
        assert sample.rgb.shape == (height, width, 3)
        assert sample.depth.shape == (height, width)
        assert (sample.rgb.dtype, sample.depth.dtype) == (np.uint8, np.uint16)
        assert sample.mask.dtype == np.uint8
        sizes.add((height, width))
        near = sample.depth == 1000
        assert set(np.unique(sample.depth)) <= {0, 1000, 4000}
        differ = near != (sample.mask > 127)
        tilted = len(np.unique(np.argmax(near, axis=1)[near.any(axis=1)])) > 1
        turned += tilted
        assert differ.mean() < 0.02
        if not tilted:
            peppered.append(differ.sum())
        mirrored += np.argwhere(near)[:, 1].mean() > width / 2
        shades.add(int(sample.rgb[height // 2, width // 2, 0]))
    heights, widths = zip(*sizes, strict=True)
    assert 50 <= min(heights) < 55
    assert 75 < max(heights) <= 79
    assert 70 <= min(widths) < 75
    assert 95 < max(widths) <= 99
    assert 50 < mirrored < 100
    assert 10 < turned < 50  # a fifth; by less than half a pixel it does not show
    # 0.15 % of the pixels, half of which had that value before.
    assert 2 < np.mean(peppered) < 7
    assert len(shades) > 10


def test_hafs_samples_of_tiny_scenes():
    tiny = Scene(
        "t", np.zeros((1, 9, 3), np.uint8), np.ones((1, 9), np.uint16), np.zeros((1, 9), np.uint8)
    )
    assert haf_sample(tiny, rng()).mask.shape[0] == 1
