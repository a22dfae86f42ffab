"""The whole way of an image: camera player, node, recorder, each a process, to a bag on the disk.

Three cameras of 1280x720 at 30 Hz play into the node, whose engine computes nothing; the recorder
writes its fused pictures and its status. In turns with it, in the same run, a bare relay takes the
node's place: an rclpy node that subscribes to the three cameras and publishes each RGB image again.
It says what DDS, the player and the recorder cost alone.

Latency is from the stamp of the RGB image to the log time of its result in the bag. The bags, of
1.2 GB each with the defaults, are removed as soon as they are read.

Run: ``python benchmarks/player_node_recorder.py [--seconds 60] [--size 1280x720]``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from _ros import isolate, node_files, percentiles, save
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

RATE = 30
SHOTS = 15  # half a second: nothing repeats within the time that counts as frozen
ROUNDS = 4
WARM_UP_S = 2.0
CAMERAS = ("rgb", "depth", "thermal")
FUSED, STATUS, DIAGNOSTICS = "/fusion_node/fused/image", "/fusion_node/status", "/diagnostics"
RELAYED = "/relay/fused/image"
TICKS = os.sysconf("SC_CLK_TCK")

Size = tuple[int, int]


def relay() -> None:
    """Publish every RGB image again; print how many images of each camera came."""
    import rclpy  # noqa: PLC0415
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor  # noqa: PLC0415
    from sensor_msgs.msg import Image  # noqa: PLC0415

    from mmfusion_ros.memory import keep_image_memory  # noqa: PLC0415

    keep_image_memory()
    rclpy.init()
    node = rclpy.create_node("relay")
    publisher = node.create_publisher(Image, RELAYED, 5)
    counts = dict.fromkeys(CAMERAS, 0)

    def receiver(camera: str) -> Any:
        def receive(image: Image) -> None:
            counts[camera] += 1
            if camera == "rgb":
                publisher.publish(image)

        return receive

    for camera in CAMERAS:
        node.create_subscription(Image, f"/{camera}/image", receiver(camera), 5)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        executor.spin()
    print(json.dumps(counts))


def write_recording(folder: Path, size: Size) -> Path:
    """Pictures that look like some: decoding them is not what is measured."""
    rng = np.random.default_rng(0)
    small = (size[0] // 8, size[1] // 8)
    for name in CAMERAS:
        (folder / name).mkdir(parents=True)
        for index in range(SHOTS):
            if name == "rgb":
                picture = rng.integers(0, 256, (*small, 3), np.uint8)
            else:
                picture = rng.integers(1000, 9000, small).astype(np.uint16)
            whole = cv2.resize(picture, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
            suffix = "jpg" if name == "rgb" else "png"
            cv2.imwrite(str(folder / name / f"{index:02d}.{suffix}"), whole)
    return folder


def cpu_s(process: subprocess.Popen[str]) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


@contextlib.contextmanager
def started(*arguments: str | Path, log: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a Python program, its output in a file, until the block ends."""
    with log.open("w") as output:
        command = [sys.executable, *map(str, arguments)]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, text=True)
        try:
            yield process
        finally:
            stop(process)


