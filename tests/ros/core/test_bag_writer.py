"""The result bag holds what it should, for every reader, and nothing that changes by itself."""

from __future__ import annotations

import dataclasses
import errno
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from bags import START, cameras, pictures, write_bag
from rosbags.highlevel import AnyReader

from mmfusion_ros import topics
from mmfusion_ros.core.bag_reader import ReadingReport, open_bag, read_frames
from mmfusion_ros.core.bag_writer import STATUS, ResultWriter, types_written
from mmfusion_ros.core.camera_info import camera_info_of
from mmfusion_ros.core.detections import Detections
from mmfusion_ros.core.detections_3d import Intrinsics
from mmfusion_ros.core.frames import Absence, Companion, FrameSet, Modality
from mmfusion_ros.core.overlay import draw_overlay
from mmfusion_ros.core.results import Results
from mmfusion_ros.core.rig import Camera
from mmfusion_ros.message_definitions import typestore_for
from mmfusion_ros.replay_session import RESULT_TOPICS

SIZE = (48, 64)
QUALITY = {frozenset({Modality.RGB}): {"vif": 0.25}}
ARTIFACT = SimpleNamespace(
    name="tiny",
    inputs=dict.fromkeys(["rgb", "depth", "thermal"]),
    outputs=dict.fromkeys(["fused", "registered_thermal"]),
    classes=(),
    expected_quality=lambda present: QUALITY.get(present, {}),
)
ENGINE = SimpleNamespace(backend="onnxruntime", precision="fp32")


def results(tmp_path: Path, *, compressed: bool = False, thermal: bool = True) -> Results:
    path = tmp_path / f"input{compressed:d}"
    if not path.exists():
        write_bag(path, cameras(1, compressed=compressed))
    frames = {f.modality: f for f, _ in read_frames(open_bag(path), ReadingReport())}
    absent = Companion(None, Absence.STALE, None)
    shown = Companion(frames[Modality.THERMAL], None, -3_000_000) if thermal else absent
    present = {Modality.RGB, Modality.THERMAL} if thermal else {Modality.RGB}
    return Results(
        frames=FrameSet(frames[Modality.RGB], Companion(None, Absence.LATE, 5_000_000), shown),
        fused=pictures(7, SIZE)["rgb"],
        registered_thermal=pictures(7, SIZE)["thermal"].astype(np.uint8),
        thermal_range=(0.0, 1.0),
        present=frozenset(present),
        stages={"prepare": 0.1, "engine": 0.2},
        problems={},
    )


def write(folder: Path, *steps: Results) -> Path:
    with ResultWriter(folder, typestore_for(STATUS), ARTIFACT, ENGINE, RESULT_TOPICS) as writer:
        for number, step in enumerate(steps):
            writer.write(step, START + number)
    return folder


def read(folder: Path) -> list:
    with AnyReader([folder]) as reader:
        return [
            (connection.topic, log_time, reader.deserialize(data, connection.msgtype))
            for connection, log_time, data in reader.messages()
        ]


def test_the_messages_of_a_set(tmp_path):
    step = results(tmp_path)
    messages = read(write(tmp_path / "result", step))
    assert [topic for topic, *_ in messages] == [
        "/fused/image",
        "/rgb/image",
        "/registered_thermal/image",
        "/status",
    ]
    for _, log_time, message in messages:
        assert log_time == START
        stamp = message.header.stamp
        assert stamp.sec * 10**9 + stamp.nanosec == step.frames.stamp_ns
        assert message.header.frame_id == "optical"
    fused, rgb, thermal, status = (message for *_, message in messages)
    assert (fused.encoding, fused.height, fused.width, fused.step) == ("rgb8", 48, 64, 192)
    np.testing.assert_array_equal(fused.data.reshape(48, 64, 3), step.fused)
    np.testing.assert_array_equal(rgb.data, step.frames.rgb.image.data)
    assert (thermal.encoding, thermal.step) == ("mono8", 64)
    assert (status.artifact, status.backend, status.precision) == ("tiny", "onnxruntime", "fp32")
    seen = [(entry.name, entry.used, entry.reason) for entry in status.modalities]
    assert seen == [("rgb", True, ""), ("depth", False, "late"), ("thermal", True, "")]
    assert [round(entry.age * 1e3) for entry in status.modalities] == [0, 5, -3]
    assert not status.stage_names
    assert math.isnan(status.latency)


def test_compressed_colour_stays_as_it_is(tmp_path):
    step = results(tmp_path, compressed=True)
    messages = {topic: message for topic, _, message in read(write(tmp_path / "result", step))}
    message = messages["/rgb/image/compressed"]
    assert message.format == "jpeg"
    assert bytes(message.data) == bytes(step.frames.rgb.image.data)


def test_the_status_of_an_absent_camera(tmp_path):
    messages = read(write(tmp_path / "result", results(tmp_path, thermal=False)))
    status = messages[-1][2]
    assert math.isnan(status.modalities[2].age)
    assert (status.quality_names, list(status.quality_values)) == (["vif"], [0.25])


