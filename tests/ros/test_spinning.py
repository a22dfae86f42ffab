"""A process with one node runs the executor that it was told to."""

from __future__ import annotations

import sys

import pytest

pytestmark = pytest.mark.ros

rclpy = pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from rclpy.executors import SingleThreadedExecutor

from mmfusion_ros.core.errors import MmfusionError
from mmfusion_ros.spinning import spin
from mmfusion_ros.starting import ended_by_signals


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
    with ended_by_signals():
        spin(node, kind)
    return seen[0]


def test_single_threaded(node):
    assert executor_of(node, "single_threaded") is SingleThreadedExecutor


@pytest.fixture
def events():
    pytest.importorskip("rclpy.experimental", reason="this distribution has no events executor")


def test_events(node, events):
    assert executor_of(node, "events").__name__ == "EventsExecutor"


def test_a_distribution_without_the_events_executor(node, monkeypatch):
    monkeypatch.setitem(sys.modules, "rclpy.experimental", None)
    with pytest.raises(MmfusionError, match="executor is 'events', which the rclpy of this distr"):
        spin(node, "events")


@pytest.mark.parametrize("kind", ["single_threaded", "events"])
def test_a_callback_that_fails_as_ros_is_taken_away_is_an_end_like_any_other(node, events, kind):
    def call():
        rclpy.try_shutdown()
        node.count_publishers("/clock")

    node.create_timer(0.01, call)
    with ended_by_signals():
        spin(node, kind)


@pytest.mark.parametrize("kind", ["single_threaded", "events"])
def test_what_a_callback_raises_otherwise_comes_out(node, events, kind):
    def call():
        raise ZeroDivisionError

    node.create_timer(0.01, call)
    with pytest.raises(ZeroDivisionError), ended_by_signals():
        spin(node, kind)
