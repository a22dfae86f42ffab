"""The node's clock: simulated time that jumps or does not run, and stamps of another clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rclpy.clock import JumpThreshold, ROSClock, TimeJump
from rclpy.duration import Duration
from rclpy.node import Node

CLOCK_TOPIC = "/clock"
_SMALLEST_JUMP = Duration(nanoseconds=-1)


@dataclass(frozen=True)
class ClockState:
    """What is known of the node's clock.

    Attributes:
        simulated: whether it is that of /clock.
        running: whether it has shown a time.
        publishers: of /clock.
        jumps_back: how often it was set back.
        stamp_age_s: how old the newest set was when its results were published, by this clock;
            None if there was none.
    """

    simulated: bool
    running: bool
    publishers: int
    jumps_back: int
    stamp_age_s: float | None


class ClockWatch:
    """Notices when a node's simulated time is set back.

    Attributes:
        stamp_age_s: as in `ClockState`; to be set by whoever knows.
    """

    def __init__(self, node: Node, set_back: Callable[[], None]) -> None:
        """Watch from now on.

        Args:
            node: whose clock it is.
            set_back: called when its time was set back, on the executor's thread.
        """
        self._node = node
        self._set_back = set_back
        self._jumps_back = 0
        self.stamp_age_s: float | None = None
        # Kept: rclpy holds it only weakly.
        self._handle = node.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=_SMALLEST_JUMP, on_clock_change=False),
            post_callback=self._note,
        )

    def state(self) -> ClockState:
        """What is known now."""
        clock = self._node.get_clock()
        return ClockState(
            simulated=isinstance(clock, ROSClock) and clock.ros_time_is_active,
            running=clock.now().nanoseconds > 0,
            publishers=self._node.count_publishers(CLOCK_TOPIC),
            jumps_back=self._jumps_back,
            stamp_age_s=self.stamp_age_s,
        )

    def close(self) -> None:
        """Watch no longer."""
        self._handle.unregister()

    def _note(self, jump: TimeJump) -> None:
        self._jumps_back += 1
        seconds = abs(jump.delta.nanoseconds) * 1e-9
        self._node.get_logger().warning(f"time was set back by {seconds:.3f} s: beginning anew")
        self._set_back()
