"""The package message_filters, where there is one: a full ROS 2 has it, PyPI has not.

Used by its documented interface alone: ``Subscriber(node, type, topic, qos_profile=..., ...)``,
``SimpleFilter.registerCallback`` and ``signalMessage``, ``TimeSynchronizer(filters, queue_size)``
and ``ApproximateTimeSynchronizer(filters, queue_size, slop)``.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription

from mmfusion_ros.core.errors import MmfusionError
from mmfusion_ros.core.frames import Absence, Companion, Frame, FrameSet, Modality
from mmfusion_ros.parameters import Settings

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
    tells nothing of why one lacks.
    """

    def __init__(
        self,
        settings: Settings,
        modalities: tuple[Modality, ...],
        callback: Callable[[FrameSet], None],
    ) -> None:
        """Set it up.

        Args:
            settings: name the kind; the match window is the slop of the approximate one.
            modalities: the cameras, RGB first.
            callback: for each set, on the thread that `add` was called on.

        Raises:
            MmfusionError: if message_filters is not installed.
        """
        package = message_filters()
        if package is None:
            raise MmfusionError(
                f"parameter synchronizer is {settings.synchronizer!r}, which needs the package "
                "message_filters; install it with a full ROS 2 (apt install "
                "ros-$ROS_DISTRO-message-filters), or set synchronizer to mmfusion"
            )
        self._modalities = modalities
        self._callback = callback
        self._sources: Mapping[Modality, Any] = {m: package.SimpleFilter() for m in modalities}
        filters = list(self._sources.values())
        if settings.synchronizer == "exact":
            self._synchronizer = package.TimeSynchronizer(filters, _QUEUE_SIZE)
        else:
            slop_s = settings.window_ms * 1e-3
            self._synchronizer = package.ApproximateTimeSynchronizer(filters, _QUEUE_SIZE, slop_s)
        self._synchronizer.registerCallback(self._hand_out)

    def add(self, frame: Frame, message: Any) -> None:
        """Take in an image.

        Args:
            frame: its picture.
            message: that it came in; its header decides what it is matched with.
        """
        source = self._sources.get(frame.modality)
        if source is not None:
            source.signalMessage(_Stamped(message.header, frame))

    def _hand_out(self, *messages: _Stamped) -> None:
        frames = {message.frame.modality: message.frame for message in messages}
        rgb = frames[Modality.RGB]
        companions = {
            modality: _companion(frames.get(modality), rgb.stamp_ns)
            for modality in (Modality.DEPTH, Modality.THERMAL)
        }
        self._callback(FrameSet(rgb, companions[Modality.DEPTH], companions[Modality.THERMAL]))


class _Stamped:
    """What goes through the stock synchroniser: it looks at nothing but the header."""

    def __init__(self, header: Any, frame: Frame) -> None:
        self.header = header
        self.frame = frame


def _companion(frame: Frame | None, rgb_stamp_ns: int) -> Companion:
    if frame is None:
        return Companion(None, Absence.ABSENT, None)
    return Companion(frame, None, rgb_stamp_ns - frame.stamp_ns)
