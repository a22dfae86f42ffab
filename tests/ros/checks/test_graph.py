"""A running node and running cameras are looked at over real DDS."""

from __future__ import annotations

import contextlib
import os
import runpy
import threading
import time

import numpy as np
import pytest
from finders import by_check, is_helpful, levels

pytestmark = pytest.mark.ros

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("mmfusion_msgs.msg", reason="the workspace is not built")

import rclpy
from artifacts import write_artifact, write_rig
from nodes import ENCODINGS, PATIENCE_S, PATIENT, Peer, node_process, pictures
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header, String

from mmfusion_ros.checks import graph
from mmfusion_ros.checks.graph import check_graph
from mmfusion_ros.checks.subject import Setup
from mmfusion_ros.core.frames import Modality
from mmfusion_ros.messages import image_message, set_stamp

RATE = 20.0


def command(**options):
    """All that the command does, with an observer of its own."""
    return by_check(check_graph(Setup(rate=RATE, seconds=0.5, **options)))


@pytest.fixture(scope="module")
def observer():
    """One for many tests: whoever joins it is found at once."""
    with graph._observing() as found:
        yield found


@pytest.fixture
def check(observer):
    def look(name=None, rate=RATE, **options):
        setup = Setup(rate=rate, seconds=0.5, **options)
        return by_check(graph._whole_graph(observer, setup, name))

    return look


@contextlib.contextmanager
def cameras(shift_s=0.0, encoding="rgb8", skip=0, qos=None, names=tuple(ENCODINGS)):
    """Cameras that stamp by the wall clock, on a thread; ``None`` for no stamps at all."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("cameras", context=context)
    qos = qos or QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
    publishers = {name: node.create_publisher(Image, f"{name}/image", qos) for name in names}
    shots, stop = pictures(1), threading.Event()
    encodings = {**ENCODINGS, "rgb": encoding}
    if encoding != "rgb8":
        shots["rgb"] = np.zeros((48, 64), np.float32)

    def run():
        number, began_ns = 0, time.time_ns()
        while not stop.wait(1 / RATE):
            number += 1
            if skip and number % skip == 0:
                continue
            for name, publisher in publishers.items():
                header = Header(frame_id=name)
                if shift_s is not None:
                    set_stamp(header, began_ns + int((shift_s + number / RATE) * 1e9))
                publisher.publish(image_message(shots[name], encodings[name], header))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield node
    finally:
        stop.set()
        thread.join()
        node.destroy_node()
        context.try_shutdown()


@contextlib.contextmanager
def other_fusion_node(namespace):
    """One of that name; it does nothing."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("fusion_node", namespace=namespace, context=context)
    try:
        yield
    finally:
        node.destroy_node()
        context.try_shutdown()


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    return write_artifact(tmp_path_factory.mktemp("artifact") / "small")


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    return write_rig(tmp_path_factory.mktemp("rig") / "rig.yaml")


@pytest.fixture
def appeared(observer):
    """Wait for a node to be in a state; return its full name."""

    def wait(name="fusion_node", state="active"):
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            found = graph._find_node(observer, name)
            if found and graph._ask(observer, found).lifecycle == state:
                return found
        raise AssertionError("the node does not appear")

    return wait


@pytest.fixture
def empty_domain(repo_root, monkeypatch):
    """One in which no other test has left anything."""
    script = runpy.run_path(str(repo_root / "scripts" / "free_ros_domain.py"))
    domain, claim = script["claim_domain"]()
    with claim:
        monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
        yield


@pytest.mark.usefixtures("empty_domain")
def test_with_nothing_there_it_is_left_out(monkeypatch):
    monkeypatch.setattr(graph, "_DISCOVERY_S", 0.5)
    found = command()
    assert levels(found.values()) == {"graph.node": "skipped"}
    assert "/rgb/image" in found["graph.node"].found


@pytest.mark.usefixtures("empty_domain")
def test_a_node_that_is_asked_for_must_be_there(monkeypatch):
    monkeypatch.setattr(graph, "_NAMED_DISCOVERY_S", 0.5)
    finding = command(node="/fusion_node")["graph.node"]
    assert finding.level == "error"
    assert "no node at all" in finding.found
    monkeypatch.setattr(graph, "_NAMED_DISCOVERY_S", 4.0)
    with cameras():
        assert "/cameras" in command(node="fusion_node", quick=True)["graph.node"].found


def test_quick_without_a_node_looks_at_nothing():
    assert levels(command(quick=True).values()) == {"graph.node": "skipped"}


def test_without_ros_it_is_left_out():
    environment = {**os.environ, "RMW_IMPLEMENTATION": "rmw_nothing_cpp"}
    assert levels(command(environment=environment).values()) == {"graph.node": "skipped"}


def test_a_node_at_work_is_fine(artifact, rig, tmp_path, appeared):
    with cameras(), node_process(artifact, rig, tmp_path / "log", **PATIENT):
        appeared()
        found = command(artifact=artifact)
        quick = command(node="/fusion_node", quick=True)
    assert found["graph.node"].level == "ok"
    assert found["graph.node"].values["lifecycle"] == "active"
    for name in ("graph.rgb", "graph.depth", "graph.thermal"):
        # A busy machine sends late: then it is slow, a note.
        assert found[name].level in {"ok", "note"}, found[name]
        assert "/cameras reliable volatile" in found[name].found
    assert "64x48 mono16" in found["graph.thermal"].found
    assert found["graph.thermal"].values["images"] > 1
    assert "inputs" in found["graph.diagnostics"].values
    assert list(quick) == ["graph.diagnostics"]


