"""Publishes camera-sized images for the stream check; run as a process of its own.

Reads what to send as JSON from its argument, prints what it sent as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

_SETTLE_S = 0.3
_LAST_ON_THEIR_WAY_S = 0.5


def main() -> int:
    """Send what the argument says, one reliability after the other."""
    task = json.loads(sys.argv[1])
    if task["our_profile"]:
        from mmfusion_ros.dds_profile import apply_dds_profile  # noqa: PLC0415

        apply_dds_profile()
    from mmfusion_ros.memory import keep_image_memory  # noqa: PLC0415

    keep_image_memory()
    import rclpy  # noqa: PLC0415

    from mmfusion_ros.checks.ros_probe import segment_bytes  # noqa: PLC0415

    rclpy.init(args=[])
    node = rclpy.create_node("mmfusion_doctor_sender", enable_rosout=False)
    publishers = {phase: _publishers(node, task, phase) for phase in task["phases"]}
    found: dict[str, Any] = {"segment_bytes": segment_bytes(), "phases": {}}
    everyone = [publisher for entries in publishers.values() for publisher, _ in entries]
    if _matched(everyone, task["patience_s"]):
        for phase, entries in publishers.items():
            found["phases"][phase] = _send(entries, task["rate"], task["frames"])
    node.destroy_node()
    rclpy.shutdown()
    print(json.dumps(found))
    return 0


def _publishers(node: Any, task: dict[str, Any], phase: str) -> list[tuple[Any, Any]]:
    """A publisher of each camera, and the image it sends."""
    from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: PLC0415
    from sensor_msgs.msg import Image  # noqa: PLC0415

    qos = QoSProfile(depth=5, reliability=ReliabilityPolicy[phase.upper()])
    entries = []
    for camera in task["cameras"]:
        image = Image(**{key: camera[key] for key in ("encoding", "height", "width", "step")})
        image.data.frombytes(bytes(image.height * image.step))
        topic = f"{task['prefix']}/{phase}/{camera['name']}"
        entries.append((node.create_publisher(Image, topic, qos), image))
    return entries


def _matched(publishers: list[Any], patience_s: float) -> bool:
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if all(publisher.get_subscription_count() for publisher in publishers):
            time.sleep(_SETTLE_S)
            return True
        time.sleep(0.02)
    return False


def _send(entries: list[tuple[Any, Any]], rate: float, frames: int) -> dict[str, float]:
    """Send every camera's images at the rate; stamps are monotonic, the same in every process."""
    started, cpu = time.monotonic(), time.process_time()
    for number in range(frames):
        left = started + number / rate - time.monotonic()
        if left > 0:
            time.sleep(left)
        for publisher, image in entries:
            stamp = image.header.stamp
            stamp.sec, stamp.nanosec = divmod(time.monotonic_ns(), 1_000_000_000)
            publisher.publish(image)
    seconds = time.monotonic() - started + 1 / rate
    cpu = time.process_time() - cpu
    time.sleep(_LAST_ON_THEIR_WAY_S)
    return {"sent": frames, "seconds": seconds, "cpu": cpu / seconds}


if __name__ == "__main__":
    sys.exit(main())