def stop(process: subprocess.Popen[str]) -> None:
    """As launch does; an interrupt could cut off the player between sending and counting."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def wait_for(log: Path, *patterns: str) -> None:
    """Wait until a program has said all this."""
    deadline = time.monotonic() + 60
    while not all(re.search(pattern, said := log.read_text()) for pattern in patterns):
        if time.monotonic() > deadline:
            raise SystemExit(f"waited in vain for {patterns} in:\n{said[-2000:]}")
        time.sleep(0.05)


def run_once(way: str, folder: Path, recording: Path, size: Size, seconds: float) -> dict[str, Any]:
    """One turn of one way; returns raw figures."""
    folder.mkdir()
    middle = [Path(__file__), "--relay"]
    topics = [RELAYED]
    if way == "node":
        middle = ["-m", "mmfusion_ros.fusion_node", *node_files(folder, size)]
        topics = [FUSED, STATUS, DIAGNOSTICS]
    bag = folder / "bag"
    logs = {name: folder / f"{name}.log" for name in ("player", way, "recorder")}
    play = ["-m", "mmfusion_ros.camera_player", recording, "--loop", "--rate", str(RATE)]
    with (
        started(*middle, log=logs[way]) as between,
        started("-m", "mmfusion_ros.recorder", "--out", bag, *topics, log=logs["recorder"]) as rec,
    ):
        wait_for(logs["recorder"], *(f"recording {topic}\n" for topic in topics))
        with started(*play, log=logs["player"]) as player:
            wait_for(logs["player"], r"playing: [1-9]")
            time.sleep(WARM_UP_S)
            processes = {"player": player, way: between, "recorder": rec}
            before = {name: cpu_s(process) for name, process in processes.items()}
            start = time.monotonic()
            time.sleep(seconds)
            elapsed = time.monotonic() - start
            cpu = {name: cpu_s(process) - before[name] for name, process in processes.items()}
            stop(player)
        time.sleep(1.5)  # the last picture is still on its way, and diagnostics come once a second
        stop(rec)
        stop(between)
    said = logs["player"].read_text(errors="replace")
    sent = {
        name: int(count)
        for count, name in re.findall(r"(\d+) (rgb|depth|thermal)", said.rpartition("sent ")[2])
    }
    figures = read_bag(bag, topics)
    if way == "relay":
        received = json.loads(logs[way].read_text().splitlines()[-1])
        figures |= {"received": received, "published": received["rgb"]}
    return figures | {"sent": sent, "elapsed_s": elapsed, "cpu_s": cpu}


def read_bag(bag: Path, topics: list[str]) -> dict[str, Any]:
    """What the recorder has of a turn."""
    latency: list[float] = []
    statuses = incomplete = dropped = 0
    received: dict[str, int] = {}
    store = get_typestore(Stores.LATEST)
    with AnyReader([bag], default_typestore=store) as reader:
        for connection, log_ns, data in reader.messages():
            if connection.topic == topics[0]:
                seconds, nanoseconds = struct.unpack_from("<iI", data, 4)
                latency.append((log_ns - seconds * 10**9 - nanoseconds) * 1e-6)
                continue
            message: Any = reader.deserialize(data, connection.msgtype)
            if connection.topic == STATUS:
                statuses += 1
                incomplete += not all(modality.used for modality in message.modalities)
                dropped = message.sets_dropped
                continue
            for status in message.status:
                if status.name.endswith("synchronizer"):
                    values = {entry.key: entry.value for entry in status.values}
                    received = {name: int(values[f"{name}_received"]) for name in CAMERAS}
    figures: dict[str, Any] = {"latency": latency, "recorded": len(latency), "dropped": dropped}
    return figures | {"received": received, "published": statuses, "incomplete": incomplete}


def summary(way: str, turns: list[dict[str, Any]]) -> dict[str, Any]:
    """All turns of one way together."""

    def total(name: str, key: str | None = None) -> Any:
        return sum(turn[name] if key is None else turn[name][key] for turn in turns)

    frames = RATE * total("elapsed_s")
    sent = {camera: total("sent", camera) for camera in CAMERAS}
    return {
        "seconds": round(total("elapsed_s"), 1),
        "sent": sent,
        "lost_to_" + way: {c: sent[c] - total("received", c) for c in CAMERAS},
        "sets_dropped": total("dropped"),
        "sets_incomplete": total("incomplete"),
        "results": total("published"),
        "results_lost_to_recorder": total("published") - total("recorded"),
        "latency": percentiles([value for turn in turns for value in turn["latency"]]),
        "cpu_ms_per_frame": {
            name: round(1e3 * total("cpu_s", name) / frames, 2) for name in turns[0]["cpu_s"]
        },
        "cores_used": round(
            sum(sum(turn["cpu_s"].values()) for turn in turns) / total("elapsed_s"), 2
        ),
    }


def main() -> None:
    """Measure in turns and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60, help="of each way, in all its turns")
    parser.add_argument("--size", default="1280x720", help="WIDTHxHEIGHT")
    parser.add_argument("--relay", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.relay:
        relay()
        return
    width, height = map(int, options.size.split("x"))
    isolate()
    turns: dict[str, list[dict[str, Any]]] = {"node": [], "relay": []}
    with tempfile.TemporaryDirectory() as name:
        recording = write_recording(Path(name) / "recording", (height, width))
        for number in range(ROUNDS):
            for way, done in turns.items():
                with tempfile.TemporaryDirectory(dir=name) as folder:
                    place = Path(folder) / f"{way}{number}"
                    done.append(
                        run_once(way, place, recording, (height, width), options.seconds / ROUNDS)
                    )
                print(f"{way} {number + 1} of {ROUNDS}: {summary(way, done[-1:])}", flush=True)
    figures = {way: summary(way, done) for way, done in turns.items()}
    node, bare = figures["node"], figures["relay"]
    figures |= {
        "size": options.size,
        "rate_hz": RATE,
        "ratio_p50": round(node["latency"]["p50_ms"] / bare["latency"]["p50_ms"], 2),
        "ratio_p99": round(node["latency"]["p99_ms"] / bare["latency"]["p99_ms"], 2),
        "ratio_cpu": round(node["cpu_ms_per_frame"]["node"] / bare["cpu_ms_per_frame"]["relay"], 2),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[1], 1),  # of the last five minutes; ours is near 1
    }
    for way in turns:
        row = figures[way]
        print(
            f"{way}: p50 {row['latency']['p50_ms']:.1f} ms, p99 {row['latency']['p99_ms']:.1f} ms"
        )
        print(f"  of {row['sent']} sent, lost {row['lost_to_' + way]}")
        print(f"  {row['results']} results, {row['results_lost_to_recorder']} lost to the recorder")
        print(f"  {row['sets_dropped']} sets dropped, {row['sets_incomplete']} incomplete")
        print(f"  CPU ms per frame {row['cpu_ms_per_frame']}, {row['cores_used']} cores in all")
    print(
        f"node against relay: p50 {figures['ratio_p50']}, p99 {figures['ratio_p99']}, "
        f"CPU {figures['ratio_cpu']}"
    )
    save("player_node_recorder", figures)


if __name__ == "__main__":
    main()
