"""The artifacts that ship, on real pictures: every set of cameras gives something sensible."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from mmfusion_ros.core.artifact import open_artifact
from mmfusion_ros.core.engines import EngineOptions, open_engine

CAMERAS = ("rgb", "depth", "thermal")
SETS = [CAMERAS, ("rgb", "thermal"), ("rgb", "depth"), ("rgb",)]
STEMS = ("mm5_071", "mm5_231")


def open_bundled(repo_root, name):
    artifact = open_artifact(repo_root / "artifacts" / f"{name}_640x480")
    return open_engine(artifact, EngineOptions("onnxruntime"))


@pytest.fixture(scope="module", params=["rgbdt_tiny", "rgbdt_full"])
def engine(repo_root, request):
    with open_bundled(repo_root, request.param) as engine:
        yield engine


def read(folder, stem):
    """The graph's images of one moment, and what stands out in it (bool)."""
    rgb = cv2.imread(str(folder / "rgb" / f"{stem}.jpg"))[..., ::-1]
    inputs = {"rgb": np.ascontiguousarray(rgb)}
    for camera in ("depth", "thermal"):
        raw = cv2.imread(str(folder / camera / f"{stem}.png"), cv2.IMREAD_UNCHANGED)
        raw = np.ascontiguousarray(cv2.resize(raw, (640, 480)) if raw.shape[0] != 480 else raw)
        inputs[camera] = raw.astype("<u2").view(np.uint8).reshape(480, 640, 2)
    mask = cv2.imread(str(folder / "gt" / f"{stem}.png"), cv2.IMREAD_GRAYSCALE)
    return inputs, mask > 128


def run(engine, images, present, thermal_range=(0, 0)):
    """One frame, the pictures of absent cameras being blank as in the pipeline."""
    inputs = {
        camera: image if camera in present else np.zeros_like(image)
        for camera, image in images.items()
    }
    inputs["present"] = np.array([camera in present for camera in CAMERAS], np.float32)
    inputs["thermal_range"] = np.array(thermal_range, np.float32)
    return {name: array.copy() for name, array in engine.run(inputs).items()}


def error(saliency, mask):
    return np.abs(saliency / 255.0 - mask).mean()


@pytest.fixture(params=["courtyard", *STEMS])
def scene(request, repo_root):
    if request.param == "courtyard":
        return read(repo_root / "data" / "courtyard", "000020")
    folder = repo_root.parent / "shared" / "data" / "rgbdt" / "val"
    if not folder.is_dir():
        pytest.skip("needs the recorded data in ../shared, which this checkout does not have")
    return read(folder, request.param)


@pytest.mark.parametrize("present", SETS, ids="+".join)
def test_what_stands_out_is_found_by_every_set_of_cameras(engine, scene, present):
    images, mask = scene
    found = run(engine, images, present)["saliency"]
    assert error(found, mask) < min(0.03, 0.7 * mask.mean())  # an empty mask errs by its mean


def test_warm_things_are_brighter_than_without_thermal(engine, repo_root):
    images, mask = read(repo_root / "data" / "courtyard", "000020")
    plain = run(engine, images, ("rgb", "depth"))["fused"]
    np.testing.assert_array_equal(plain, images["rgb"])
    fused = run(engine, images, CAMERAS)["fused"]
    assert fused[mask].mean() > 1.3 * plain[mask].mean()
    assert fused[mask].mean() > 1.4 * fused[~mask].mean()
    assert abs(fused[~mask].mean() - plain[~mask].mean()) < 25


@pytest.mark.parametrize(
    ("part", "outputs"),
    [
        ("rgbdt_tiny", {"fused", "saliency", "thermal_range_next"}),
        ("efficientmfd_lite0", {"boxes", "scores", "classes", "box_depth"}),
    ],
)
def test_the_full_graph_gives_what_its_parts_give(repo_root, part, outputs):
    images, _ = read(repo_root / "data" / "courtyard", "000020")
    with open_bundled(repo_root, part) as engine:
        expected = run(engine, images, CAMERAS)
    with open_bundled(repo_root, "rgbdt_full") as engine:
        given = run(engine, images, CAMERAS)
    assert outputs <= given.keys()
    for name in outputs:
        ours, theirs = given[name].astype(np.float64), expected[name].astype(np.float64)
        grey_level = 1 if given[name].dtype == np.uint8 else 1e-4
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=grey_level, err_msg=name)


def test_no_picture_jumps_when_cameras_come_and_go(engine, scene):
    images, _ = scene
    carried = run(engine, images, CAMERAS)["thermal_range_next"]
    frames = []
    for present in (CAMERAS, ("rgb", "depth"), ("rgb",), ("rgb", "thermal"), CAMERAS):
        outputs = run(engine, images, present, carried)
        carried = outputs["thermal_range_next"]
        frames.append(outputs)
    plain = images["rgb"].mean()
    for before, after in itertools.pairwise(frames):
        assert 0.8 * plain < after["fused"].mean() < 1.5 * plain
        assert abs(after["fused"].mean() - before["fused"].mean()) < 0.4 * plain
        change = np.abs(after["saliency"].astype(int) - before["saliency"].astype(int))
        assert change.mean() < 0.02 * 255
    for name in ("fused", "saliency"):
        np.testing.assert_array_equal(frames[0][name], frames[-1][name])