def test_a_node_in_a_namespace_with_topics_of_its_own(artifact, rig, tmp_path, check, appeared):
    parameters = {
        **PATIENT,
        "rgb_topic": "front/image",
        "rgb_transport": "compressed",
        "depth_topic": "/depth/image",
    }
    remap = {"thermal/image": "/lepton/image"}
    with (
        other_fusion_node("/second"),
        node_process(artifact, rig, tmp_path / "log", "/robot", remap, **parameters),
    ):
        found = check(appeared("/robot/fusion_node"))
    assert "/robot/front/image/compressed" in found["graph.rgb"].found
    assert "/depth/image" in found["graph.depth"].found
    assert "nobody publishes /lepton/image" in found["graph.thermal"].found
    assert found["graph.others"].level == "note"
    assert "/second/fusion_node not looked at" in found["graph.others"].found
    assert is_helpful(found["graph.others"])
    assert found["graph.diagnostics"].level == "error"  # no RGB frames
    assert is_helpful(found["graph.diagnostics"])


def test_a_node_that_cannot_be_configured_says_why(rig, tmp_path, check, appeared):
    with node_process(tmp_path / "nothing", rig, tmp_path / "log"):
        found = check(appeared(state="unconfigured"))
    assert found["graph.node"].level == "warning"
    assert "unconfigured" in found["graph.node"].found
    assert found["graph.diagnostics"].level == "error"
    assert "is not an artifact" in found["graph.diagnostics"].found


def test_simulated_time_without_a_clock_is_a_warning(artifact, rig, tmp_path, check, appeared):
    with node_process(artifact, rig, tmp_path / "log", use_sim_time="true", **PATIENT):
        finding = check(appeared())["graph.node"]
    assert finding.level == "warning"
    assert "nobody publishes /clock" in finding.found


def test_a_clock_that_is_not_used_is_a_note(artifact, rig, tmp_path, check, appeared):
    with cameras(names=()) as node, node_process(artifact, rig, tmp_path / "log", **PATIENT):
        node.create_publisher(Clock, "/clock", 5)
        finding = check(appeared())["graph.node"]
    assert finding.level == "note"
    assert is_helpful(finding)


def test_a_node_that_is_silent_is_an_error(check):
    peer = Peer()
    try:
        found = check("/peer")
    finally:
        peer.close()
    assert found["graph.node"].level == "error"
    assert "gives no answer" in found["graph.node"].found
    assert found["graph.diagnostics"].level == "error"


@pytest.mark.parametrize(
    ("how", "options", "level", "words"),
    [
        ({}, {"size": (480, 640)}, "error", "images of this size are left out"),
        ({"encoding": "32FC1"}, {}, "error", "images of this encoding are left out"),
        ({"shift_s": None}, {}, "warning", "no stamp"),
        ({"shift_s": 3.0}, {}, "warning", "ahead of"),
        ({"shift_s": -30.0}, {}, "warning", "behind"),
        ({"skip": 4}, {}, "warning", "are missing between the stamps"),
    ],
)
def test_faults_of_cameras_are_told_without_a_node(check, how, options, level, words):
    with cameras(**how):
        found = check(**options)
    assert found["graph.node"].level == "skipped"
    finding = found["graph.rgb"]
    assert words in finding.found
    assert finding.level == level
    assert is_helpful(finding)


def test_a_slow_camera_is_a_note(check):
    with cameras():
        found = check(rate=100.0)
    assert found["graph.rgb"].level == "note"


def test_what_publishers_offer_is_told_and_heard(check):
    qos = QoSProfile(
        depth=5,
        reliability=ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    )
    with cameras(qos=qos, names=("rgb",)):
        found = check()
    assert "/cameras best_effort transient_local" in found["graph.rgb"].found
    assert found["graph.rgb"].level in {"ok", "note"}
    assert found["graph.depth"].level == "warning"
    assert "nobody publishes /depth/image" in found["graph.depth"].found


def test_topics_of_other_types_and_silent_ones(check):
    with cameras(names=()) as node:
        node.create_publisher(String, "words", 5)
        node.create_publisher(Image, "silent", 5)
        compressed = node.create_publisher(CompressedImage, "jpeg", 5)
        message = CompressedImage(format="jpeg", data=b"\xff\xd8")
        stop = threading.Event()

        def run():
            while not stop.wait(0.05):
                set_stamp(message.header, time.time_ns())
                compressed.publish(message)

        thread = threading.Thread(target=run)
        thread.start()
        topics = dict(zip(Modality, ("words", "/silent", "jpeg"), strict=True))
        found = check(topics=topics)
        stop.set()
        thread.join()
    assert found["graph.rgb"].level == "error"
    assert "std_msgs/msg/String" in found["graph.rgb"].found
    assert found["graph.depth"].level == "error"
    assert "no image came" in found["graph.depth"].found
    assert found["graph.thermal"].level == "ok"
    assert "jpeg" in found["graph.thermal"].found
