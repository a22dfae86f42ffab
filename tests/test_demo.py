"""The main job from end to end: real processes, real DDS, a recording, its replay."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytestmark = pytest.mark.ros


def run_demo(repo_root, *options):
    environment = {**os.environ, "NO_COLOR": "1"}
    command = [sys.executable, repo_root / "scripts" / "demo.py", *map(str, options)]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=240, check=False
    )


@pytest.fixture(scope="module")
def finished(repo_root, tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    return run_demo(repo_root, "--frames", 4, "--rate", 1, "--out", out), out


def test_it_ends_by_naming_files_that_exist(finished):
    run, _ = finished
    assert run.returncode == 0, run.stdout + run.stderr
    named = re.findall(r"^  (/\S+)  \(", run.stdout, re.MULTILINE)
    assert len(named) == 4
    assert [path for path in named if not Path(path).exists()] == []


def test_every_picture_came_back_fused(finished):
    run, _ = finished
    assert "4 of 4 RGB frames came back fused" in run.stdout


def test_quality_was_measured_on_the_recording(finished):
    _, out = finished
    metrics = json.loads((out / "replay" / "metrics.json").read_text())
    assert metrics["sets"] == 4
    figures = metrics["modalities"]["rgb+depth+thermal"]["fused"]
    assert figures["Q_ABF"]["mean"] > 0.1


def test_unusable_data_are_one_clear_message(repo_root, tmp_path):
    run = run_demo(repo_root, "--data", tmp_path / "nowhere", "--out", tmp_path / "out")
    assert run.returncode == 1
    assert "no data at" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_missing_camera_is_done_without(repo_root, tmp_path):
    run = run_demo(
        repo_root, "--frames", 2, "--without", "depth", "--backend", "pass_through",
        "--out", tmp_path,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    metrics = json.loads((tmp_path / "replay" / "metrics.json").read_text())
    assert all("depth" not in modalities for modalities in metrics["modalities"])
