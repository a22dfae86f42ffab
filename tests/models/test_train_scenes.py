"""Folders of RGB, depth and masks: published names, reading on access, and what is wrong."""

from __future__ import annotations

import re
import warnings

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")

from mmfusion.errors import DataError
from mmfusion.graph.depth_range import DepthRange
from mmfusion.relative_depth import DepthReading, millimetres_by_level
from mmfusion.train.scenes import load_scenes

pytestmark = pytest.mark.torch


def write(folder, *stems, names=("rgb", "depth", "gt"), depth=np.uint16, size=(12, 16)):
    rgb = np.full((*size, 3), (30, 60, 90), np.uint8)
    for name, image in zip(
        names, (rgb, np.full(size, 200, depth), np.full(size, 255, np.uint8)), strict=True
    ):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for stem in stems:
            cv2.imwrite(str(folder / name / f"{stem}.png"), image)
    return folder


@pytest.mark.parametrize("names", [("RGB", "depth", "GT"), ("rgb", "Depth", "gt")])
def test_names_may_have_any_case(tmp_path, names):
    scenes = load_scenes([write(tmp_path, "a", "b", names=names)])
    assert [scene.name for scene in scenes] == ["a", "b"]
    scene = scenes[1]
    assert (scene.rgb.shape, scene.rgb.dtype) == ((12, 16, 3), np.uint8)
    assert scene.rgb[0, 0].tolist() == [90, 60, 30]
    assert (scene.depth.dtype, scene.depth[0, 0]) == (np.uint16, 200)
    assert (scene.mask.dtype, scene.mask[0, 0]) == (np.uint8, 255)


def test_it_is_said_how_many_samples_are_left_out(tmp_path):
    metric = write(tmp_path / "metric", "a", "b")
    relative = write(tmp_path / "relative", "c", "d", "e", depth=np.uint8)
    told = rf"3 of 5 samples in {metric}, {relative} are left out: their depth has 8 bits and is"
    with pytest.warns(UserWarning, match=told):
        scenes = load_scenes([metric, relative])
    assert [scene.name for scene in scenes] == ["a", "b"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_scenes([metric])
    told = f"no sample with 16-bit depth in {relative}: all 3 have 8-bit depth, which is relative; "
    told += "expected millimetres, as grey 16-bit PNG, or a network whose recipe has relative_depth"
    with pytest.raises(DataError, match=re.escape(told)):
        load_scenes([relative])


def test_all_that_is_wrong_is_told_at_once(tmp_path):
    first, second = write(tmp_path / "1", "a", "b", "c"), write(tmp_path / "2", "a", "b")
    (first / "gt" / "a.png").unlink()
    (first / "depth" / "b.png").unlink()
    (first / "rgb" / "c.png").write_bytes(b"text")
    cv2.imwrite(str(second / "depth" / "a.png"), np.ones((10, 16), np.uint16))
    (tmp_path / "3" / "RGB").mkdir(parents=True)
    with pytest.raises(DataError) as caught:
        load_scenes([first, second, tmp_path / "3"])
    told = str(caught.value)
    for part in (
        f"{first}: 2 samples lack colour, depth or mask: a, b (no depth: b; no mask: a)",
        f"{first}/rgb/c.png is not a readable image",
        f"sample a in {second}: colour is (12, 16), depth (10, 16), mask (12, 16); a registered",
        f"{tmp_path}/3 has no depth images: expected a subfolder named depth",
        f"{tmp_path}/3 has no mask images: expected a subfolder named gt",
    ):
        assert part in told
    with pytest.raises(DataError, match="holds no images"):
        load_scenes([write(tmp_path / "empty")])


NEAR_BRIGHT = DepthReading(relative="near_bright")
LEVELS = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16), 8, axis=0).repeat(8, axis=1)


def write_depth(folder, name, picture):
    """A sample with this depth and nothing else to see."""
    write(folder, "a", size=picture.shape[:2])
    (folder / "depth" / "a.png").unlink()
    assert cv2.imwrite(str(folder / "depth" / name), picture, [cv2.IMWRITE_JPEG_QUALITY, 100])
    return folder


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("a.png", 1),
        ("a.png", 3),
        ("a.png", 4),
        ("a.jpg", 1),
        ("a.jpg", 3),
        ("a.bmp", 1),
        ("a.bmp", 3),
    ],
)
def test_relative_depth_is_read_from_what_sets_have(tmp_path, name, channels):
    picture = LEVELS if channels == 1 else np.dstack([LEVELS] * channels)
    folder = write_depth(tmp_path, name, picture)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (scene,) = load_scenes([folder], NEAR_BRIGHT)
    assert scene.depth.dtype == np.uint16
    np.testing.assert_array_equal(scene.depth, millimetres_by_level(NEAR_BRIGHT)[LEVELS])


def test_grey_with_a_tint_is_grey(tmp_path):
    picture = np.dstack([LEVELS] * 3).clip(5, 250)
    picture[..., 0] -= 5
    (scene,) = load_scenes([write_depth(tmp_path, "a.png", picture)], NEAR_BRIGHT)
    luma = LEVELS.clip(5, 250) - 1  # 5 levels less of blue, which is 0.114 of it
    np.testing.assert_array_equal(scene.depth, millimetres_by_level(NEAR_BRIGHT)[luma])


def test_metric_and_relative_depth_go_together(tmp_path):
    metric, relative = write(tmp_path / "m", "a"), write(tmp_path / "r", "b", depth=np.uint8)
    reading = DepthReading(DepthRange(0.5, 8), "near_dark")
    scenes = load_scenes([metric, relative], reading)
    assert [scene.depth[0, 0] for scene in scenes] == [200, millimetres_by_level(reading)[200]]


@pytest.mark.parametrize(
    ("picture", "fault"),
    [
        (cv2.applyColorMap(LEVELS, cv2.COLORMAP_JET), "depth/a.png is coloured; expected grey lev"),
        (np.ones((12, 16, 3), np.uint16), r"is uint16 of shape \(12, 16, 3\); expected 8 or 16 b"),
    ],
)
def test_depth_in_colours_is_named(tmp_path, picture, fault):
    scenes = load_scenes([write_depth(tmp_path, "a.png", picture)], NEAR_BRIGHT)
    with pytest.raises(DataError, match=fault):
        scenes[0]


def test_real_relative_depth_is_seen_as_closeness(shared_dir):
    """Two samples of SSD, near = dark, among those with millimetres."""
    from mmfusion.corruptions import closeness_of

    folder = shared_dir / "data" / "rgbd_saliency" / "train"
    scenes = load_scenes([folder], DepthReading(relative="near_dark"))
    assert len(scenes) == 139
    found = [scenes[place] for place, name in enumerate(scenes.names) if name.startswith("ssd_")]
    assert len(found) == 2
    for scene in found:
        assert scene.depth.all()
        closeness = closeness_of(scene.depth * np.float32(1e-3), 0.3, 10)
        levels = cv2.imread(str(folder / "depth" / f"{scene.name}.png"), cv2.IMREAD_UNCHANGED)
        assert np.abs(255 * closeness - (255 - levels.astype(int))).max() < 0.5
        # What stands out is in front.
        assert closeness[scene.mask > 128].mean() > closeness[scene.mask <= 128].mean() + 0.1
