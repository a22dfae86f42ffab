"""The synchroniser as a message filter, to be chained with those of message_filters."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.timer import Timer

from mmfusion_ros.core.frames import Frame, FrameSet, Modality
from mmfusion_ros.core.synchronizer import Synchronizer, SynchronizerConfig
from mmfusion_ros.messages import frame_from_message

_LOOK_S = 0.005  # how soon a wait that is over is noticed


class FrameSetFilter:
    """Matches the images of the three cameras, with the interface of a message filter.

    Registers with its inputs and takes callbacks as the filters of message_filters do, of which
    it needs none itself. Unlike `message_filters.ApproximateTimeSynchronizer` it gives a set for
    each RGB image: a callback is called with the RGB, depth and thermal message, where None
    stands for one that lacks.

    Args of the constructor:
        filters: of the RGB, depth and thermal images, in this order: anything with
            ``registerCallback``.
        node: whose executor ends the waits for images that do not come.
        config: how to match.
    """

    def __init__(
        self, filters: Sequence[Any], node: Node, config: SynchronizerConfig | None = None
    ) -> None:
        self._callbacks: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._messages: WeakKeyDictionary[Frame, Any] = WeakKeyDictionary()
        self._synchronizer = Synchronizer(config or SynchronizerConfig(), self._hand_out)
        # Not the node's clock: simulated time may not run.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._node = node
        self._timer: Timer | None = None
        self.connectInput(filters)  # first, as it may refuse them: a timer would go on
        self._timer = node.create_timer(_LOOK_S, self._look, clock=steady)

    def close(self) -> None:
        """Hand out no more; what the inputs still bring is ignored."""
        if self._timer is not None:
            self._node.destroy_timer(self._timer)
            self._timer = None
            self._synchronizer.reset()

    def connectInput(self, filters: Sequence[Any]) -> None:  # noqa: N802 (the interface's name)
        """Take images from the filters of the RGB, depth and thermal images.

        Raises:
            ValueError: if there are not three.
        """
        if len(filters) != len(Modality):
            raise ValueError(f"{len(filters)} filters; expected those of rgb, depth and thermal")
        for source, modality in zip(filters, Modality, strict=True):
            source.registerCallback(self.add, modality)

    def registerCallback(  # noqa: N802 (the interface's name)
        self, callback: Callable[..., None], *arguments: Any
    ) -> int:
        """Have a callback called with each set and then these arguments; return its number."""
        self._callbacks.append((callback, arguments))
        return len(self._callbacks) - 1

    def signalMessage(self, *messages: Any) -> None:  # noqa: N802 (the interface's name)
        """Call the callbacks."""
        for callback, arguments in self._callbacks:
            callback(*messages, *arguments)

    def add(self, message: Any, modality: Modality) -> None:
        """Take in an image of a camera."""
        if self._timer is None:
            return  # filters offer no way to be left
        frame = frame_from_message(message, modality)
        self._messages[frame] = message
        self._synchronizer.add(frame, time.monotonic_ns())

    def _look(self) -> None:
        self._synchronizer.advance(time.monotonic_ns())

    def _hand_out(self, frames: FrameSet) -> None:
        parts = (frames.rgb, frames.depth.frame, frames.thermal.frame)
        self.signalMessage(*(None if part is None else self._messages[part] for part in parts))
