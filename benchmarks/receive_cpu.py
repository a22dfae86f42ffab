"""CPU time of receiving a 1280x720 RGB image: the node against a plain rclpy subscriber.

The node's part is all of it: reception, matching, the pipeline with an engine that computes
nothing. Both hear the same images in the same run. Goal: 3 ms where the plain one takes 6 to 7.

Run: ``python benchmarks/receive_cpu.py [--seconds 15]``.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from _ros import isolate, node_files, running, save

SIZE = (720, 1280)
RATE = 30
SETTLING = 20  # frames not counted
GOAL_MS = 3.0
ROLES = ("plain", "node")


class Meter:
    """CPU time and page faults of this process per frame."""

    def __init__(self, frames: int) -> None:
        self._wanted = frames + SETTLING
        self._frames = 0

    @property
    def done(self) -> bool:
        """Whether enough frames came."""
        return self._frames >= self._wanted

    def count(self, _message: Any) -> None:
        """Take note of a frame."""
        self._frames += 1
        if self._frames == SETTLING:
            self._start = resource.getrusage(resource.RUSAGE_SELF)

    def report(self) -> None:
        """Print the figures."""
        start, end = self._start, resource.getrusage(resource.RUSAGE_SELF)
        frames = self._frames - SETTLING
        cpu = end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime
        faults = (end.ru_minflt - start.ru_minflt) / frames
        print(json.dumps({"cpu_ms": round(cpu / frames * 1e3, 3), "page_faults": round(faults)}))


def receive(role: str, frames: int, arguments: list[str]) -> None:
    """Receive so many frames and report."""
    import rclpy  # noqa: PLC0415
    from rclpy.executors import SingleThreadedExecutor  # noqa: PLC0415
    from rclpy.qos import QoSProfile  # noqa: PLC0415
    from sensor_msgs.msg import Image  # noqa: PLC0415

    from mmfusion_ros.fusion_node import FusionNode  # noqa: PLC0415
    from mmfusion_ros.memory import keep_image_memory  # noqa: PLC0415

    meter = Meter(frames)
    if role == "node":
        keep_image_memory()
        rclpy.init(args=arguments)

        class CountingNode(FusionNode):
            def _deliver(self, results: Any) -> None:
                super()._deliver(results)
                meter.count(results)

        node = CountingNode()
    else:
        rclpy.init()
        node = rclpy.create_node("plain")
        node.create_subscription(Image, "/rgb/image", meter.count, QoSProfile(depth=5))
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while not meter.done:
        executor.spin_once(timeout_sec=1)
    meter.report()


def publish(processes: list[subprocess.Popen[str]]) -> None:
    """Publish until both have heard enough."""
    import numpy as np  # noqa: PLC0415
    import rclpy  # noqa: PLC0415
    from rclpy.qos import QoSProfile  # noqa: PLC0415
    from sensor_msgs.msg import Image  # noqa: PLC0415
    from std_msgs.msg import Header  # noqa: PLC0415

    from mmfusion_ros.messages import image_message, set_stamp  # noqa: PLC0415

    rclpy.init()
    node = rclpy.create_node("camera")
    publisher = node.create_publisher(Image, "/rgb/image", QoSProfile(depth=5))
    picture = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    message = image_message(picture, "rgb8", Header(frame_id="rgb"))
    while publisher.get_subscription_count() < len(processes):
        time.sleep(0.05)
    while any(process.poll() is None for process in processes):
        set_stamp(message.header, time.time_ns())
        publisher.publish(message)
        time.sleep(1 / RATE)
    rclpy.shutdown()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--role", choices=ROLES, help=argparse.SUPPRESS)
    options, rest = parser.parse_known_args()
    frames = round(options.seconds * RATE)
    if options.role:
        receive(options.role, frames, rest)
        return
    isolate()
    with tempfile.TemporaryDirectory() as folder:
        arguments = node_files(Path(folder), SIZE)
        common = (Path(__file__), "--seconds", str(options.seconds), "--role")
        with (
            running(*common, "plain", stdout=subprocess.PIPE) as plain,
            running(*common, "node", *arguments, stdout=subprocess.PIPE) as node,
        ):
            publish([plain, node])
            outputs = [process.communicate()[0] for process in (plain, node)]
    figures: dict[str, Any] = dict(zip(ROLES, map(json.loads, outputs), strict=True))
    print(f"{'':8} {'CPU ms per frame':>18} {'page faults':>12}")
    for role in ROLES:
        print(f"{role:8} {figures[role]['cpu_ms']:18.2f} {figures[role]['page_faults']:12}")
    figures["ratio"] = round(figures["node"]["cpu_ms"] / figures["plain"]["cpu_ms"], 3)
    figures["within_goal"] = figures["node"]["cpu_ms"] <= GOAL_MS
    print(f"ratio {figures['ratio']}; goal: node at most {GOAL_MS:g} ms")
    save("receive_cpu", figures)


if __name__ == "__main__":
    main()
