"""A bag as a folder of pictures, for masks to be drawn and networks to be trained."""

from __future__ import annotations

import csv

import bags
import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin

from mmfusion_ros import bag_to_folder
from mmfusion_ros.core.errors import ImageError
from mmfusion_ros.core.frames import Modality, SourceImage
from mmfusion_ros.core.image_folder import open_image_folder
from mmfusion_ros.core.images import to_encoding

RGB, DEPTH, THERMAL = Modality
STAMPS = [str(bags.START + number * bags.PERIOD) for number in range(6)]


def convert(bag, out, *options):
    return bag_to_folder.main([str(bag), "--out", str(out), *options])


def read(path):
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    return pixels


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_pixels_are_those_of_the_bag(tmp_path, storage):
    bag = bags.write_bag(tmp_path / "bag", bags.cameras(), storage)
    assert convert(bag, tmp_path / "out") == 0
    for number, stamp in enumerate(STAMPS):
        shown = bags.pictures(number, (48, 64))
        written = {name: read(tmp_path / "out" / name / f"{stamp}.png") for name in shown}
        assert np.array_equal(written["rgb"][..., ::-1], shown["rgb"])
        assert np.array_equal(written["depth"], shown["depth"])
        assert np.array_equal(written["thermal"], shown["thermal"])


def test_the_player_and_training_can_read_it(tmp_path):
    info = bags.camera_info("/camera/color/camera_info", 50.0)
    bag = bags.write_bag(tmp_path / "bag", [info, *bags.cameras()])
    assert convert(bag, tmp_path / "out") == 0
    opened = open_image_folder(tmp_path / "out")
    assert [shot.stem for shot in opened.shots] == STAMPS
    assert all(len(shot.paths) == 3 for shot in opened.shots)
    assert opened.shots[1].stamps_ns[THERMAL] == int(STAMPS[1]) + 3_000_000
    assert opened.cameras[RGB].k[0] == 50.0


@pytest.mark.parametrize(
    ("model", "coefficients"),
    [
        ("plumb_bob", (0.1, -0.2, 0.001, 0.002, 0.05)),
        ("rational_polynomial", (0.5, -0.2, 0.001, 0.002, 0.05, 0.4, -0.1, 0.02)),
        ("equidistant", (0.02, -0.01, 0.003, -0.0005)),
    ],
)
def test_the_lens_is_that_of_the_bag(tmp_path, capfd, model, coefficients):
    info = bags.camera_info(
        "/camera/color/camera_info", 50.0, distortion_model=model, d=np.array(coefficients)
    )
    bag = bags.write_bag(tmp_path / "bag", [info, *bags.cameras()])
    assert convert(bag, tmp_path / "out") == 0
    camera = open_image_folder(tmp_path / "out").cameras[RGB]
    assert (camera.distortion_model, camera.d) == (model, coefficients)
    assert "left out" not in capfd.readouterr().err


def test_what_the_camera_file_does_not_keep_is_told(tmp_path, capfd):
    region = bags.STORE.types["sensor_msgs/msg/RegionOfInterest"](8, 0, 48, 40, False)
    turned = np.array([0.0, -1, 0, 1, 0, 0, 0, 0, 1])
    info = bags.camera_info("/camera/color/camera_info", 50.0, r=turned, roi=region)
    bag = bags.write_bag(tmp_path / "bag", [info, *bags.cameras()])
    assert convert(bag, tmp_path / "out") == 0
    told = "left out of cameras.yaml: rgb camera: the rectification (R, P) and the region"
    assert told in capfd.readouterr().err


def test_thermal_in_colours_is_left_out_as_the_node_does(tmp_path, capfd):
    grey = np.full((48, 64, 3), 7, np.uint8)
    messages = [
        (topic, kind, time, message)
        for topic, kind, time, message in bags.cameras()
        if topic != bags.TOPICS["thermal"]
    ]
    coloured = bags.image(grey, "bgr8", bags.START)
    messages.append((bags.TOPICS["thermal"], bags.IMAGE, bags.START, coloured))
    bag = bags.write_bag(tmp_path / "bag", messages)
    asked = ("--thermal-topic", bags.TOPICS["thermal"])
    assert convert(bag, tmp_path / "out", *asked) == 1
    told = capfd.readouterr().err
    assert (
        "left out 1: thermal has the encoding bgr8, which is not written; expected mono16" in told
    )
    image = SourceImage(grey.tobytes(), 48, 64, "bgr8", step=192)
    for taken in ("mono8", "mono16"):
        with pytest.raises(ImageError, match="bgr8 image cannot stand for"):
            to_encoding(image, taken)


def test_pictures_get_the_size_of_the_rgb_picture_and_metres_become_millimetres(tmp_path):
    metres = np.array([[1.5, np.nan], [np.inf, 70.0]], np.float32)
    messages = [
        (bags.TOPICS["rgb"], bags.IMAGE, bags.START,
         bags.image(np.zeros((4, 8, 3), np.uint8), "rgb8", bags.START)),
        (bags.TOPICS["depth"], bags.IMAGE, bags.START + 1,
         bags.image(metres, "32FC1", bags.START)),
    ]  # fmt: skip
    bag = bags.write_bag(tmp_path / "bag", messages)
    assert convert(bag, tmp_path / "out", "--without", "thermal") == 0
    depth = read(tmp_path / "out" / "depth" / f"{STAMPS[0]}.png")
    assert depth.dtype == np.uint16
    assert depth.tolist() == 2 * [4 * [1500] + 4 * [0]] + 2 * [8 * [0]]
    assert not (tmp_path / "out" / "thermal").exists()


def test_sets_that_lack_a_camera_are_left_out_and_counted(tmp_path, capfd):
    bag = bags.write_bag(tmp_path / "bag", bags.cameras(no_thermal=(2, 4)))
    assert convert(bag, tmp_path / "out") == 0
    told = capfd.readouterr()
    assert "4 sets of rgb, depth, thermal written" in told.out
    assert "left out 2: thermal is stale" in told.err
    with (tmp_path / "out" / "stamps.csv").open() as file:
        stems = [row["stem"] for row in csv.DictReader(file)]
    assert stems == [STAMPS[number] for number in (0, 1, 3, 5)]


def test_every_nth_is_taken(tmp_path):
    bag = bags.write_bag(tmp_path / "bag", bags.cameras())
    assert convert(bag, tmp_path / "out", "--stride", "4") == 0
    assert sorted(path.stem for path in (tmp_path / "out" / "rgb").iterdir()) == STAMPS[::4]


def test_nothing_that_belongs_together_is_an_error(tmp_path, capfd):
    bag = bags.write_bag(tmp_path / "bag", bags.cameras(thermal_shift_ns=40_000_000))
    assert convert(bag, tmp_path / "out") == 1
    assert "no set of rgb, depth, thermal" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()
    assert convert(bag, tmp_path / "out", "--window-ms", "45") == 0


def test_a_folder_that_holds_something_is_refused(tmp_path, capfd):
    bag = bags.write_bag(tmp_path / "bag", bags.cameras(1))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    assert convert(bag, tmp_path / "out") == 1
    assert "not empty" in capfd.readouterr().err


def test_no_bag_is_one_clear_line(tmp_path, capfd):
    assert convert(tmp_path / "nowhere", tmp_path / "out") == 1
    told = capfd.readouterr().err
    assert told.startswith("bag_to_folder: there is no bag at")
    assert not (tmp_path / "out").exists()