def test_without_a_colour_image_there_are_no_pictures(tmp_path):
    damaged = dataclasses.replace(results(tmp_path), present=frozenset({Modality.THERMAL}))
    messages = read(write(tmp_path / "result", damaged))
    assert [topic for topic, *_ in messages] == ["/status"]
    assert messages[-1][2].modalities[0].reason == "invalid"


def test_the_same_results_give_the_same_bytes(tmp_path):
    steps = [results(tmp_path), results(tmp_path, thermal=False)]
    # Another duration is the same result.
    again = [dataclasses.replace(step, stages={"engine": 9.0}) for step in steps]
    first = write(tmp_path / "one" / "result", *steps)
    second = write(tmp_path / "two" / "result", *again)
    for name in ("result.mcap", "metadata.yaml"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_an_error_still_leaves_a_complete_bag(tmp_path):
    def write_and_fail() -> None:
        with ResultWriter(
            tmp_path / "result", typestore_for(STATUS), ARTIFACT, ENGINE, RESULT_TOPICS
        ) as writer:
            writer.write(results(tmp_path), START)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_fail()
    assert len(read(tmp_path / "result")) == 4


@pytest.mark.parametrize("name", ["write", "close"])
def test_a_full_disk_keeps_what_was_written(tmp_path, monkeypatch, name):
    step = results(tmp_path)
    folder, store = tmp_path / "result", typestore_for(STATUS)
    writer = ResultWriter(folder, store, ARTIFACT, ENGINE, RESULT_TOPICS)
    writer.write(step, START)
    writer._writer.storage.close_chunk()

    def full(*_) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def fill_disk() -> None:
        monkeypatch.setattr(type(writer._writer.storage), name, full)
        with writer:
            writer.write(step, START + 1)

    with pytest.raises(OSError, match="No space left"):
        fill_disk()
    monkeypatch.undo()
    bag = open_bag(tmp_path / "result", without=frozenset({Modality.DEPTH, Modality.THERMAL}))
    report = ReadingReport()
    assert [log_time for _, log_time in read_frames(bag, report)] == [START]
    assert "ends early" in report.error


def test_the_names_are_those_of_the_node():
    assert vars(RESULT_TOPICS) == {
        "fused": "/fused/image",
        "fused_info": "/fused/camera_info",
        "registered_thermal": "/registered_thermal/image",
        "saliency": "/saliency/mask",
        "detections": "/detections",
        "detections_3d": "/detections_3d",
        "markers": "/markers",
        "overlay": "/overlay/image",
        "status": "/status",
        "rgb": "/rgb/image",
    }
    assert {f"~{name}" for name in vars(RESULT_TOPICS).values()} - {"~/rgb/image"} == {
        topic.name for topic in topics.PER_FRAME
    }


def test_the_definition_is_the_installed_one(tmp_path, repo_root):
    folder = write(tmp_path / "result", results(tmp_path))
    with AnyReader([folder]) as reader:
        status = reader.topics["/status"]
    source = repo_root / "ros2_ws/src/mmfusion_msgs/msg/FrameStatus.msg"
    for line in source.read_text().splitlines():
        declaration = line.partition("#")[0].split()
        if declaration:
            assert " ".join(declaration) in status.msgdef.data


def test_ros_reads_the_status(tmp_path):
    rclpy = pytest.importorskip("rclpy.serialization", reason="ROS 2 is not installed")
    messages = pytest.importorskip("mmfusion_msgs.msg", reason="messages are not built")
    folder = write(tmp_path / "result", results(tmp_path))
    with AnyReader([folder]) as reader:
        (connection,) = reader.topics["/status"].connections
        ((_, _, data),) = reader.messages([connection])
    status = rclpy.deserialize_message(bytes(data), messages.FrameStatus)
    assert status.artifact == "tiny"
    assert [entry.name for entry in status.modalities] == ["rgb", "depth", "thermal"]


DETECTING = SimpleNamespace(
    **{
        **vars(ARTIFACT),
        "outputs": dict.fromkeys(["fused", "saliency", "boxes", "scores", "classes", "box_depth"]),
        "classes": ("person", "car"),
    }
)
PINHOLE = Intrinsics((64.0, 0.0, 31.5, 0.0, 64.0, 23.5, 0.0, 0.0, 1.0), ())

CAMERA = Camera(
    64, 48, (64.0, 0.0, 31.5, 0.0, 64.0, 23.5, 0.0, 0.0, 1.0), (), (0, 0, 0), (0, 0, 0, 1), 0
)
INFO = camera_info_of(CAMERA)


def found(tmp_path: Path) -> Results:
    detections = Detections(
        boxes=np.array([[8, 4, 24, 28], [30, 10, 50, 40]], np.float32),
        scores=np.array([0.75, 0.5], np.float32),
        classes=np.array([1, 0], np.int32),
        depths=np.array([2.0, np.nan], np.float32),
    )
    saliency = np.arange(48 * 64, dtype=np.uint8).reshape(SIZE)
    return dataclasses.replace(
        results(tmp_path), registered_thermal=None, saliency=saliency, detections=detections
    )


def write_found(folder: Path, tmp_path: Path, intrinsics: Intrinsics | None = PINHOLE) -> Path:
    store = typestore_for(*types_written(DETECTING))
    with ResultWriter(
        folder,
        store,
        DETECTING,
        ENGINE,
        RESULT_TOPICS,
        camera_info=INFO,
        intrinsics=intrinsics,
    ) as writer:
        writer.write(found(tmp_path), START)
    return folder


def test_what_was_found(tmp_path):
    step = found(tmp_path)
    folder = write_found(tmp_path / "result", tmp_path)
    messages = {topic: message for topic, _, message in read(folder)}
    assert set(messages) == {
        *("/fused/image", "/rgb/image", "/status", "/saliency/mask", "/overlay/image"),
        *("/detections", "/detections_3d", "/markers", "/fused/camera_info"),
    }
    mask, overlay = messages["/saliency/mask"], messages["/overlay/image"]
    assert (mask.encoding, mask.step) == ("mono8", 64)
    np.testing.assert_array_equal(mask.data.reshape(SIZE), step.saliency)
    expected = draw_overlay(step.fused, step.saliency, step.detections, DETECTING.classes)
    np.testing.assert_array_equal(overlay.data.reshape(expected.shape), expected)
    first, second = messages["/detections"].detections
    assert (first.bbox.center.position.x, first.bbox.center.position.y) == (16, 16)
    assert (first.bbox.size_x, first.bbox.size_y, first.id) == (16, 24, "")
    (hypothesis,) = (entry.hypothesis for entry in first.results)
    assert (hypothesis.class_id, hypothesis.score) == ("car", 0.75)
    assert second.results[0].hypothesis.class_id == "person"
    (placed,) = messages["/detections_3d"].detections
    centre, size = placed.bbox.center.position, placed.bbox.size
    assert (centre.x, centre.y, centre.z) == (-0.5, -0.25, 2.0)
    assert (size.x, size.y, size.z) == (0.5, 0.75, 0.0)
    assert placed.results[0].hypothesis.class_id == "car"
    assert placed.results[0].pose.pose.position == centre
    info = messages["/fused/camera_info"]
    assert (info.height, info.width, info.distortion_model) == (48, 64, "plumb_bob")
    assert (info.k.tolist(), info.d.tolist()) == (list(CAMERA.camera_matrix), [0.0] * 5)
    marks = messages.pop("/markers").markers
    assert [mark.ns for mark in marks] == ["", "boxes", "labels"]
    assert marks[2].text.startswith("car 0.75")
    for message in (*messages.values(), *marks, first, placed):
        assert message.header == messages["/fused/image"].header


def test_without_intrinsics_nothing_is_placed(tmp_path):
    folder = write_found(tmp_path / "result", tmp_path, intrinsics=None)
    topics_written = {topic for topic, *_ in read(folder)}
    assert "/detections" in topics_written
    assert not {"/detections_3d", "/markers"} & topics_written


def test_what_was_found_gives_the_same_bytes_again(tmp_path):
    first, second = (write_found(tmp_path / n / "result", tmp_path) for n in ("one", "two"))
    assert (first / "result.mcap").read_bytes() == (second / "result.mcap").read_bytes()


def test_ros_reads_the_detections(tmp_path):
    rclpy = pytest.importorskip("rclpy.serialization", reason="ROS 2 is not installed")
    messages = pytest.importorskip("vision_msgs.msg", reason="vision_msgs is not built")
    folder = write_found(tmp_path / "result", tmp_path)
    with AnyReader([folder]) as reader:
        for topic, kind in (
            ("/detections", messages.Detection2DArray),
            ("/detections_3d", messages.Detection3DArray),
        ):
            ((_, _, data),) = reader.messages(reader.topics[topic].connections)
            message = rclpy.deserialize_message(bytes(data), kind)
            assert message.detections[0].results[0].hypothesis.class_id == "car"


def test_camera_info_and_markers_are_those_of_the_node(tmp_path):
    rclpy = pytest.importorskip("rclpy.serialization", reason="ROS 2 is not installed")
    pytest.importorskip("vision_msgs.msg", reason="vision_msgs is not built")
    from sensor_msgs.msg import CameraInfo
    from visualization_msgs.msg import MarkerArray

    from mmfusion_ros.core.detections_3d import place
    from mmfusion_ros.detection_messages import markers_message
    from mmfusion_ros.messages import camera_info_message, header_of

    step = found(tmp_path)
    header = header_of(step.frames.rgb)
    live = {
        "/markers": markers_message(
            step.detections, place(step.detections, PINHOLE), DETECTING.classes, header
        ),
        "/fused/camera_info": camera_info_message(None, CAMERA, SIZE, header),
    }
    kinds = {"/markers": MarkerArray, "/fused/camera_info": CameraInfo}
    with AnyReader([write_found(tmp_path / "result", tmp_path)]) as reader:
        for topic, kind in kinds.items():
            ((_, _, data),) = reader.messages(reader.topics[topic].connections)
            sent = rclpy.serialize_message(live[topic])  # which rounds colours to float32
            told = rclpy.deserialize_message(bytes(data), kind)
            assert told == rclpy.deserialize_message(sent, kind)
