"""Resident memory of the node over many frames: it must not grow.

Small pictures from three cameras, as fast as the node keeps up: each set is sent when the status
of the one before has come.

Run: ``python benchmarks/node_memory.py [--frames 10000]``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _ros import isolate, node_files, running, save

SIZE = (96, 128)
ALLOWED_MB = 2.0  # from the first mark to the last
PERIOD_NS = 33_000_000


def resident_mb(pid: int) -> float:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return round(int(line.split()[1]) / 1024, 2)


class Cameras:
    """Sends sets and hears what becomes of them."""

    def __init__(self) -> None:
        import rclpy  # noqa: PLC0415
        from mmfusion_msgs.msg import FrameStatus  # noqa: PLC0415
        from sensor_msgs.msg import Image  # noqa: PLC0415
        from std_msgs.msg import Header  # noqa: PLC0415

        from mmfusion_ros.messages import image_message, stamp_ns  # noqa: PLC0415

        rclpy.init()
        self.spin_once = rclpy.spin_once
        self.node = rclpy.create_node("cameras")
        self.newest_ns = 0
        self.complete = 0

        def read(status: FrameStatus) -> None:
            self.newest_ns = stamp_ns(status.header)
            self.complete += all(modality.used for modality in status.modalities)

        self.node.create_subscription(FrameStatus, "/fusion_node/status", read, 50)
        self.node.create_subscription(Image, "/fusion_node/fused/image", lambda _: None, 50)
        rng = np.random.default_rng(0)
        kinds = {"depth": "16UC1", "thermal": "mono16", "rgb": "rgb8"}
        self.publishers, self.pictures = {}, {}
        for name, encoding in kinds.items():
            self.publishers[name] = self.node.create_publisher(Image, f"/{name}/image", 10)
            shape = (*SIZE, 3) if name == "rgb" else (*SIZE, 2)
            noise = rng.integers(0, 256, (16, *shape), dtype=np.uint8)
            if name != "rgb":
                noise = noise.view(np.uint16)[..., 0]
            self.pictures[name] = [image_message(entry, encoding, Header()) for entry in noise]

    def send(self, index: int) -> int:
        """Publish set number ``index``; return its stamp."""
        from mmfusion_ros.messages import set_stamp  # noqa: PLC0415

        stamp = (index + 1) * PERIOD_NS
        for name, publisher in self.publishers.items():
            message = self.pictures[name][index % 16]
            set_stamp(message.header, stamp)
            publisher.publish(message)
        return stamp

    def wait_for(self, stamp: int, patience_s: float) -> None:
        """Spin until the status of a set at or after ``stamp`` came; a dropped set is passed."""
        deadline = time.monotonic() + patience_s
        while self.newest_ns < stamp and time.monotonic() < deadline:
            self.spin_once(self.node, timeout_sec=0.1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=10_000)
    options = parser.parse_args()
    isolate()
    marks = sorted({options.frames // 10, options.frames // 2, options.frames})
    resident: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        arguments = node_files(Path(folder), SIZE)
        with running("-m", "mmfusion_ros.fusion_node", *arguments) as node:
            cameras = Cameras()
            while not all(p.get_subscription_count() for p in cameras.publishers.values()):
                cameras.spin_once(cameras.node, timeout_sec=0.1)
            started = time.monotonic()
            for index in range(options.frames):
                stamp = cameras.send(index)
                cameras.wait_for(stamp, patience_s=1)
                if index + 1 in marks:
                    resident[index + 1] = resident_mb(node.pid)
            seconds = time.monotonic() - started
    growth = resident[marks[-1]] - resident[marks[0]]
    print(f"{'frames':>8} {'RSS MB':>8}")
    for mark in marks:
        print(f"{mark:8} {resident[mark]:8.2f}")
    print(
        f"growth {growth:+.2f} MB (at most {ALLOWED_MB:g}), {options.frames / seconds:.0f} sets/s, "
        f"{cameras.complete} complete"
    )
    figures = {
        "rss_mb": {str(mark): value for mark, value in resident.items()},
        "growth_mb": round(growth, 2),
        "ratio": round(resident[marks[-1]] / resident[marks[0]], 3),
        "sets_per_s": round(options.frames / seconds),
        "complete": cameras.complete,
    }
    save("node_memory", figures)
    sys.exit(0 if growth <= ALLOWED_MB else 1)


if __name__ == "__main__":
    main()
