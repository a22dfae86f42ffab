"""The executor that a process with one node runs."""

from __future__ import annotations

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from mmfusion_ros.core.errors import MmfusionError

_LOOK_S = 0.2  # how soon the events executor notices that ROS is down


def spin(node: Node, kind: str) -> None:
    """Run a node alone until ROS is shut down.

    Args:
        node: to run.
        kind: one of `mmfusion_ros.parameters.EXECUTORS`.

    Raises:
        MmfusionError: if this distribution does not have that executor.
    """
    if kind == "single_threaded":
        single = SingleThreadedExecutor()
        single.add_node(node)
        single.spin()
        return
    try:
        from rclpy.experimental import EventsExecutor  # noqa: PLC0415 (newer than Jazzy)
    except ImportError as error:
        raise MmfusionError(
            "parameter executor is 'events', which the rclpy of this distribution does not have "
            f"({error}); set it to single_threaded"
        ) from error
    events = EventsExecutor()
    events.add_node(node)
    # Not spin(): in rclpy 9.1 it runs in circles with the interpreter locked.
    while rclpy.ok():
        events.spin_once(timeout_sec=_LOOK_S)
