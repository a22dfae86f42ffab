"""Saliency and detections over real DDS, from a node in a process of its own."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

pytestmark = pytest.mark.ros

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("mmfusion_msgs.msg", reason="mmfusion_msgs is not built")
pytest.importorskip("vision_msgs.msg", reason="vision_msgs is not built")
pytest.importorskip("onnx", reason="onnx is not installed")

from artifacts import CANDIDATES, write_artifact, write_rig
from nodes import MS, PATIENT, SECOND, SIZE, Peer, node_process, pictures, pixels
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header
from visualization_msgs.msg import Marker

from mmfusion_ros.core.detections import MOST_DETECTIONS, suppress
from mmfusion_ros.core.overlay import draw_overlay
from mmfusion_ros.messages import image_message, set_stamp

START = itertools.count(1000 * SECOND, 1000 * SECOND)
FOUND = ("saliency/mask", "detections", "detections_3d", "markers", "overlay/image")


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    return write_rig(tmp_path_factory.mktemp("rig") / "rig.yaml", SIZE)


@pytest.fixture(scope="module")
def node(rig, tmp_path_factory):
    folder = tmp_path_factory.mktemp("node")
    artifact = write_artifact(folder / "all", saliency=True, detections=True)
    with node_process(artifact, rig, folder / "log", **PATIENT) as process:
        yield process


@pytest.fixture
def warm(node):
    """A peer that is connected both ways; stamps from here on are free."""
    peer = Peer()
    peer.advertise()
    peer.listen(*FOUND, "fused/image", "status")
    set_min_score(peer, 0.5)
    peer.stamp = peer.warm_up(next(START), **pictures(0))
    yield peer
    peer.close()


def next_stamp(peer: Peer) -> int:
    peer.stamp += 100 * MS
    return peer.stamp


def set_min_score(peer: Peer, value: float) -> None:
    parameter = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=value)
    assert peer.set_parameter(Parameter(name="min_score", value=parameter)).successful


def told(message) -> list[tuple[str, float]]:
    """Class and score of each detection."""
    return [
        (entry.results[0].hypothesis.class_id, round(entry.results[0].hypothesis.score, 4))
        for entry in message.detections
    ]


def test_all_that_was_found_belongs_to_the_rgb_frame(warm):
    stamp, sent = next_stamp(warm) + 12_345_678, pictures(1)
    warm.send(stamp, **sent)
    got = {name: warm.got(name, stamp) for name in (*FOUND, "fused/image", "status")}

    mask = got["saliency/mask"]
    assert mask.encoding == "mono8"
    np.testing.assert_array_equal(pixels(mask)[..., 0], sent["thermal"] & 0xFF)

    flat = got["detections"]
    assert told(flat) == [("person", 0.9), ("car", 0.8)]
    person = flat.detections[0]
    assert (person.bbox.center.position.x, person.bbox.center.position.y) == (16, 16)
    assert (person.bbox.size_x, person.bbox.size_y, person.id) == (16, 24, "")

    solid = got["detections_3d"]
    assert told(solid) == [("person", 0.9)]  # the other one has no depth
    centre, size = solid.detections[0].bbox.center.position, solid.detections[0].bbox.size
    # Focal length 64, principal point (32, 24), 3 m away.
    expected = ((15.5 - 32) / 64 * 3, (15.5 - 24) / 64 * 3, 3)
    assert (centre.x, centre.y, centre.z) == pytest.approx(expected)
    assert (size.x, size.y, size.z) == pytest.approx((16 / 64 * 3, 24 / 64 * 3, 0))

    clear, frame, text = got["markers"].markers
    assert clear.action == Marker.DELETEALL
    assert (frame.type, frame.ns, text.type) == (
        Marker.LINE_STRIP,
        "boxes",
        Marker.TEXT_VIEW_FACING,
    )
    assert text.text == "person 0.90 3.0 m"
    assert frame.lifetime.sec == 1
    assert (frame.pose.position.x, frame.pose.position.z) == pytest.approx((expected[0], 3))

    fused = pixels(got["fused/image"])
    settings = {"min_score": 0.5, "iou": 0.5, "limit": MOST_DETECTIONS, "size": SIZE}
    found = suppress(*CANDIDATES.values(), **settings)
    drawn = draw_overlay(fused, pixels(mask)[..., 0], found, ("person", "car"))
    np.testing.assert_array_equal(pixels(got["overlay/image"]), drawn)

    assert list(got["status"].stage_names) == ["prepare", "engine", "detections", "publish"]
    for message in (mask, flat, person, solid, solid.detections[0], clear, frame, text):
        assert message.header.frame_id == "rgb_frame"
        assert message.header.stamp == got["fused/image"].header.stamp


def test_the_least_score_can_be_changed(warm):
    counts = {}
    for value in (0.2, 0.85, 0.95):
        set_min_score(warm, value)
        stamp = next_stamp(warm)
        warm.send(stamp, **pictures(2))
        counts[value] = told(warm.got("detections", stamp))
        warm.got("detections_3d", stamp)
        if not counts[value]:
            (clear,) = warm.got("markers", stamp).markers  # what was shown before vanishes
            assert clear.action == Marker.DELETEALL
    assert counts == {
        0.2: [("person", 0.9), ("car", 0.8), ("person", 0.3)],
        0.85: [("person", 0.9)],
        0.95: [],
    }


def test_the_camera_knows_its_focal_length_better_than_the_rig(warm):
    publisher = warm.node.create_publisher(CameraInfo, "rgb/camera_info", 5)
    warm.until(publisher.get_subscription_count, "the node to subscribe to camera_info")
    info = CameraInfo(height=SIZE[0], width=SIZE[1], distortion_model="plumb_bob")
    info.k = [32.0, 0.0, 32.0, 0.0, 32.0, 24.0, 0.0, 0.0, 1.0]

    def used() -> bool:
        stamp = next_stamp(warm)
        set_stamp(info.header, stamp)
        publisher.publish(info)
        warm.send(stamp, **pictures(3))
        (found,) = warm.got("detections_3d", stamp).detections
        return found.bbox.size.x == pytest.approx(16 / 32 * 3)

    warm.until(used, "the camera's focal length")


def test_without_a_usable_rgb_image_there_is_nothing_but_status(warm):
    stamp, sent = next_stamp(warm), pictures(4)
    damaged = image_message(sent["rgb"], "rgb8", Header())
    damaged.data = damaged.data[:100]
    warm.send(stamp, **{**sent, "rgb": damaged})
    warm.got("status", stamp)
    after = next_stamp(warm)
    warm.send(after, **sent)
    for name in FOUND:
        warm.got(name, after)
        assert stamp not in warm.received[name]


def test_only_what_the_artifact_has_is_advertised(rig, tmp_path):
    peer = Peer(namespace="/lean")
    artifact = write_artifact(tmp_path / "lean", detections=True, box_depth=False)
    try:
        with node_process(artifact, rig, tmp_path / "log", "/lean", **PATIENT, min_score=0.5):
            peer.advertise()
            peer.listen("detections")
            stamp = peer.warm_up(next(START), **pictures(5))
            peer.send(stamp, **pictures(5))
            assert told(peer.got("detections", stamp)) == [("person", 0.9), ("car", 0.8)]
            there = {
                name for name in FOUND if peer.node.count_publishers(f"/lean/fusion_node/{name}")
            }
            assert there == {"detections", "overlay/image"}
    finally:
        peer.close()


def test_the_pass_through_engine_finds_nothing(rig, tmp_path):
    peer = Peer(namespace="/through")
    artifact = write_artifact(tmp_path / "all", saliency=True, detections=True)
    options = {**PATIENT, "backend": "pass_through", "min_score": 0.0}
    try:
        with node_process(artifact, rig, tmp_path / "log", "/through", **options):
            peer.advertise()
            peer.listen("detections", "saliency/mask", "overlay/image")
            stamp, sent = peer.warm_up(next(START), **pictures(6)), pictures(6)
            peer.send(stamp, **sent)
            assert told(peer.got("detections", stamp)) == []
            assert not pixels(peer.got("saliency/mask", stamp)).any()
            overlay = pixels(peer.got("overlay/image", stamp))
            np.testing.assert_array_equal(overlay, sent["rgb"])
    finally:
        peer.close()
