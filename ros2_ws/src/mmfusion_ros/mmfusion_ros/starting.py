"""Starting ROS in a process, with what the user said on the command line, and its end."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import rclpy
from rclpy.node import Node
from rclpy.utilities import remove_ros_args

from mmfusion_ros.core.errors import MmfusionError

# What rcl adds for those who look for the fault in rcl.
_PLACES_IN_RCL = re.compile(r"(, at [^ ]+:\d+)+$")
_BEFORE = ("failed to initialize rcl: ", "Failed to parse ROS arguments: ")


def own_arguments(arguments: Sequence[str]) -> list[str]:
    """What is left of a command line without the arguments for ROS.

    Args:
        arguments: the program's name and what follows.

    Raises:
        MmfusionError: if ROS does not understand its arguments.
    """
    with _explained():
        return list(remove_ros_args(list(arguments)))[1:]


def start_ros(arguments: Sequence[str] | None) -> None:
    """Start ROS, with its arguments among those of the command line.

    Args:
        arguments: the program's name and what follows; None for those of the process.

    Raises:
        MmfusionError: if ROS does not understand its arguments.
    """
    with _explained():
        rclpy.init(args=None if arguments is None else list(arguments))


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let what fails because a signal has ended ROS be an end like any other.

    A signal takes ROS away from under whatever is being done with it. Begin it after `start_ros`.
    """
    try:
        yield
    except Exception:
        if rclpy.ok():
            raise


@contextmanager
def destroyed_on_failure(node: Node) -> Iterator[None]:
    """Take a node out of the graph if the rest of its construction fails.

    Nobody else can: who makes it never gets it, and other nodes see it as long as something, if
    only a traceback, refers to it.
    """
    try:
        yield
    except BaseException:
        node.destroy_node()
        raise


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # what all those of rclpy are
        reason = _PLACES_IN_RCL.sub("", str(error))
        for before in _BEFORE:
            reason = reason.removeprefix(before)
        if reason.startswith("["):
            reason = f"{reason} are unknown"
        raise MmfusionError(
            f"ROS does not start: {reason}; expected after --ros-args: -p NAME:=VALUE, "
            "-r FROM:=TO, --params-file FILE and the like"
        ) from error
