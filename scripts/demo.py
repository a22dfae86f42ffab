"""The whole way on one machine: cameras, node, recording, replay, report.

Every program runs as its own process, as on a robot; only DDS is between them.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "data" / "courtyard"
ARTIFACT = ROOT / "artifacts" / "s4fusion_tiny_640x480"
RIG = ROOT / "calibration" / "demo.yaml"
INPUTS = ["rgb/image", "rgb/camera_info", "depth/image", "thermal/image"]
OUTPUTS = ["fusion_node/fused/image", "fusion_node/fused/camera_info", "fusion_node/status"]
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0


class DemoError(Exception):
    """A step of the demo failed; the message says which and where its log is."""


def main() -> int:
    """Run the demo; returns the exit status."""
    options = _arguments()
    out: Path = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    try:
        recording = _play_and_record(options, out)
        _replay(options, recording, out)
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: stopped", file=sys.stderr)
        return 130
    _print_summary(recording, out)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/demo.sh", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data",
        type=Path,
        default=DATA,
        metavar="FOLDER_OR_BAG",
        help="pictures in subfolders rgb (or vi), thermal (or ir) and depth, or "
        "a bag; default: the bundled courtyard sequence",
    )
    parser.add_argument("--artifact", type=Path, default=ARTIFACT, help="default: the bundled one")
    parser.add_argument("--rig", type=Path, default=RIG, help="default: calibration/demo.yaml")
    parser.add_argument(
        "--rate",
        type=float,
        default=2.0,
        help="pictures per second (default: %(default)s, for a CPU of two cores)",
    )
    parser.add_argument("--frames", type=int, default=40, help="at most this many (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="default: %(default)s")
    return parser.parse_args()


def _play_and_record(options: argparse.Namespace, out: Path) -> Path:
    """Cameras into the node over DDS, everything recorded; returns the recording."""
    for path, what in ((options.data, "data"), (options.artifact, "artifact")):
        if not path.exists():
            raise DemoError(f"no {what} at {path}")
    recording = out / "recording"
    size = _image_size(options.artifact)
    _use_private_domain()
    node = ["fusion_node", "--ros-args", "-p", f"artifact:={options.artifact.resolve()}",
            "-p", f"rig:={options.rig.resolve()}", "-p", "autostart:=true"]  # fmt: skip
    recorder = ["recorder", "--out", str(recording), *INPUTS, *OUTPUTS]
    player = ["camera_player", str(options.data.resolve()), "--size", size,
              "--rate", str(options.rate), "--frames", str(options.frames)]  # fmt: skip
    with (
        _running(node, out / "fusion_node.log") as fusion_node,
        _running(recorder, out / "recorder.log") as bag,
    ):
        _wait_until_listening({"fusion_node": fusion_node, "recorder": bag}, out)
        print(f"playing {options.data} into the node ({size}, {options.rate:g} Hz)", flush=True)
        _run(player, "camera_player")
        time.sleep(2.0)  # the last picture is still in the engine when the player ends
    return recording


def _replay(options: argparse.Namespace, recording: Path, out: Path) -> None:
    print("replaying the recording offline", flush=True)
    _run(["replay", str(recording), "--artifact", str(options.artifact.resolve()),
          "--rig", str(options.rig.resolve()), "--out", str(out / "replay")], "replay")  # fmt: skip


def _image_size(artifact: Path) -> str:
    try:
        manifest = json.loads((artifact / "manifest.json").read_text())
        height, width = next(e for e in manifest["inputs"] if e["name"] == "rgb")["shape"][:2]
    except (OSError, ValueError, KeyError, StopIteration) as error:
        raise DemoError(f"{artifact} is no artifact: {error}") from error
    return f"{width}x{height}"


def _use_private_domain() -> None:
    """Hear no other robot, unless the user chose a domain, in RViz for instance."""
    if "ROS_DOMAIN_ID" not in os.environ:
        finder = [sys.executable, str(ROOT / "scripts" / "free_ros_domain.py")]
        domain = subprocess.run(finder, check=True, capture_output=True, text=True).stdout.strip()
        os.environ["ROS_DOMAIN_ID"] = domain
        os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    print(f"ROS_DOMAIN_ID={os.environ['ROS_DOMAIN_ID']} (to look on with RViz)", flush=True)


def _command(arguments: list[str]) -> list[str]:
    return [sys.executable, "-m", f"mmfusion_ros.{arguments[0]}", *arguments[1:]]


@contextmanager
def _running(arguments: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run one of our programs in the background; interrupt it at the end, as Ctrl-C would."""
    with log.open("wb") as sink:
        process = subprocess.Popen(_command(arguments), stdout=sink, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(STOP_TIMEOUT_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _run(arguments: list[str], name: str) -> None:
    status = subprocess.run(_command(arguments), check=False).returncode
    if status != 0:
        raise DemoError(f"{name} ended with status {status}; its messages are above")


def _wait_until_listening(processes: dict[str, subprocess.Popen[bytes]], out: Path) -> None:
    """Wait until node and recorder have subscribed, so that no picture is lost."""
    import rclpy  # noqa: PLC0415 (the messages above should come at once)

    rclpy.init()
    watcher = rclpy.create_node("demo_watcher")
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while watcher.count_subscribers("rgb/image") < len(processes):
            for name, process in processes.items():
                if process.poll() is not None:
                    log = (out / f"{name}.log").read_text(errors="replace").strip()
                    raise DemoError(f"{name} ended at start:\n{log[-2000:]}")
            if time.monotonic() > deadline:
                raise DemoError(f"the programs did not start in {START_TIMEOUT_S:g} s; see {out}")
            time.sleep(0.1)
    finally:
        watcher.destroy_node()
        rclpy.try_shutdown()


def _print_summary(recording: Path, out: Path) -> None:
    print("\nLook at:")
    for path, what in (
        (out / "replay" / "report.html", "pictures, quality and latency, in a browser"),
        (out / "replay" / "result.mcap", "results, in Foxglove or RViz"),
        (out / "replay" / "metrics.json", "the figures"),
        (recording, "what was on the topics while the node ran"),
    ):
        print(f"  {path}  ({what})")


if __name__ == "__main__":
    sys.exit(main())
