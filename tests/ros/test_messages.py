"""Messages in and out, without a node."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

pytestmark = pytest.mark.ros

pytest.importorskip("sensor_msgs.msg", reason="ROS 2 messages are not installed")
pytest.importorskip("mmfusion_msgs.msg", reason="mmfusion_msgs is not built")

from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from mmfusion_ros.core.frames import Absence, Companion, Frame, FrameSet, Modality, SourceImage
from mmfusion_ros.core.images import view
from mmfusion_ros.core.results import Results
from mmfusion_ros.core.rig import Camera
from mmfusion_ros.messages import (
    camera_info_message,
    frame_from_message,
    header_of,
    image_message,
    set_stamp,
    stamp_ns,
    status_message,
)

STAMP = 1_700_000_000_123_456_789
CAMERA = Camera(
    640, 480, (500.0, 0.0, 320.0, 0.0, 510.0, 240.0, 0.0, 0.0, 1.0), (), (0, 0, 0), (0, 0, 0, 1), 0
)


def header(stamp: int = STAMP, frame_id: str = "rgb_optical_frame") -> Header:
    made = Header(frame_id=frame_id)
    set_stamp(made, stamp)
    return made


@pytest.mark.parametrize("stamp", [0, 1, 999_999_999, STAMP, (2**31 - 1) * 10**9 + 5])
def test_stamps_survive_to_the_nanosecond(stamp):
    assert stamp_ns(header(stamp)) == stamp


@pytest.mark.parametrize(
    ("array", "encoding", "step"),
    [
        (np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3), "rgb8", 9),
        (np.arange(6, dtype=np.uint8).reshape(2, 3), "mono8", 3),
        (np.arange(6, dtype=np.uint16).reshape(2, 3) * 257, "mono16", 6),
        (np.linspace(0, 9, 6, dtype=np.float32).reshape(2, 3), "32FC1", 12),
        (np.arange(2 * 6 * 3, dtype=np.uint8).reshape(2, 6, 3)[:, ::2], "rgb8", 9),
    ],
)
def test_an_image_comes_back_as_it_was(array, encoding, step):
    message = image_message(array, encoding, header())
    assert (message.height, message.width, message.step) == (2, 3, step)
    assert len(message.data) == 2 * step
    frame = frame_from_message(message, Modality.RGB)
    np.testing.assert_array_equal(view(frame.image), array)


def test_a_frame_refers_to_the_message():
    message = image_message(np.zeros((4, 5, 3), np.uint8), "rgb8", header())
    frame = frame_from_message(message, Modality.RGB)
    assert frame.image.data is message.data
    assert (frame.stamp_ns, frame.frame_id) == (STAMP, "rgb_optical_frame")
    assert frame.fingerprint is None
    assert header_of(frame) == message.header


@pytest.mark.parametrize("modality", [Modality.DEPTH, Modality.THERMAL])
def test_depth_and_thermal_are_recognised_again(modality):
    first, second = np.full((4, 5), 300, np.uint16), np.full((4, 5), 301, np.uint16)
    prints = [
        frame_from_message(image_message(array, "mono16", header()), modality).fingerprint
        for array in (first, first, second)
    ]
    assert prints[0] == prints[1] != prints[2]


def test_a_damaged_image_is_a_frame_all_the_same():
    message = image_message(np.zeros((4, 5), np.uint16), "mono16", header())
    message.data = message.data[:7]
    assert frame_from_message(message, Modality.THERMAL).fingerprint is not None


def test_camera_info_is_passed_on_with_the_frames_header():
    received = CameraInfo(height=480, width=640, header=header(1))
    received.k[0] = 123.0
    info = camera_info_message(received, CAMERA, (480, 640), header())
    assert (info.k[0], stamp_ns(info.header)) == (123.0, STAMP)
    assert stamp_ns(received.header) == 1


def test_pixels_of_the_other_byte_order_are_sent_in_this_ones():
    swapped = image_message(np.full((2, 3), 259, ">u2"), "mono16", header())
    assert swapped.data == image_message(np.full((2, 3), 259, "<u2"), "mono16", header()).data
    assert not swapped.is_bigendian


@pytest.mark.parametrize("received", [None, CameraInfo(height=1, width=1)])
def test_camera_info_is_the_rigs_if_none_fits(received):
    info = camera_info_message(received, CAMERA, (480, 640), header())
    assert (info.height, info.width) == (480, 640)
    np.testing.assert_array_equal(info.k, CAMERA.camera_matrix)
    np.testing.assert_array_equal(info.p, [500, 0, 320, 0, 0, 510, 240, 0, 0, 0, 1, 0])
    assert list(info.d) == [0.0] * 5


def frame(modality: Modality) -> Frame:
    return Frame(modality, STAMP, "rgb_optical_frame", SourceImage(b"", 0, 0, "", 0))


def status(present, depth, thermal, *, latency_ns=5_000_000, inputs=("rgb", "depth", "thermal")):
    results = Results(
        frames=FrameSet(frame(Modality.RGB), depth, thermal),
        fused=np.zeros((2, 2, 3), np.uint8),
        registered_thermal=None,
        thermal_range=(0.0, 1.0),
        present=frozenset(present),
        stages={"prepare": 0.001, "engine": 0.002},
        problems={},
    )
    artifact = SimpleNamespace(
        name="a", inputs=inputs, expected_quality=lambda present: {"modalities": len(present)}
    )
    engine = SimpleNamespace(backend="b", precision="p")
    stages = {**results.stages, "publish": 0.003}
    return status_message(
        results, artifact, engine, stages=stages, latency_ns=latency_ns, sets_dropped=7
    )


def test_status_says_who_took_part_and_why_not():
    depth = Companion(frame(Modality.DEPTH), None, 2_000_000)
    thermal = Companion(None, Absence.FROZEN, -3_000_000)
    message = status({Modality.RGB, Modality.DEPTH}, depth, thermal)
    parts = [(m.name, m.used, m.reason, m.age) for m in message.modalities]
    assert parts == [
        ("rgb", True, "", 0.0),
        ("depth", True, "", 0.002),
        ("thermal", False, "frozen", -0.003),
    ]
    assert (message.artifact, message.backend, message.precision) == ("a", "b", "p")
    assert list(message.stage_names) == ["prepare", "engine", "publish"]
    assert list(message.stage_durations) == [0.001, 0.002, 0.003]
    assert (message.latency, message.sets_dropped) == (0.005, 7)
    assert (list(message.quality_names), list(message.quality_values)) == (["modalities"], [2.0])
    assert stamp_ns(message.header) == STAMP


def test_status_of_a_damaged_rgb_image_and_cameras_unknown():
    nothing = Companion(None, Absence.ABSENT, None)
    message = status(set(), nothing, nothing, latency_ns=-(10**12), inputs=("rgb", "thermal"))
    rgb, thermal = message.modalities
    assert (rgb.name, rgb.used, rgb.reason) == ("rgb", False, "invalid")
    assert (thermal.name, thermal.reason) == ("thermal", "absent")
    assert math.isnan(thermal.age)
    assert math.isnan(message.latency)
