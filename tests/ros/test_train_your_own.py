"""docs/train-your-own.md, walked: its commands, as they stand there, one after the other."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import textwrap
import time
import urllib.request
from contextlib import ExitStack, contextmanager

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from nodes import Peer

pytestmark = [pytest.mark.ros, pytest.mark.torch, pytest.mark.export]

PATIENCE_S = 600  # busy machines; reached only when something is broken
WELL = "graph.diagnostics        all well"
SET_UP = "source scripts/setup.sh dev\n"
ANOTHER_SHELL = re.compile(r"(another shell|a shell of its own):\s*$")


def commands(page):
    """Indented blocks of a page in order, and whether each runs in a shell of its own."""
    blocks = re.finditer(r"(?:^(?: {4}.*)?\n)+", page, re.MULTILINE)
    return [
        (textwrap.dedent(block[0]).strip("\n") + "\n",
         bool(ANOTHER_SHELL.search(page[: block.start()])))
        for block in blocks
        if block[0].strip()
    ]  # fmt: skip


def run(command, folder):
    done = subprocess.run(
        ["bash", "-euc", command], cwd=folder, timeout=PATIENCE_S, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout


def run_until(text, command, folder):
    """Run a command again until it says this, for a minute: on a busy machine, frames are dropped
    now and then, which the doctor tells rightly."""
    deadline = time.monotonic() + 60
    while text not in (output := run(command, folder)) and time.monotonic() < deadline:
        pass
    return output


@contextmanager
def shell_beside(command, folder, log):
    """A shell in which a program keeps running; interrupted at the end, as by Ctrl-C."""
    with log.open("wb") as sink:
        process = subprocess.Popen(
            ["bash", "-euc", f"exec {command}"], cwd=folder, stdout=sink,
            stderr=subprocess.STDOUT, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
    try:
        yield
        assert process.poll() is None, f"{command} ended:\n{log.read_text()}"
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def said(log, pattern):
    """Wait for a line of a program."""
    deadline = time.monotonic() + PATIENCE_S
    while (found := re.search(pattern, log.read_text(errors="replace"))) is None:
        assert time.monotonic() < deadline, f"no {pattern!r} in:\n{log.read_text()}"
        time.sleep(0.2)
    return found[0]


@pytest.fixture(scope="module")
def walk(repo_root, tmp_path_factory):
    """The folder after the walk, and what each command said, by its first words."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("artifacts", "calibration", "data", "weights"):
        (folder / name).symlink_to(repo_root / name)
    page = (repo_root / "docs" / "train-your-own.md").read_text()
    outputs = {}
    with ExitStack() as shells:
        for number, (command, beside) in enumerate(commands(page)):
            if command == SET_UP:
                continue  # the environment that runs this test
            if not beside:
                started = time.monotonic()
                before = weights(folder)
                well = WELL if "mmfusion_ros.doctor" in command else ""
                outputs[command] = run_until(well, command, folder)
                if "--resume" in command:
                    outputs["resumed"] = before == weights(folder) != b""
                print(f"{time.monotonic() - started:.1f} s: {command.splitlines()[0]}")
                continue
            log = folder / f"shell_{number}.log"
            shells.enter_context(shell_beside(command, folder, log))
            if command.startswith("tensorboard"):
                outputs["curves"] = curves(said(log, r"http://localhost:\d+/"))
            elif "fusion_node" in command:
                said(log, "configured: artifact my_artifact")
            else:
                outputs["live"] = state_and_mask()
    return folder, outputs


def weights(folder):
    path = folder / "out/walk/first_try/model.safetensors"
    return path.read_bytes() if path.exists() else b""


def curves(address):
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + PATIENCE_S
    while True:  # it loads in the background
        with direct.open(f"{address}data/plugin/scalars/tags", timeout=60) as answer:
            tags = json.load(answer)
        if tags or time.monotonic() > deadline:
            return {name for run in tags.values() for name in run}
        time.sleep(0.2)


def state_and_mask():
    """State of the running node, and the size of its first mask."""
    peer = Peer()
    try:
        peer.listen("saliency/mask")
        masks = peer.received["saliency/mask"]
        mask = peer.until(lambda: list(masks.values()), "a mask")[0]
        return peer.state(), (mask.width, mask.height)
    finally:
        peer.close()


def output_of(outputs, words):
    (output,) = [text for command, text in outputs.items() if command.startswith(words)]
    return output


def test_the_bag_becomes_a_folder_to_train_on(walk):
    folder, _ = walk
    for camera in ("rgb", "depth", "thermal"):
        assert len(list((folder / "out/walk/from_bag" / camera).iterdir())) == 4
    record = json.loads((folder / "out/walk/fusion/record.json").read_text())
    assert record["samples"] == 4


def test_curves_are_in_the_browser(walk):
    _, outputs = walk
    assert any("loss" in name for name in outputs["curves"])


def test_a_training_that_is_resumed_is_the_same_training(walk):
    folder, outputs = walk
    record = json.loads((folder / "out/walk/first_try/record.json").read_text())
    assert (record["samples"], record["steps"]) == (2, 4)
    assert outputs["resumed"] is True


def test_quality_is_measured_clean_and_corrupted(walk):
    folder, _ = walk
    figures = json.loads((folder / "out/walk/evaluation.json").read_text())["figures"]
    assert figures.keys() == {"rgb+depth", "rgb"}
    assert (folder / "out/walk/robustness.png").stat().st_size > 0


def test_the_artifact_holds_the_weights_and_the_depth_of_the_training(walk):
    folder, _ = walk
    manifest = json.loads((folder / "out/walk/my_artifact/manifest.json").read_text())
    (saliency,) = [model for model in manifest["models"] if model["role"] == "saliency"]
    weights = (folder / "out/walk/first_try/best.safetensors").read_bytes()
    assert saliency["checkpoint_sha256"] == hashlib.sha256(weights).hexdigest()
    assert saliency["settings"]["depth_range_m"] == [0.3, 15]
    assert saliency["training_data"] == "2 renders of the courtyard by day"


def test_the_recording_is_replayed_and_measured_by_its_masks(walk):
    folder, _ = walk
    for artifact in ("my_artifact", "rgbdt_tiny_640x480"):
        metrics = json.loads((folder / f"out/walk/replay/{artifact}/metrics.json").read_text())
        assert metrics["sets"] == 4
        assert metrics["bag"]["topics"]["rgb"]["messages"] == 40
    assert (folder / "out/walk/replay/compare.html").is_file()


def test_the_node_runs_the_artifact(walk):
    _, outputs = walk
    assert outputs["live"] == ("active", (640, 480))
    assert WELL in output_of(outputs, "python -m mmfusion_ros.doctor")


def test_files_the_page_tells_to_look_at_exist(walk, repo_root):
    folder, _ = walk
    page = (repo_root / "docs" / "train-your-own.md").read_text()
    named = re.findall(r"`(out/walk/[^`\s]+)`", page)
    assert named
    assert [path for path in named if not (folder / path).exists()] == []
