"""Folders of images read as recordings."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mmfusion_ros.core.errors import ImageError
from mmfusion_ros.core.frames import Modality
from mmfusion_ros.core.image_folder import open_image_folder, read_shot_image

RGB, DEPTH, THERMAL = Modality


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)
    return path


@pytest.fixture
def recording(tmp_path):
    for stem in ("b", "a", "c"):
        write(tmp_path / "rgb" / f"{stem}.png", np.zeros((4, 6, 3), np.uint8))
        write(tmp_path / "depth" / f"{stem}.png", np.zeros((4, 6), np.uint16))
    write(tmp_path / "thermal" / "a.tiff", np.zeros((2, 3), np.uint16))
    return tmp_path


def test_shots_are_matched_by_stem_in_order(recording):
    opened = open_image_folder(recording, period_ns=100)
    assert [shot.stem for shot in opened.shots] == ["a", "b", "c"]
    assert [set(shot.paths) for shot in opened.shots] == [set(Modality), {RGB, DEPTH}, {RGB, DEPTH}]
    assert [shot.stamps_ns[THERMAL] for shot in opened.shots] == [0, 100, 200]
    assert opened.modalities == tuple(Modality)
    assert (opened.period_ns, opened.cameras) == (100, {})


@pytest.mark.parametrize("names", [("visible", "infrared"), ("vi", "ir"), ("rgb", "thermal")])
def test_pairs_have_other_names(tmp_path, names):
    for name in names:
        write(tmp_path / name / "x.png", np.zeros((4, 6), np.uint8))
    opened = open_image_folder(tmp_path)
    assert opened.modalities == (RGB, THERMAL)
    assert read_shot_image(opened.shots[0].paths[RGB], RGB)[0].shape == (4, 6, 3)
    assert read_shot_image(opened.shots[0].paths[THERMAL], THERMAL)[1] == "mono8"


@pytest.mark.parametrize("column", ["{}_ns", "{}_stamp_ns"])
def test_stamps_give_order_period_and_offsets(recording, column):
    header = ",".join(["stem", *(column.format(modality) for modality in Modality)])
    rows = ["c,1000,1010,1020", "a,2000,2010,", "b,3000,3010,3020"]
    (recording / "stamps.csv").write_text("\n".join([header, *rows]))
    opened = open_image_folder(recording)
    assert [shot.stem for shot in opened.shots] == ["c", "a", "b"]
    assert opened.period_ns == 1000
    assert opened.shots[0].stamps_ns == {RGB: 1000, DEPTH: 1010, THERMAL: 1020}
    assert opened.shots[1].stamps_ns[THERMAL] == 2000


def test_the_bundled_recording_opens(repo_root):
    folder = repo_root / "data" / "courtyard"
    if not folder.is_dir():
        pytest.skip("data/courtyard is not here")
    opened = open_image_folder(folder)
    assert opened.modalities == tuple(Modality)
    assert opened.period_ns == 100_000_000
    assert opened.cameras[THERMAL].width == 320
    shot = opened.shots[0]
    images = {m: read_shot_image(shot.paths[m], m) for m in Modality}
    assert {m: encoding for m, (_, encoding) in images.items()} == {
        RGB: "rgb8",
        DEPTH: "16UC1",
        THERMAL: "mono16",
    }


def test_pixels_and_sizes(tmp_path):
    blue = write(tmp_path / "blue.png", np.full((4, 6, 3), (255, 0, 0), np.uint8))
    np.testing.assert_array_equal(read_shot_image(blue, RGB)[0][0, 0], (0, 0, 255))
    transparent = write(tmp_path / "t.png", np.full((4, 6, 4), (9, 8, 7, 0), np.uint8))
    np.testing.assert_array_equal(read_shot_image(transparent, RGB)[0][0, 0], (7, 8, 9))
    assert read_shot_image(blue, RGB, (8, 12))[0].shape == (8, 12, 3)
    edge = np.zeros((4, 4), np.uint16)
    edge[:, 2:] = 5000
    depth, encoding = read_shot_image(write(tmp_path / "d.png", edge), DEPTH, (7, 9))
    assert (depth.shape, encoding) == ((7, 9), "16UC1")
    assert set(np.unique(depth)) == {0, 5000}  # no surfaces made up in between
    grey = write(tmp_path / "g.png", np.full((2, 2, 3), 77, np.uint8))
    thermal, encoding = read_shot_image(grey, THERMAL)
    assert (thermal.shape, encoding, thermal[0, 0]) == ((2, 2), "mono8", 77)


@pytest.mark.parametrize(
    ("modality", "pixels", "message"),
    [
        (RGB, np.zeros((2, 2), np.uint16), "expected an 8-bit colour or grey"),
        (DEPTH, np.zeros((2, 2), np.uint8), "expected a 16-bit grey"),
        (THERMAL, np.zeros((2, 2, 3), np.uint16), "expected a 8 or 16-bit grey"),
    ],
)
def test_what_no_such_camera_takes_is_refused(tmp_path, modality, pixels, message):
    path = write(tmp_path / "x.png", pixels)
    with pytest.raises(ImageError, match=message):
        read_shot_image(path, modality)


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(b"\x89PNG nothing more")
    with pytest.raises(ImageError, match=r"x\.png cannot be read"):
        read_shot_image(path, RGB)


def test_missing_and_empty_folders_are_named(tmp_path):
    with pytest.raises(ImageError, match="nowhere is no folder"):
        open_image_folder(tmp_path / "nowhere")
    with pytest.raises(ImageError, match="has no images in rgb, visible, vi"):
        open_image_folder(tmp_path)
    (tmp_path / "rgb").mkdir()
    with pytest.raises(ImageError, match="has no images"):
        open_image_folder(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("stamps.csv", "stem,rgb_ns,depth_ns,thermal_ns\na,1,2,3\n", "has no row for b"),
        ("stamps.csv", "stem,rgb_ns,depth_ns,thermal_ns\na,x,2,3\n", "is malformed"),
        ("stamps.csv", "a,1,2,3\n", "is malformed"),
        ("cameras.yaml", "rgb: 3", "is malformed"),
        ("cameras.yaml", "lidar: {}", "is malformed"),
        ("cameras.yaml", "[", "is malformed"),
        (
            "cameras.yaml",
            "rgb: {width: 8, height: 8, K: [8, 0, 4, 0, 8, 4, 0, 0, 1], D: [], distortion_model: }",
            "distortion_model is None",
        ),
    ],
)
def test_malformed_files_are_named(recording, name, content, message):
    (recording / name).write_text(content)
    with pytest.raises(ImageError, match=message):
        open_image_folder(recording)
