"""What the node adds to the way of an image: from the cameras' stamps to the fused picture.

Three 480x640 cameras at 30 Hz play in one process, the node runs an engine that computes nothing
in a second, a listener to its picture in a third. In the same run a fourth process receives the
three cameras directly. Goal: with the engine's time taken off, the picture is there after
two such transports and 2 ms more (p99), and no frame is lost.

Run: ``python benchmarks/node_overhead.py [--seconds 20]``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from _ros import isolate, node_files, percentiles, running, save

SIZE = (480, 640)
RATE = 30
MARGIN_MS = 2.0
SETTLING = 15  # sets at the start, while subscriptions and caches warm up


def listen(role: str, seconds: float) -> None:
    """Print, by stamp, when the last of a set of messages came and what the node said."""
    import rclpy  # noqa: PLC0415
    from mmfusion_msgs.msg import FrameStatus  # noqa: PLC0415
    from sensor_msgs.msg import Image  # noqa: PLC0415

    from mmfusion_ros.memory import keep_image_memory  # noqa: PLC0415
    from mmfusion_ros.messages import stamp_ns  # noqa: PLC0415

    keep_image_memory()
    rclpy.init()
    node = rclpy.create_node(f"listener_{role}")
    came: dict[int, list[int]] = {}
    said: dict[int, dict[str, float]] = {}

    def receive(image: Image) -> None:
        came.setdefault(stamp_ns(image.header), []).append(time.time_ns())

    def read(status: FrameStatus) -> None:
        stages = dict(zip(status.stage_names, status.stage_durations, strict=True))
        used = sum(modality.used for modality in status.modalities)
        said[stamp_ns(status.header)] = {**stages, "latency": status.latency, "used": used}

    if role == "direct":
        topics = ["/rgb/image", "/depth/image", "/thermal/image"]
    else:
        topics = ["/fusion_node/fused/image"]
        node.create_subscription(FrameStatus, "/fusion_node/status", read, 50)
    for topic in topics:
        node.create_subscription(Image, topic, receive, 5)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        rclpy.spin_once(node, timeout_sec=0.1)
    last = {stamp: max(times) for stamp, times in came.items() if len(times) == len(topics)}
    print(json.dumps({"last": last, "said": said}))


def write_recording(folder: Path) -> Path:
    """Half a second of noise: nothing repeats within the time that counts as frozen."""
    rng = np.random.default_rng(0)
    kinds = {
        "rgb": (np.uint8, (*SIZE, 3)),
        "depth": (np.uint16, SIZE),
        "thermal": (np.uint16, SIZE),
    }
    for name, (kind, shape) in kinds.items():
        (folder / name).mkdir(parents=True)
        for index in range(15):
            picture = rng.integers(0, np.iinfo(kind).max, shape, dtype=kind)
            cv2.imwrite(str(folder / name / f"{index:02d}.png"), picture)
    return folder


def measure(folder: Path, seconds: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run the four processes; return what the two listeners printed."""
    recording = write_recording(folder / "recording")
    here = Path(__file__)
    with running("-m", "mmfusion_ros.fusion_node", *node_files(folder, SIZE)):
        roles = ("direct", "fused")
        options = {"stdout": subprocess.PIPE}
        with (
            running(here, "--listen", roles[0], "--seconds", str(seconds + 3), **options) as direct,
            running(here, "--listen", roles[1], "--seconds", str(seconds + 3), **options) as fused,
        ):
            time.sleep(2)  # three interpreters start; the player then waits for its listeners
            play = ["-m", "mmfusion_ros.camera_player", recording, "--loop", "--rate", str(RATE)]
            play += ["--listeners", "2"]  # the direct one and the node: none comes late
            with running(*play, stderr=subprocess.DEVNULL):
                outputs = [process.communicate()[0] for process in (direct, fused)]
    return json.loads(outputs[0]), json.loads(outputs[1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--listen", choices=("direct", "fused"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.listen:
        listen(options.listen, options.seconds)
        return
    isolate()
    with tempfile.TemporaryDirectory() as folder:
        direct, fused = measure(Path(folder), options.seconds)
    stamps = sorted(set(map(int, direct["last"])))[SETTLING:-SETTLING]
    # What both listeners could have heard.
    missing = [stamp for stamp in stamps if str(stamp) not in fused["last"]]
    heard = [
        str(stamp)
        for stamp in stamps
        if str(stamp) in fused["last"] and str(stamp) in fused["said"]
    ]
    transport = [(direct["last"][stamp] - int(stamp)) * 1e-6 for stamp in heard]
    said = [fused["said"][stamp] for stamp in heard]
    whole = [
        (fused["last"][stamp] - int(stamp)) * 1e-6 - entry["engine"] * 1e3
        for stamp, entry in zip(heard, said, strict=True)
    ]
    published = [(entry["latency"] - entry["engine"]) * 1e3 for entry in said]
    rows = {
        "three cameras, received directly": percentiles(transport),
        "stamp to publish, less engine": percentiles(published),
        "stamp to fused picture received, less engine": percentiles(whole),
    }
    print(f"{'':46} {'p50 ms':>8} {'p99 ms':>8}")
    for name, row in rows.items():
        print(f"{name:46} {row['p50_ms']:8.2f} {row['p99_ms']:8.2f}")
    base, total = rows["three cameras, received directly"], rows[list(rows)[-1]]
    limit = 2 * base["p99_ms"] + MARGIN_MS
    added = [a - b for a, b in zip(whole, transport, strict=True)]
    figures = {
        **rows,
        "added by node and second transport": percentiles(added),
        "ratio_p50": round(total["p50_ms"] / base["p50_ms"], 2),
        "ratio_p99": round(total["p99_ms"] / base["p99_ms"], 2),
        "limit_p99_ms": round(limit, 2),
        "within_limit": total["p99_ms"] <= limit,
        "sets": len(stamps),
        "lost": len(missing),
        "complete": sum(entry["used"] == 3 for entry in said),
    }
    print(f"ratio p50 {figures['ratio_p50']}, p99 {figures['ratio_p99']}")
    goal = f"2 x {base['p99_ms']:.2f} + {MARGIN_MS:g} = {limit:.2f} ms"
    print(f"goal: p99 {total['p99_ms']:.2f} <= {goal}")
    print(
        f"lost {len(missing)} of {len(stamps)}; complete sets {figures['complete']} of {len(said)}"
    )
    save("node_overhead", figures)
    sys.exit(0 if figures["within_limit"] and not missing else 1)


if __name__ == "__main__":
    main()
