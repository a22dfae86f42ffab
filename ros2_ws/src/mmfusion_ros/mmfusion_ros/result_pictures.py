"""Pictures out of the result bag of a replay."""

from __future__ import annotations

import struct
from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rosbags.highlevel import AnyReader

from mmfusion_ros.core.errors import ImageError
from mmfusion_ros.core.images import to_encoding
from mmfusion_ros.core.message_frames import source_image
from mmfusion_ros.replay_session import RESULT_TOPICS

RGB, FUSED, OVERLAY = RESULT_TOPICS.rgb, RESULT_TOPICS.fused, RESULT_TOPICS.overlay


def read_pictures(
    folder: Path, stamps: Collection[int]
) -> dict[tuple[str, int], NDArray[np.uint8]]:
    """Colour, fused and overlay pictures of some stamps.

    Args:
        folder: of the result bag.
        stamps: of the RGB frames in nanoseconds.

    Returns:
        RGB pictures, uint8 (H, W, 3), by topic and stamp.
    """
    topics = {name: name for name in (RGB, FUSED, OVERLAY)}
    topics[f"{RGB}/compressed"] = RGB
    pictures = {}
    with AnyReader([folder]) as reader:
        connections = [c for c in reader.connections if c.topic in topics]
        for connection, _, data in reader.messages(connections) if connections else ():
            # Behind the four bytes of the encapsulation: most pictures need not be unpacked.
            seconds, nanoseconds = struct.unpack_from("<iI", data, 4)
            stamp = seconds * 1_000_000_000 + nanoseconds
            if stamp not in stamps:
                continue
            image = source_image(reader.deserialize(data, connection.msgtype))
            try:
                pixels = to_encoding(image, "rgb8")
            except ImageError:
                continue
            pictures[topics[connection.topic], stamp] = np.asarray(pixels, np.uint8)
    return pictures
