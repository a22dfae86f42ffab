"""Frames come out of a bag as they were recorded, also out of a damaged one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bags import (
    IMAGE,
    PERIOD,
    START,
    TOPICS,
    camera_info,
    cameras,
    image,
    pictures,
    write_bag,
    write_ros1_bag,
)
from rosbags.rosbag2 import CompressionMode, StoragePlugin

from mmfusion_ros.core.bag_reader import (
    ReadingReport,
    camera_info_beside,
    open_bag,
    read_frames,
    rgb_stamps,
)
from mmfusion_ros.core.bag_topics import modality_of
from mmfusion_ros.core.errors import BagError
from mmfusion_ros.core.frames import Frame, Modality
from mmfusion_ros.core.images import view

SIZE = (600, 800)  # more than one MCAP chunk each


def read(path: Path, **options) -> tuple[list[tuple[Frame, int]], ReadingReport]:
    report = ReadingReport()
    return list(read_frames(open_bag(path, **options), report)), report


@pytest.mark.parametrize("storage", StoragePlugin)
@pytest.mark.parametrize("compressed", [False, True])
def test_frames_come_in_log_order_with_their_pictures(tmp_path, storage, compressed):
    path = write_bag(tmp_path / "bag", cameras(3, compressed=compressed), storage)
    frames, report = read(path)
    assert report == ReadingReport()
    assert [frame.modality for frame, _ in frames] == [*Modality] * 3
    assert [log for _, log in frames] == sorted(log for _, log in frames)
    thermal, log_time = frames[5]
    assert thermal.stamp_ns == START + PERIOD + 3_000_000
    assert log_time == START + PERIOD + 5_000_000
    assert thermal.frame_id == "optical"
    np.testing.assert_array_equal(view(thermal.image), pictures(1, (48, 64))["thermal"])
    assert frames[0][0].image.compressed is compressed


def test_companions_have_fingerprints(tmp_path):
    frames, _ = read(write_bag(tmp_path / "bag", cameras(2)))
    for frame, _ in frames:
        assert (frame.fingerprint is None) == (frame.modality is Modality.RGB)


def test_a_single_file_is_a_bag(tmp_path):
    path = write_bag(tmp_path / "bag", cameras(2))
    frames, _ = read(path / "bag.mcap")
    assert len(frames) == 6


@pytest.mark.parametrize("compression", ["", "BZ2", "LZ4"])
def test_a_ros1_bag_is_read(tmp_path, compression):
    path = write_ros1_bag(tmp_path / "old.bag", cameras(2), compression)
    frames, report = read(path)
    assert len(frames) == 6
    assert report.error is None
    np.testing.assert_array_equal(view(frames[5][0].image), pictures(1, (48, 64))["thermal"])


@pytest.mark.parametrize("storage", StoragePlugin)
@pytest.mark.parametrize("mode", ["MESSAGE", "FILE", "STORAGE"])
def test_a_compressed_bag_is_read(tmp_path, storage, mode):
    if (storage, mode) == (StoragePlugin.SQLITE3, "STORAGE"):
        pytest.skip("there is no such storage")
    path = write_bag(tmp_path / "bag", cameras(2), storage, CompressionMode[mode])
    frames, report = read(path)
    assert len(frames) == 6
    assert report == ReadingReport()


def test_missing_stamps_become_log_times_and_are_counted(tmp_path):
    frames, report = read(write_bag(tmp_path / "bag", cameras(2, stamps=False)))
    assert all(frame.stamp_ns == log_time for frame, log_time in frames)
    assert report.restamped == dict.fromkeys(Modality, 2)


def test_bytes_that_are_no_message_are_skipped_and_counted(tmp_path):
    messages = cameras(2)
    messages.insert(3, (TOPICS["rgb"], IMAGE, START + 7_000_000, b"\x00\x01\x00\x00\x07"))
    frames, report = read(write_bag(tmp_path / "bag", messages))
    assert len(frames) == 6
    assert sum(report.skipped.values()) == 1
    assert report.error is None


class TestDamaged:
    @pytest.mark.parametrize("share", [0.25, 0.5, 0.75, 0.9])
    @pytest.mark.parametrize("with_metadata", [True, False])
    def test_what_lies_before_the_end_is_kept(self, tmp_path, share, with_metadata):
        path = write_bag(tmp_path / "bag", cameras(8, size=SIZE))
        file = path / "bag.mcap"
        whole, _ = read(path)
        data = file.read_bytes()
        file.write_bytes(data[: int(len(data) * share)])
        if not with_metadata:
            (path / "metadata.yaml").unlink()
        frames, report = read(path)
        assert "bag.mcap ends early" in report.error
        # All but the chunk that was cut, which holds about one message of an image.
        assert len(whole) * share - 4 <= len(frames) < len(whole)
        for (frame, log_time), (expected, expected_log) in zip(frames, whole, strict=False):
            assert (frame.modality, log_time) == (expected.modality, expected_log)
            np.testing.assert_array_equal(view(frame.image), view(expected.image))

    def test_only_the_index_missing_loses_nothing(self, tmp_path):
        path = write_bag(tmp_path / "bag", cameras(8, size=SIZE))
        file = path / "bag.mcap"
        file.write_bytes(file.read_bytes()[:-10])
        frames, report = read(file)
        assert len(frames) == 24
        assert report.error is not None

    def test_the_file_itself_is_left_alone(self, tmp_path):
        file = write_bag(tmp_path / "bag", cameras(8, size=SIZE)) / "bag.mcap"
        cut = file.read_bytes()[:-1000]
        file.write_bytes(cut)
        read(file)
        assert file.read_bytes() == cut

    @pytest.mark.parametrize("size", [0, 7, 100, 600])
    def test_next_to_nothing_is_a_clear_error(self, tmp_path, size):
        file = write_bag(tmp_path / "bag", cameras(2)) / "bag.mcap"
        file.write_bytes(file.read_bytes()[:size])
        with pytest.raises(BagError, match="bag"):
            open_bag(file)


class TestTopics:
    @pytest.mark.parametrize(
        ("name", "modality"),
        [
            ("/camera/color/image_raw", Modality.RGB),
            ("/rgb/image", Modality.RGB),
            ("/aligned_depth_to_color/image_raw", Modality.DEPTH),
            ("/flir/ir/image", Modality.THERMAL),
            ("/LWIR/image", Modality.THERMAL),
            ("/thermal_left/image", Modality.THERMAL),
            ("/camera/infra1/image_rect_raw", None),  # near infrared of a stereo camera
            ("/first/third/image", None),
            ("/fusion/fused/image", None),
        ],
    )
    def test_names_speak(self, name, modality):
        assert modality_of(name) is modality

    def test_encodings_speak_where_names_do_not(self, tmp_path):
        names = {"rgb": "/a", "depth": "/b", "thermal": "/c"}
        renamed = {TOPICS[key]: name for key, name in names.items()}
        messages = [(renamed[topic], *rest) for topic, *rest in cameras(2)]
        bag = open_bag(write_bag(tmp_path / "bag", messages))
        assert {m.value: topic.name for m, topic in bag.topics.items()} == names

    def test_raw_is_preferred_to_its_compressed_transport(self, tmp_path):
        messages = sorted(cameras(2) + cameras(2, compressed=True)[::3], key=lambda m: m[2])
        bag = open_bag(write_bag(tmp_path / "bag", messages))
        assert bag.topics[Modality.RGB].name == TOPICS["rgb"]

    def test_two_of_a_kind_are_not_guessed(self, tmp_path):
        extra = image(pictures(0, (48, 64))["rgb"], "rgb8", START)
        path = write_bag(tmp_path / "bag", [*cameras(2), ("/left/rgb/image", IMAGE, START, extra)])
        with pytest.raises(BagError, match=r"several topics could be rgb.*--rgb-topic") as caught:
            open_bag(path)
        table = str(caught.value).splitlines()[1:]
        columns = [line.split() for line in table]
        assert columns[0][:6] == ["topic", "type", "encoding", "size", "messages", "rate"]
        row = next(line for line in columns if line[0] == "/left/rgb/image")
        assert row[1:5] == [IMAGE, "rgb8", "64x48", "1"]
        assert row[-2:] == ["--rgb-topic", "/left/rgb/image"]
        row = next(line for line in columns if line[0] == TOPICS["depth"])
        # Two messages, from the first to the last one of the bag 105 ms later.
        assert row[3:] == ["64x48", "2", "9.5", "Hz", "depth", "(name)", "--depth-topic", row[0]]
        bag = open_bag(path, {Modality.RGB: "left/rgb/image"})
        assert bag.topics[Modality.RGB].name == "/left/rgb/image"

    def test_a_missing_camera_must_be_renounced(self, tmp_path):
        path = write_bag(tmp_path / "bag", [m for m in cameras(2) if m[0] != TOPICS["thermal"]])
        with pytest.raises(BagError, match=r"no topic looks like thermal.*--without thermal"):
            open_bag(path)
        bag = open_bag(path, without=frozenset({Modality.THERMAL}))
        assert set(bag.topics) == {Modality.RGB, Modality.DEPTH}

    @pytest.mark.parametrize(
        ("name", "message"),
        [("/nothing", "has no topic /nothing"), ("/info", "no usable pictures")],
    )
    def test_a_wrong_name_is_said(self, tmp_path, name, message):
        from bags import header

        info = ("/info", "std_msgs/msg/Header", START, header(START))
        path = write_bag(tmp_path / "bag", [*cameras(2), info])
        with pytest.raises(BagError, match=message):
            open_bag(path, {Modality.RGB: name})


@pytest.mark.parametrize("name", ["", "text.txt", "folder"])
def test_what_is_no_bag_is_said(tmp_path, name):
    (tmp_path / "text.txt").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(BagError, match=r"no bag|bag at"):
        open_bag(tmp_path / (name or "missing"))


class TestRecorded:
    @pytest.mark.parametrize(("name", "sets"), [("mcap", 12), ("sqlite3", 3)])
    def test_real_pictures(self, shared_dir, name, sets):
        frames, report = read(shared_dir / "data" / "bags" / f"rgbdt_mm5_{name}")
        assert len(frames) == 3 * sets
        assert report == ReadingReport()

    def test_first_ros2_type_names(self, shared_dir):
        path = shared_dir / "data" / "bags" / "rosbag2js_sample_single_image" / "sample.db3"
        with pytest.raises(BagError, match=r"sensor_msgs/msg/Image +\S+ +\S+ +1 "):
            open_bag(path, {Modality.RGB: "/nothing"})

    @pytest.mark.parametrize("name", ["mcap", "sqlite3"])
    def test_malformed_pictures_are_read_as_they_are(self, shared_dir, name):
        path = shared_dir / "data" / "bags" / f"geocam_all_types_{name}"
        topics = {Modality.RGB: "/test/sensor_msgs/image"}
        frames, _ = read(path, topics=topics, without=frozenset({Modality.DEPTH, Modality.THERMAL}))
        assert len(frames) == 2


def test_stamps_of_all_rgb_messages(tmp_path):
    messages = cameras(4)
    messages[3] = (*messages[3][:3], b"\x00\x01")  # the second RGB message is none
    bag = open_bag(write_bag(tmp_path / "bag", messages))
    assert rgb_stamps(bag) == [START, None, START + 2 * PERIOD, START + 3 * PERIOD]


def test_stamps_that_were_not_given_are_log_times(tmp_path):
    bag = open_bag(write_bag(tmp_path / "bag", cameras(2, stamps=False)))
    assert rgb_stamps(bag) == [START + 1_000_000, START + PERIOD + 1_000_000]


def rgb_info(bag):
    return camera_info_beside(bag, Modality.RGB)


@pytest.mark.parametrize("compressed", [False, True])
def test_the_camera_info_beside_the_images(tmp_path, compressed):
    messages = cameras(2, compressed=compressed)
    assert rgb_info(open_bag(write_bag(tmp_path / "without", messages))) is None
    infos = [
        camera_info("/camera/depth/camera_info", 9.0),
        camera_info("/camera/color/camera_info", 5.0),
    ]
    bag = open_bag(write_bag(tmp_path / "bag", infos + messages))
    assert rgb_info(bag).k[0] == 5.0
    assert camera_info_beside(bag, Modality.DEPTH).k[0] == 9.0
    assert camera_info_beside(bag, Modality.THERMAL) is None
    old = open_bag(write_ros1_bag(tmp_path / "old.bag", infos + messages))
    assert rgb_info(old) == rgb_info(bag)


def test_a_damaged_camera_info_is_none(tmp_path):
    damaged = (*camera_info("/camera/color/camera_info", 5.0)[:3], b"\x00\x01")
    assert rgb_info(open_bag(write_bag(tmp_path / "bag", [damaged, *cameras(2)]))) is None
