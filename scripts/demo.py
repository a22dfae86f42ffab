"""The whole way on one machine: cameras, node, recording, replay, report.

Every program runs as its own process, as on a robot; only DDS is between them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "data" / "courtyard"
ARTIFACT = ROOT / "artifacts" / "rgbdt_tiny_640x480"
RIG = ROOT / "calibration" / "demo.yaml"
INPUTS = ["rgb/image", "rgb/camera_info", "depth/image", "thermal/image"]
OUTPUTS = ["fusion_node/fused/image", "fusion_node/fused/camera_info", "fusion_node/status"]
# What else the node publishes, by the output of the graph that it takes.
MORE_OUTPUTS = {
    "saliency": ["fusion_node/saliency/mask"],
    "boxes": ["fusion_node/detections", "fusion_node/detections_3d", "fusion_node/markers"],
}
HEADLINE_METRICS = ("Q_ABF", "VIF", "SF")
LISTENERS = 2  # node and recorder: whoever comes later misses pictures
START_TIMEOUT_S = 20.0
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
    parser.add_argument(
        "--without",
        choices=("depth", "thermal"),
        action="append",
        default=[],
        help="leave this camera out; may be given twice",
    )
    parser.add_argument("--artifact", type=Path, default=ARTIFACT, help="default: the bundled one")
    parser.add_argument("--rig", type=Path, default=RIG, help="default: calibration/demo.yaml")
    parser.add_argument("--backend", default="auto", help="engine (default: %(default)s)")
    parser.add_argument(
        "--rate",
        type=_positive,
        default=5.0,
        help="pictures per second (default: %(default)s); a bag keeps its own",
    )
    parser.add_argument("--frames", type=int, default=40, help="at most this many (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="default: %(default)s")
    return parser.parse_args()


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return value


def _play_and_record(options: argparse.Namespace, out: Path) -> Path:
    """Cameras into the node over DDS, everything recorded; returns the recording."""
    for path, what in ((options.data, "data"), (options.artifact, "artifact")):
        if not path.exists():
            raise DemoError(f"no {what} at {path}")
    recording = out / "recording"
    _remove_old(recording)
    tensors = _tensors(options.artifact)
    sizes = _image_sizes(tensors)
    _use_private_domain()
    node = ["fusion_node", "--ros-args", "-p", f"artifact:={options.artifact.resolve()}",
            "-p", f"rig:={options.rig.resolve()}", "-p", f"backend:={options.backend}",
            "-p", "autostart:=true"]  # fmt: skip
    more = [topic for name, topics in MORE_OUTPUTS.items() if name in tensors for topic in topics]
    outputs = [*OUTPUTS, *more]
    recorder = ["recorder", "--out", str(recording), *INPUTS, *outputs]
    player = ["camera_player", str(options.data.resolve()), "--size", sizes["rgb"],
              "--frames", str(options.frames), "--listeners", str(LISTENERS)]  # fmt: skip
    for camera in ("depth", "thermal"):
        player += [f"--{camera}-size", sizes[camera]] if camera in sizes else []
    player += ["--rate", str(options.rate)] if _is_folder_of_images(options.data) else []
    player += [word for camera in options.without for word in ("--without", camera)]
    shown = ", ".join(f"{camera} {size}" for camera, size in sizes.items())
    print(f"playing {options.data} into the node ({shown})", flush=True)
    with (
        _running(node, out / "fusion_node.log"),
        _running(recorder, out / "recorder.log"),
    ):
        _wait_for_recorder(out / "recorder.log", outputs)
        try:
            _run(player, "camera_player")
        except DemoError as error:
            log = (out / "fusion_node.log").read_text(errors="replace").strip()
            raise DemoError(f"{error}; the node said:\n{log[-2000:]}") from error
        time.sleep(2.0)  # the last picture is still in the engine when the player ends
    return recording


def _wait_for_recorder(log: Path, topics: list[str]) -> None:
    """Wait until the node's results are listened to; what keeps the node will show without."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        said = log.read_text(errors="replace")
        if all(f"recording /{topic}\n" in said for topic in topics):
            return
        time.sleep(0.1)


