"""Cameras with every fault there is play into the node over DDS, which keeps going and says why."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.ros

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("mmfusion_msgs.msg", reason="mmfusion_msgs is not built")

from artifacts import write_artifact, write_rig
from bags import START, cameras, write_bag
from diagnostic_msgs.msg import DiagnosticStatus
from nodes import MS, PATIENT, SECOND, SIZE, Peer, node_process

NAMESPACE = "/faulty"
SETS = 60
PERIOD = 100 * MS


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faulty")
    artifact = write_artifact(folder / "small", rgb=SIZE, depth=SIZE, thermal=SIZE)
    bag = write_bag(folder / "bag", cameras(SETS, size=SIZE))
    return artifact, write_rig(folder / "rig.yaml", SIZE), bag


@pytest.fixture
def peer():
    peer = Peer(NAMESPACE)
    yield peer
    peer.close()


def play(peer, bag, *arguments):
    """Play a bag to its end into the node, once that knows this peer."""
    peer.until(lambda: peer.state() == "active", "the node to be active")
    command = [sys.executable, "-m", "mmfusion_ros.camera_player", str(bag), *arguments]
    command += ["--ros-args", "-r", f"__ns:={NAMESPACE}"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            peer.until(lambda: process.poll() is not None, "the player to end")
        finally:
            process.kill()
        output = process.stdout.read()
    assert process.returncode == 0, output
    return output


def reasons(statuses, camera):
    modalities = [m for status in statuses for m in status.modalities if m.name == camera]
    return {modality.reason for modality in modalities}


def complete(statuses):
    """How many sets had all cameras."""
    return sum(all(modality.used for modality in status.modalities) for status in statuses)


def test_the_node_survives_all_faults_and_names_them(peer, files, tmp_path):
    artifact, rig, bag = files
    # Patient with a slow machine, but not so that sets queue up while depth stalls.
    values = PATIENT | {"max_wait_ms": 250.0}
    with node_process(artifact, rig, tmp_path / "node.log", NAMESPACE, **values):
        peer.listen("status", "fused/image")
        faults = [
            "depth:stall=1@0.5",
            "thermal:freeze=1@0.5",
            "depth:truncate=0.5@2-2.5",
            "thermal:noise=30@2",
            "thermal:shift=6,-2",
            "rgb:jitter_ms=5",
            "rgb:truncate=0.1@3-3.3",
            "all:jump_s=-20@4",
        ]
        output = play(peer, bag, *(f"--fault={fault}" for fault in faults))
        assert f"sent {SETS} rgb" in output
        peer.diagnosed("engine", DiagnosticStatus.OK)
    statuses = list(peer.received["status"].values())
    assert len(statuses) > SETS // 2  # a slow machine, and time going back, cost sets
    assert reasons(statuses, "depth") >= {"", "invalid"}
    assert reasons(statuses, "depth") & {"absent", "stale", "late"}
    assert "frozen" in reasons(statuses, "thermal")
    assert "invalid" in reasons(statuses, "rgb")
    # It went back in time with the cameras, and on with all of them.
    stamps = list(peer.received["status"])
    assert min(np.diff(stamps)) < -19 * SECOND
    after = statuses[int(np.argmin(np.diff(stamps))) + 1 :]
    assert complete(after)


def test_compressed_cameras_are_heard(peer, files, tmp_path):
    artifact, rig, bag = files
    transports = {"rgb": "compressed", "depth": "compressedDepth", "thermal": "compressed"}
    values = PATIENT | {f"{name}_transport": how for name, how in transports.items()}
    with node_process(artifact, rig, tmp_path / "node.log", NAMESPACE, **values):
        peer.listen("status")
        arguments = [f"--transport={name}={how}" for name, how in transports.items()]
        play(peer, bag, "--frames=20", *arguments)
        # Best effort: a slow machine may lose some.
        peer.until(lambda: complete(peer.received["status"].values()) >= 10, "most sets")


def test_the_node_follows_the_clock_of_a_looped_recording(peer, files, tmp_path):
    artifact, rig, bag = files
    values = PATIENT | {"use_sim_time": "true"}
    with node_process(artifact, rig, tmp_path / "node.log", NAMESPACE, **values):
        peer.listen("status")
        command = [sys.executable, "-m", "mmfusion_ros.camera_player", str(bag), "--frames", "20"]
        # Back by more than a second, which is what the node takes for a jump.
        command += ["--clock", "--loop", "--ros-args", "-r", f"__ns:={NAMESPACE}"]
        came = peer.received["status"]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            try:
                # Sets that are undecided still when time goes back are lost.
                peer.until(lambda: len(came) >= 15, "a round")
                first = dict(came)
                came.clear()
                peer.until(lambda: len(came) >= 15, "another round")
            finally:
                process.kill()
    expected = {START + index * PERIOD for index in range(20)}
    assert set(first) | set(came) <= expected
    # Latency by the recording's time: from the stamp to now, not from years ago.
    assert all(0 <= status.latency < 10 for status in came.values())
