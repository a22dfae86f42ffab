"""The package message_filters, where there is one: a full ROS 2 has it, PyPI has not.

Used by its documented interface alone: ``Subscriber(node, type, topic, qos_profile=..., ...)``,
``SimpleFilter.registerCallback`` and ``signalMessage``, ``TimeSynchronizer(filters, queue_size)``
and ``ApproximateTimeSynchronizer(filters, queue_size, slop)``.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription
from std_msgs.msg import Header

from mmfusion_ros.core.errors import MmfusionError
from mmfusion_ros.core.frames import Absence, Companion, Frame, FrameSet, Modality
from mmfusion_ros.core.synchronizer_config import SynchronizerConfig
from mmfusion_ros.messages import set_stamp

_QUEUE_SIZE = 10  # sets that a camera may lie behind the others


@functools.cache
def message_filters() -> Any | None:
    """The package; None if it is not installed."""
    try:
        return importlib.import_module("message_filters")
    except ImportError:
        return None


def subscribe(
    node: Node,
    message_type: type,
    topic: str,
    callback: Callable[[Any], None],
    qos: QoSProfile,
    **options: Any,
) -> Subscription[Any]:
    """Subscribe through ``message_filters.Subscriber`` where it exists, else by rclpy itself.

    Args:
        node: that subscribes.
        message_type: of the topic.
        topic: name, may be relative and remapped.
        callback: for each message.
        qos: what to ask for.
        **options: as for `rclpy.node.Node.create_subscription`.

    Returns:
        The subscription, to be destroyed with the node's ``destroy_subscription``.
    """
    package = message_filters()
    if package is None:
        return node.create_subscription(message_type, topic, callback, qos, **options)
    subscriber = package.Subscriber(node, message_type, topic, qos_profile=qos, **options)
    subscriber.registerCallback(callback)
    subscription: Subscription[Any] = subscriber.sub  # which keeps the subscriber
    return subscription


class StockSynchronizer:
    """Matches images by one of the synchronisers of message_filters.

    It behaves as that does: no set without an image of every camera, and `FrameSet.companion`
    tells nothing of why one lacks. But for two things that those know nothing of: stamps are
    compared less the camera's time offset, and it begins anew when they go back. A queue of
    message_filters drops what has the oldest stamp, so one full of images from before the jump
    would take in none from after it.
    """

    def __init__(
        self,
        kind: str,
        config: SynchronizerConfig,
        modalities: tuple[Modality, ...],
        callback: Callable[[FrameSet], None],
    ) -> None:
        """Set it up.

        Args:
            kind: exact or approximate.
            config: time offsets of the cameras, how far stamps go back when time was set back,
                and the match window, which is the slop of the approximate one.
            modalities: the cameras, RGB first.
            callback: for each set, on the thread that `add` was called on.

        Raises:
            MmfusionError: if message_filters is not installed.
        """
        package = message_filters()
        if package is None:
            raise MmfusionError(
                f"parameter synchronizer is {kind!r}, which needs the package "
                "message_filters; install it with a full ROS 2 (apt install "
                "ros-$ROS_DISTRO-message-filters), or set synchronizer to mmfusion"
            )
        self._package = package
        self._kind = kind
        self._modalities = modalities
        self._callback = callback
        self.reconfigure(config)

    def add(self, frame: Frame) -> None:
        """Take in an image; its stamp decides what it is matched with."""
        newest = self._newest_ns.get(frame.modality)
        if newest is None or frame.stamp_ns > newest:
            self._newest_ns[frame.modality] = frame.stamp_ns
        elif frame.stamp_ns <= newest - self._config.jump_back_ns:
            self.begin_anew()
            self._newest_ns[frame.modality] = frame.stamp_ns
        source = self._sources.get(frame.modality)
        if source is not None:
            source.signalMessage(_Stamped(frame, self._offsets_ns[frame.modality]))

    def begin_anew(self) -> None:
        """Forget what waits: time was set back."""
        self._newest_ns: dict[Modality, int] = {}
        self._sources = {modality: self._package.SimpleFilter() for modality in self._modalities}
        filters = list(self._sources.values())
        if self._kind == "exact":
            synchronizer = self._package.TimeSynchronizer(filters, _QUEUE_SIZE)
        else:
            slop_s = self._config.depth.window_ns * 1e-9
            synchronizer = self._package.ApproximateTimeSynchronizer(filters, _QUEUE_SIZE, slop_s)
        synchronizer.registerCallback(self._hand_out)  # its sources keep it

    def reconfigure(self, config: SynchronizerConfig) -> None:
        """Go on with other settings; what waits is forgotten."""
        self._config = config
        self._offsets_ns = {
            Modality.RGB: 0,
            Modality.DEPTH: config.depth.offset_ns,
            Modality.THERMAL: config.thermal.offset_ns,
        }
        self.begin_anew()

    def _hand_out(self, *messages: _Stamped) -> None:
        frames = {message.frame.modality: message.frame for message in messages}
        rgb = frames[Modality.RGB]
        depth, thermal = (
            _companion(frames.get(modality), rgb.stamp_ns + self._offsets_ns[modality])
            for modality in (Modality.DEPTH, Modality.THERMAL)
        )
        self._callback(FrameSet(rgb, depth, thermal))


class _Stamped:
    """What goes through the stock synchroniser: it looks at nothing but the header."""

    def __init__(self, frame: Frame, offset_ns: int) -> None:
        self.frame = frame
        self.header = Header()
        # No stamp is negative; at the very start of simulated time an offset could make one.
        set_stamp(self.header, max(0, frame.stamp_ns - offset_ns))


def _companion(frame: Frame | None, expected_ns: int) -> Companion:
    if frame is None:
        return Companion(None, Absence.ABSENT, None)
    return Companion(frame, None, expected_ns - frame.stamp_ns)