def _is_folder_of_images(data: Path) -> bool:
    """Whether there are pictures to pace; a bag has its own rate."""
    return any((data / name).is_dir() for name in ("rgb", "visible", "vi"))


def _remove_old(recording: Path) -> None:
    """Remove the recording of an earlier demo, and nothing else."""
    if not recording.exists():
        return
    if not (recording / "metadata.yaml").is_file():
        raise DemoError(f"{recording} exists and is no recording; choose another --out")
    shutil.rmtree(recording)


def _replay(options: argparse.Namespace, recording: Path, out: Path) -> None:
    print("replaying the recording offline", flush=True)
    command = ["replay", str(recording), "--artifact", str(options.artifact.resolve()),
               "--rig", str(options.rig.resolve()), "--backend", options.backend,
               "--out", str(out / "replay")]  # fmt: skip
    for camera in _absent_cameras(recording):
        command += ["--without", camera]
    _run(command, "replay")


def _absent_cameras(recording: Path) -> list[str]:
    """Cameras of which the recording holds nothing."""
    counts = _message_counts(recording)
    return [camera for camera in ("depth", "thermal") if not counts.get(f"/{camera}/image")]


def _message_counts(recording: Path) -> dict[str, int]:
    path = recording / "metadata.yaml"
    if not path.is_file():
        log = (recording.parent / "recorder.log").read_text(errors="replace").strip()
        raise DemoError(f"nothing was recorded; the recorder said:\n{log[-2000:]}")
    topics = yaml.safe_load(path.read_text())["rosbag2_bagfile_information"]
    return {
        entry["topic_metadata"]["name"]: entry["message_count"]
        for entry in topics["topics_with_message_count"]
    }


def _tensors(artifact: Path) -> dict[str, list[int]]:
    """Shape of every input and output of an artifact."""
    try:
        manifest = json.loads((artifact / "manifest.json").read_text())
        entries = [*manifest["inputs"], *manifest["outputs"]]
        return {entry["name"]: entry["shape"] for entry in entries}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DemoError(
            f"{artifact} is no artifact; expected a folder written by 'mmfusion export' ({error!r})"
        ) from error


def _image_sizes(tensors: dict[str, list[int]]) -> dict[str, str]:
    """What an artifact takes, by camera, as WIDTHxHEIGHT."""
    return {
        camera: f"{tensors[camera][1]}x{tensors[camera][0]}"
        for camera in ("rgb", "depth", "thermal")
        if camera in tensors
    }


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


def _print_summary(recording: Path, out: Path) -> None:
    counts = _message_counts(recording)
    replay = out / "replay"
    metrics = json.loads((replay / "metrics.json").read_text())
    latency = json.loads((replay / "latency.json").read_text())
    masks = counts.get("/fusion_node/saliency/mask", 0)
    fused, frames = counts.get("/fusion_node/fused/image", 0), counts["/rgb/image"]
    print(
        f"\nlive:    {fused} of {frames} RGB frames came back fused"
        f"{f', {masks} with a saliency mask' if masks else ''}"
        f"{'; the others came faster than the engine runs here, see --rate' * (fused < frames)}"
    )
    print(f"offline: {metrics['sets']} frame sets, engine {latency['stages']['engine']['p50']:.0f} "
          f"ms per set (median, {metrics['engine']['backend']})")  # fmt: skip
    for modalities, figures in metrics["modalities"].items():
        if "average" in figures:
            shown = ", ".join(
                f"{name} {_mean(figures['fused'], name)} ({_mean(figures['average'], name)})"
                for name in HEADLINE_METRICS
            )
            print(f"quality: {modalities}: {shown} (in brackets: plain average of the inputs)")
    print("\nLook at:")
    for path, what in (
        (replay / "report.html", "pictures, quality and latency, in a browser"),
        (replay / "result", "results as a bag, in Foxglove or RViz"),
        (replay / "metrics.json", "the figures"),
        (recording, "what was on the topics while the node ran"),
    ):
        print(f"  {path}  ({what})")


def _mean(figures: dict[str, dict[str, float | None]], name: str) -> str:
    mean = figures[name]["mean"]
    return "n/a" if mean is None else f"{mean:.3f}"


if __name__ == "__main__":
    sys.exit(main())
