"""Receives the images of the stream check; run as a process of its own.

Reads what to expect as JSON from its argument, ends when its input ends, and prints what came.
"""

from __future__ import annotations

import json
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

_LITTLE_ENDIAN = 1  # lowest bit of the second byte of serialised data


def stamp_of(data: bytes) -> int:
    """The stamp in nanoseconds that a serialised image begins with."""
    order = "<" if data[1] & _LITTLE_ENDIAN else ">"
    seconds, nanoseconds = struct.unpack_from(f"{order}iI", data, 4)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def main() -> int:
    """Count and time the images until the input ends."""
    task = json.loads(sys.argv[1])
    from mmfusion_ros.memory import keep_image_memory  # noqa: PLC0415

    keep_image_memory()
    import rclpy  # noqa: PLC0415
    from rclpy.executors import SingleThreadedExecutor  # noqa: PLC0415
    from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: PLC0415
    from sensor_msgs.msg import Image  # noqa: PLC0415

    rclpy.init(args=[])
    node = rclpy.create_node("mmfusion_doctor_receiver", enable_rosout=False)
    latencies: dict[str, dict[str, list[float]]] = {}
    for phase in task["phases"]:
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy[phase.upper()])
        for camera in task["cameras"]:
            kept = latencies.setdefault(phase, {}).setdefault(camera["name"], [])
            topic = f"{task['prefix']}/{phase}/{camera['name']}"
            node.create_subscription(Image, topic, _keeper(kept), qos, raw=True)
    ended = threading.Event()
    threading.Thread(target=_wait_for_end, args=(ended,), daemon=True).start()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    started, cpu = time.monotonic(), time.process_time()
    while not ended.is_set():
        executor.spin_once(timeout_sec=0.05)
    found = {
        "latencies_ms": latencies,
        "cpu": (time.process_time() - cpu) / (time.monotonic() - started),
    }
    node.destroy_node()
    rclpy.shutdown()
    print(json.dumps(found))
    return 0


def _wait_for_end(ended: threading.Event) -> None:
    sys.stdin.read()
    ended.set()


def _keeper(kept: list[float]) -> Callable[[Any], None]:
    def keep(data: bytes) -> None:
        kept.append((time.monotonic_ns() - stamp_of(data)) / 1e6)

    return keep


if __name__ == "__main__":
    sys.exit(main())
