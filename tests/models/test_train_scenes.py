"""Folders of RGB, depth and masks: published names, reading on access, and what is wrong."""

from __future__ import annotations

import re
import warnings

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")

from mmfusion.errors import DataError
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
    with pytest.raises(DataError, match=re.escape(told + "expected millimetres, as grey 16-bit")):
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
