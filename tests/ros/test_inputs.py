"""Subscriptions against real publishers that offer different things."""

from __future__ import annotations

import time

import pytest

pytestmark = pytest.mark.ros

rclpy = pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from mmfusion_ros.inputs import Input


@pytest.fixture
def node():
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("inputs", context=context)
    yield node
    node.destroy_node()
    rclpy.shutdown(context=context)


@pytest.mark.parametrize(
    ("offered", "asked"),
    [
        (["RELIABLE"], "reliable"),
        (["BEST_EFFORT"], "best_effort"),
        # Two publishers of one node: the weaker one must be heard too.
        (["BEST_EFFORT", "RELIABLE"], "best_effort"),
        (["RELIABLE", "BEST_EFFORT"], "best_effort"),
    ],
)
def test_asks_for_what_all_publishers_offer(node, offered, asked):
    for name in offered:
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy[name])
        node.create_publisher(Image, "image", qos)
    entry = Input(node, Image, "image", "reliable_if_offered", lambda _: None)
    deadline = time.monotonic() + 20
    while entry.status.publishers < len(offered):
        assert time.monotonic() < deadline, "publishers were not discovered"
        time.sleep(0.02)
        entry.poll()
    assert entry.status.reliability == asked
    entry.close()
