"""A process with one node runs the executor that it was told to."""

from __future__ import annotations

import contextlib
import sys

import pytest

pytestmark = pytest.mark.ros

rclpy = pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

from mmfusion_ros.core.errors import MmfusionError
from mmfusion_ros.spinning import spin


@pytest.fixture
def node():
    rclpy.init()
    node = rclpy.create_node("spun")
    yield node
    node.destroy_node()
    rclpy.try_shutdown()


def executor_of(node, kind):
    """What runs the callbacks of a node; its first one ends ROS."""
    seen = []

    def note():
        seen.append(type(node.executor))
        rclpy.try_shutdown()

    node.create_timer(0.01, note)
    with contextlib.suppress(ExternalShutdownException):
        spin(node, kind)
    return seen[0]


def test_single_threaded(node):
    assert executor_of(node, "single_threaded") is SingleThreadedExecutor


def test_events(node):
    pytest.importorskip("rclpy.experimental", reason="this distribution has no events executor")
    assert executor_of(node, "events").__name__ == "EventsExecutor"


def test_a_distribution_without_the_events_executor(node, monkeypatch):
    monkeypatch.setitem(sys.modules, "rclpy.experimental", None)
    with pytest.raises(MmfusionError, match="executor is 'events', which the rclpy of this distr"):
        spin(node, "events")
