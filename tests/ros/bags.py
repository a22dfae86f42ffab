"""Small bags made by hand."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

STORE = get_typestore(Stores.ROS2_JAZZY)
ROS1_STORE = get_typestore(Stores.ROS1_NOETIC)
IMAGE = "sensor_msgs/msg/Image"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
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


def png(pixels: np.ndarray, stamp_ns: int, image_format: str = "png") -> Any:
    """A PNG file of colour (as BGR, as OpenCV has it) or of 8 or 16-bit grey."""
    file = cv2.imencode(".png", pixels)[1]
    return STORE.types[COMPRESSED](header=header(stamp_ns), format=image_format, data=file.ravel())


def compressed_depth(pixels: np.ndarray, stamp_ns: int) -> Any:
    """Depth in millimetres as image_transport's compressedDepth sends it."""
    file = cv2.imencode(".png", pixels)[1].ravel()
    data = np.concatenate([np.zeros(12, np.uint8), file])
    return STORE.types[COMPRESSED](
        header=header(stamp_ns), format="16UC1; compressedDepth png", data=data
    )


def camera_info(
    topic: str, focal: float, size: tuple[int, int] = (48, 64), **differing: Any
) -> Message:
    """A calibrated camera, recorded before everything else; without distortion, if not told so."""
    height, width = size
    region = STORE.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    k = np.array([focal, 0, width / 2, 0, focal, height / 2, 0, 0, 1])
    fields = {
        "header": header(START),
        "height": height,
        "width": width,
        "distortion_model": "plumb_bob",
        "d": np.zeros(5),
        "k": k,
        "r": np.eye(3).reshape(-1),
        "p": np.zeros(12),
        "binning_x": 0,
        "binning_y": 0,
        "roi": region,
    }
    info = STORE.types[CAMERA_INFO](**(fields | differing))
    return topic, CAMERA_INFO, START, info


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
    path: Path,
    messages: Iterable[Message],
    storage: StoragePlugin = StoragePlugin.MCAP,
    compression: CompressionMode | None = None,
) -> Path:
    bag = Writer(path, version=8, storage_plugin=storage)
    if compression is not None:
        bag.set_compression(compression, CompressionFormat.ZSTD)
    with bag as writer:
        connections: dict[str, Any] = {}
        for topic, msgtype, log_time, message in messages:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, msgtype, typestore=STORE)
            data = message if isinstance(message, bytes) else STORE.serialize_cdr(message, msgtype)
            writer.write(connections[topic], log_time, data)
    return path


def write_ros1_bag(
    path: Path, messages: Iterable[Message], compression: str = "", chunk: int = 1 << 20
) -> Path:
    """The same messages in a ROS 1 bag; compression is empty, BZ2 or LZ4."""
    writer = Ros1Writer(path)
    if compression:
        writer.set_compression(Ros1Writer.CompressionFormat[compression])
    writer.chunk_threshold = chunk
    with writer:
        connections: dict[str, Any] = {}
        for topic, msgtype, log_time, message in messages:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, msgtype, typestore=ROS1_STORE)
            data = ROS1_STORE.serialize_ros1(_as_ros1(message, msgtype), msgtype)
            writer.write(connections[topic], log_time, data)
    return path


def _as_ros1(message: Any, msgtype: str) -> Any:
    types = ROS1_STORE.types
    stamp = types["builtin_interfaces/msg/Time"](
        message.header.stamp.sec, message.header.stamp.nanosec
    )
    names = [name for name in message.__dataclass_fields__ if not name.startswith("__")]
    fields = {name: getattr(message, name) for name in names}
    fields["header"] = types["std_msgs/msg/Header"](0, stamp, message.header.frame_id)
    if msgtype == CAMERA_INFO:
        fields = {name.upper() if len(name) == 1 else name: fields[name] for name in names}
    return types[msgtype](**fields)


def courtyard(folder: Path, frames: int, size: tuple[int, int] = (480, 640)) -> list[Message]:
    """The first frames of the bundled recording, thermal brought to the size of colour.

    Its counts lose their offset, so that the low byte of a warm pixel is large.
    """
    rows = (folder / "stamps.csv").read_text().splitlines()[1 : frames + 1]
    messages: list[Message] = []
    for row in rows:
        stem, *stamps = row.split(",")
        rgb, depth, thermal = (
            cv2.imread(str(next((folder / name).glob(f"{stem}.*"))), cv2.IMREAD_UNCHANGED)
            for name in ("rgb", "depth", "thermal")
        )
        celsius = np.clip(thermal.astype(int) // 20 - 1450, 0, 255).astype(np.uint16)
        shown = {
            "rgb": (np.ascontiguousarray(rgb[..., ::-1]), "rgb8"),
            "depth": (depth, "16UC1"),
            "thermal": (cv2.resize(celsius, size[::-1]), "mono16"),
        }
        for (name, (pixels, encoding)), stamp in zip(shown.items(), stamps, strict=True):
            message = image(pixels, encoding, int(stamp))
            messages.append((TOPICS[name], IMAGE, int(stamp) + 1_000_000, message))
    return messages
