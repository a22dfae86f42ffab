"""Frames out of image messages, whichever library read them: rclpy or rosbags."""

from __future__ import annotations

from typing import Any

from mmfusion_ros.core.frames import Frame, Modality, SourceImage
from mmfusion_ros.core.images import fingerprint


def frame_of(message: Any, modality: Modality) -> Frame:
    """A frame that refers to the message's pixels.

    Depth and thermal get a fingerprint, so that a frozen camera is noticed; it costs more than
    all the rest here, and an RGB frame is used whatever it shows.

    Args:
        message: a ``sensor_msgs/Image`` or ``sensor_msgs/CompressedImage``.
        modality: of its camera.
    """
    stamp = message.header.stamp
    image = source_image(message)
    return Frame(
        modality=modality,
        stamp_ns=int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec),
        frame_id=message.header.frame_id,
        image=image,
        fingerprint=None if modality is Modality.RGB else fingerprint(image),
    )


def source_image(message: Any) -> SourceImage:
    """The picture of a ``sensor_msgs/Image`` or ``sensor_msgs/CompressedImage``."""
    if hasattr(message, "format"):
        return SourceImage(message.data, 0, 0, message.format, 0, compressed=True)
    return SourceImage(
        data=message.data,
        height=message.height,
        width=message.width,
        encoding=message.encoding,
        step=message.step,
        is_bigendian=bool(message.is_bigendian),
    )
