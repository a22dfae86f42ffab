"""What was found as messages, without a node."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.ros

pytest.importorskip("vision_msgs.msg", reason="vision_msgs is not built")
pytest.importorskip("visualization_msgs.msg", reason="ROS 2 messages are not installed")

from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header
from visualization_msgs.msg import Marker

from mmfusion_ros.core.detections import Detections
from mmfusion_ros.core.detections_3d import Intrinsics, place
from mmfusion_ros.core.overlay import class_colour
from mmfusion_ros.detection_messages import (
    detections_2d_message,
    detections_3d_message,
    markers_message,
)

NAMES = ("person", "car")
HEADER = Header(frame_id="rgb_optical_frame")
PINHOLE = Intrinsics((100.0, 0.0, 99.5, 0.0, 100.0, 49.5, 0.0, 0.0, 1.0), ())


def found(*depths: float) -> Detections:
    count = len(depths)
    return Detections(
        boxes=np.tile(np.array([80, 40, 120, 60], np.float32), (count, 1)),
        scores=np.linspace(0.875, 0.5, count, dtype=np.float32),
        classes=np.arange(count, dtype=np.int32) % 2,
        depths=np.array(depths, np.float32),
    )


def again(message):
    """As it arrives on the other side."""
    return deserialize_message(serialize_message(message), type(message))


def test_boxes_in_pixels():
    message = again(detections_2d_message(found(2.0, np.nan), NAMES, HEADER))
    assert message.header == HEADER
    assert [d.results[0].hypothesis.class_id for d in message.detections] == ["person", "car"]
    assert [d.results[0].hypothesis.score for d in message.detections] == [0.875, 0.5]
    for detection in message.detections:
        assert detection.header == HEADER
        assert (detection.bbox.center.position.x, detection.bbox.center.position.y) == (100, 50)
        assert (detection.bbox.size_x, detection.bbox.size_y) == (40, 20)
        assert (detection.bbox.center.theta, detection.id) == (0.0, "")


def test_boxes_in_metres():
    detections = found(np.nan, 2.0)
    places = place(detections, PINHOLE)
    message = again(detections_3d_message(detections, places, NAMES, HEADER))
    (detection,) = message.detections
    assert detection.results[0].hypothesis.class_id == "car"
    position, size = detection.bbox.center.position, detection.bbox.size
    assert (position.x, position.y, position.z) == (0.0, 0.0, 2.0)
    assert (size.x, size.y, size.z) == pytest.approx((0.8, 0.4, 0.0))
    assert detection.results[0].pose.pose == detection.bbox.center
    assert detection.bbox.center.orientation.w == 1.0


def test_markers():
    detections = found(2.0, np.nan, 3.0)
    message = again(markers_message(detections, place(detections, PINHOLE), NAMES, HEADER))
    clear, *marks = message.markers
    assert clear.action == Marker.DELETEALL
    assert [(m.ns, m.id) for m in marks] == [(n, i) for i in (0, 1) for n in ("boxes", "labels")]
    frame, text = marks[:2]
    corners = [(point.x, point.y, point.z) for point in frame.points]
    assert corners[0] == corners[-1] == pytest.approx((-0.4, -0.2, 0))
    assert corners[2] == pytest.approx((0.4, 0.2, 0))
    assert frame.scale.x > 0
    assert [round(255 * c) for c in (frame.color.r, frame.color.g, frame.color.b)] == list(
        class_colour(0)
    )
    assert frame.color.a == 1.0
    assert text.text == "person 0.88 2.0 m"
    assert text.pose.position.y < frame.pose.position.y - 0.2  # above it: y points down
    assert marks[2].pose.position.z == 3.0
    for mark in message.markers:
        assert mark.header == HEADER
    assert all(mark.lifetime.sec > 0 and mark.action == Marker.ADD for mark in marks)


def test_nothing_found():
    none = found()
    places = place(none, PINHOLE)
    assert detections_2d_message(none, NAMES, HEADER).detections == []
    assert detections_3d_message(none, places, NAMES, HEADER).detections == []
    assert len(markers_message(none, places, NAMES, HEADER).markers) == 1
