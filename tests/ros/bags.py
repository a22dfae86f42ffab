"""Small bags made by hand."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

STORE = get_typestore(Stores.ROS2_JAZZY)
IMAGE = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
TOPICS = {
    "rgb": "/camera/color/image_raw",
    "depth": "/camera/depth/image_rect_raw",
    "thermal": "/thermal/image_raw",
}
START = 1_700_000_000_000_000_000
PERIOD = 100_000_000

Message = tuple[str, str, int, Any]  # topic, type, log time, message


def header(stamp_ns: int, frame_id: str = "optical") -> Any:
    seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
    stamp = STORE.types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds)
    return STORE.types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id)


def image(pixels: np.ndarray, encoding: str, stamp_ns: int) -> Any:
    return STORE.types[IMAGE](
        header=header(stamp_ns),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=pixels[0].nbytes,
        data=np.ascontiguousarray(pixels).reshape(-1).view(np.uint8),
    )


def jpeg(pixels: np.ndarray, stamp_ns: int) -> Any:
    file = cv2.imencode(".jpg", pixels[..., ::-1])[1]
    return STORE.types[COMPRESSED](header=header(stamp_ns), format="jpeg", data=file.reshape(-1))


def pictures(number: int, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Smooth but lively pictures, different for each number."""
    rng = np.random.default_rng(number)
    rgb = cv2.GaussianBlur(rng.integers(0, 255, (*size, 3), np.uint8), (0, 0), 2)
    depth = np.full(size, 1500 + number, np.uint16)
    depth[0, 0] = 0
    thermal = cv2.GaussianBlur(rng.integers(0, 200, size).astype(np.uint16), (0, 0), 2)
    return {"rgb": rgb, "depth": depth, "thermal": thermal}


def cameras(
    sets: int = 6,
    *,
    size: tuple[int, int] = (48, 64),
    no_thermal: Collection[int] = (),
    compressed: bool = False,
    thermal_shift_ns: int = 0,
    stamps: bool = True,
) -> list[Message]:
    """Messages of three cameras; the thermal ones are stamped 3 ms later."""
    messages: list[Message] = []
    for number in range(sets):
        now = START + number * PERIOD
        stamp = now if stamps else 0
        shown = pictures(number, size)
        rgb = (TOPICS["rgb"], IMAGE, now + 1_000_000, image(shown["rgb"], "rgb8", stamp))
        if compressed:
            topic = f"{TOPICS['rgb']}/compressed"
            rgb = (topic, COMPRESSED, now + 1_000_000, jpeg(shown["rgb"], stamp))
        messages += [
            rgb,
            (TOPICS["depth"], IMAGE, now + 2_000_000, image(shown["depth"], "16UC1", stamp)),
        ]
        if number not in no_thermal:
            late = stamp + 3_000_000 + thermal_shift_ns if stamps else 0
            thermal = image(shown["thermal"], "mono16", late)
            messages.append((TOPICS["thermal"], IMAGE, now + 5_000_000, thermal))
    return messages


def write_bag(
    path: Path, messages: Iterable[Message], storage: StoragePlugin = StoragePlugin.MCAP
) -> Path:
    with Writer(path, version=8, storage_plugin=storage) as writer:
        connections: dict[str, Any] = {}
        for topic, msgtype, log_time, message in messages:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, msgtype, typestore=STORE)
            data = message if isinstance(message, bytes) else STORE.serialize_cdr(message, msgtype)
            writer.write(connections[topic], log_time, data)
    return path
