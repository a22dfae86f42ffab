"""What the node makes of transports, quality of service, camera_info, clocks and executors."""

from __future__ import annotations

import itertools
import re
import struct

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.ros

rclpy = pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from artifacts import write_artifact, write_rig
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from nodes import MS, PATIENT, SECOND, Peer, node_process, pictures, pixels, spinning
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage

from mmfusion_ros.core.camera_info import camera_info_of
from mmfusion_ros.core.rig import load_rig
from mmfusion_ros.fusion_node import FusionNode
from mmfusion_ros.messages import info_message, set_stamp

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
SPACE = "/inputs"
START = itertools.count(1000 * SECOND, 100 * SECOND)


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    return write_rig(tmp_path_factory.mktemp("rig") / "rig.yaml")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    return write_artifact(tmp_path_factory.mktemp("artifact") / "a")


@pytest.fixture
def peer():
    peer = Peer(SPACE)
    yield peer
    peer.close()


def compressed(name: str, picture: np.ndarray, stamp: int) -> CompressedImage:
    """As the plugins of image_transport send it; nothing is lost, RGB is a PNG here too."""
    if name == "rgb":
        body, kind = cv2.imencode(".png", picture[..., ::-1])[1].tobytes(), "rgb8; png compressed"
    elif name == "thermal":
        body, kind = cv2.imencode(".png", picture)[1].tobytes(), "mono16; png compressed "
    else:
        png = cv2.imencode(".png", picture)[1].tobytes()
        body, kind = struct.pack("<iff", 0, 0, 0) + png, "16UC1; compressedDepth png"
    message = CompressedImage(format=kind)
    message.header.frame_id = f"{name}_frame"
    set_stamp(message.header, stamp)
    message.data.frombytes(body)
    return message


def used_by_send(peer: Peer, send) -> int:
    """Send sets until a picture and a status come back; return the stamp of the picture."""
    stamps = itertools.count(next(START), 100 * MS)

    def answered():
        send(next(stamps))
        for _ in range(5):
            peer.executor.spin_once(timeout_sec=0.02)
        return peer.received["fused/image"].keys() & peer.received["status"].keys()

    return min(peer.until(answered, "results"))


@pytest.mark.parametrize("cut", [False, True])
def test_compressed_images_give_what_raw_ones_do(artifact, rig, peer, tmp_path, cut):
    transports = {
        "rgb_transport": "compressed",
        "depth_transport": "compressedDepth",
        "thermal_transport": "compressed",
    }
    with node_process(artifact, rig, tmp_path / "log", SPACE, **PATIENT, **transports):
        sent = pictures(4)
        publishers = {
            name: peer.node.create_publisher(
                CompressedImage, f"{name}/image/{transports[f'{name}_transport']}", 5
            )
            for name in sent
        }
        peer.listen("fused/image", "status")
        peer.until(
            lambda: all(p.get_subscription_count() for p in publishers.values()), "subscriptions"
        )

        def send(stamp: int) -> None:
            for name in ("thermal", "depth", "rgb"):
                message = compressed(name, sent[name], stamp)
                if cut and name == "thermal":
                    del message.data[len(message.data) // 2 :]
                publishers[name].publish(message)

        stamp = used_by_send(peer, send)
        modalities = {m.name: m for m in peer.received["status"][stamp].modalities}
        assert modalities["rgb"].used
        assert modalities["depth"].used
        assert modalities["thermal"].used is not cut
        fused = pixels(peer.received["fused/image"][stamp])
        if cut:
            np.testing.assert_array_equal(fused, sent["rgb"])
            peer.diagnosed("thermal camera", ERROR, "cannot be decoded")
        else:
            assert (fused != sent["rgb"]).any()


def test_quality_of_service_of_single_topics(artifact, rig, peer, tmp_path):
    overrides = {
        f"qos_overrides.{SPACE}/rgb/image.subscription.reliability": "best_effort",
        f"qos_overrides.{SPACE}/fusion_node/fused/image.publisher.reliability": "best_effort",
        f"qos_overrides.{SPACE}/fusion_node/status.publisher.durability": "transient_local",
        # Of no effect: not the full name, and a policy that there is no parameter for.
        "qos_overrides.depth/image.subscription.depth": 3,
        f"qos_overrides.{SPACE}/rgb/image.subscription.deadline": 5,
    }
    with node_process(artifact, rig, tmp_path / "log", SPACE, **PATIENT, **overrides):
        peer.advertise()
        peer.matched()

        def asked(topic, infos):
            return peer.until(lambda: infos(topic), topic)[0].qos_profile

        subscriptions = peer.node.get_subscriptions_info_by_topic
        publishers = peer.node.get_publishers_info_by_topic
        best_effort, reliable = ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE
        assert asked("rgb/image", subscriptions).reliability == best_effort
        assert asked("depth/image", subscriptions).reliability == reliable
        assert asked("fusion_node/fused/image", publishers).reliability == best_effort
        latched = DurabilityPolicy.TRANSIENT_LOCAL
        assert asked("fusion_node/status", publishers).durability == latched
    told = (tmp_path / "log").read_text()
    assert re.findall(r"parameter qos_overrides\.(\S+) has no effect", told) == [
        f"{SPACE}/rgb/image.subscription.deadline",
        "depth/image.subscription.depth",
    ]


@pytest.mark.parametrize("name", ["rgb/image.subscription", "fusion_node/fused/image.publisher"])
def test_a_wrong_quality_of_service_is_named(artifact, rig, peer, tmp_path, name):
    topic, kind = name.split(".")
    wrong = {f"qos_overrides.{SPACE}/{topic}.{kind}.durability": "for_ever"}
    with node_process(artifact, rig, tmp_path / "log", SPACE, **wrong):
        peer.diagnosed(
            "engine", ERROR, f"{SPACE}/{topic}.{kind}.durability is 'for_ever'; expected one"
        )
        assert peer.state() == ("inactive" if kind == "subscription" else "unconfigured")


def test_camera_info_is_compared_with_the_rig(artifact, rig, peer, tmp_path):
    with node_process(artifact, rig, tmp_path / "log", SPACE, **PATIENT):
        cameras = load_rig(rig).cameras
        infos = {
            name: peer.node.create_publisher(CameraInfo, f"{name}/camera_info", 5)
            for name in ("rgb", "thermal")
        }
        peer.advertise()
        peer.matched()
        peer.until(lambda: all(i.get_subscription_count() for i in infos.values()), "the node")
        peer.diagnosed("calibration", OK, "no camera_info")
        told = {m.value: info_message(camera_info_of(cameras[m])) for m in cameras}
        for name, publisher in infos.items():
            publisher.publish(told[name])
        status = peer.diagnosed("calibration", OK, "rgb, thermal agree with the rig file")
        assert {pair.key: pair.value for pair in status.values} == {
            "rgb": "agrees with the rig file",
            "depth": "no camera_info",
            "thermal": "agrees with the rig file",
        }
        told["thermal"].k[0] *= 1.5
        infos["thermal"].publish(told["thermal"])
        peer.diagnosed("calibration", WARN, "thermal: camera_info and the rig file put what is")
        assert "thermal camera: camera_info and the rig" in (tmp_path / "log").read_text()


def test_images_on_another_transport_are_pointed_to(artifact, rig, peer, tmp_path):
    with node_process(artifact, rig, tmp_path / "log", SPACE):
        peer.node.create_publisher(CompressedImage, "rgb/image/compressed", 5)
        peer.diagnosed(
            "inputs",
            WARN,
            f"somebody does on {SPACE}/rgb/image/compressed: set the transport parameter",
        )


def test_simulated_time(artifact, rig, peer, tmp_path):
    parameters = {**PATIENT, "use_sim_time": "true"}
    with node_process(artifact, rig, tmp_path / "log", SPACE, **parameters):
        peer.diagnosed("clock", WARN, "no simulated time has come, and nobody publishes /clock")
        clock = peer.node.create_publisher(Clock, "/clock", 5)
        peer.until(clock.get_subscription_count, "the node to follow /clock")
        sent = pictures(5)
        peer.advertise()
        peer.listen("fused/image", "status")
        peer.matched()

        def send(stamp: int) -> None:
            clock.publish(Clock(clock=Time(sec=stamp // SECOND, nanosec=stamp % SECOND)))
            peer.send(stamp, **sent)

        first = used_by_send(peer, send)
        status = peer.diagnosed("clock", OK, "/clock")
        assert 0 <= peer.received["status"][first].latency < 5
        assert "jumps_back" in {pair.key for pair in status.values}
        # A short recording that is played again: less than what stamps alone would show.
        last = first + 5 * SECOND
        send(last)
        peer.got("fused/image", last)
        send(last - 200 * MS)
        said = "time was set back by 0.200 s: beginning anew"
        peer.until(lambda: said in (tmp_path / "log").read_text(), "the jump in the log")
        peer.diagnosed("clock", OK)
        peer.received["fused/image"].clear()
        stamps = itertools.count(last - 100 * MS, 10 * MS)

        def again() -> bool:
            send(next(stamps))
            for _ in range(3):
                peer.executor.spin_once(timeout_sec=0.02)
            return min(peer.received["fused/image"], default=last) < last

        peer.until(again, "a picture of the time after the jump")


def test_stamps_of_another_clock_are_told(artifact, rig, peer, tmp_path):
    with node_process(artifact, rig, tmp_path / "log", SPACE, **PATIENT):
        peer.advertise()
        peer.listen("fused/image")
        peer.warm_up(next(START), **pictures(6))
        peer.diagnosed("clock", WARN, "s behind the node's clock; synchronise the clocks")
        # That is past once no images are taken in.
        assert peer.change_state(Transition.TRANSITION_DEACTIVATE)
        peer.diagnosed("clock", OK)


def test_the_events_executor(artifact, rig, peer, tmp_path):
    pytest.importorskip("rclpy.experimental", reason="this distribution has no events executor")
    parameters = {**PATIENT, "executor": "events"}
    with node_process(artifact, rig, tmp_path / "log", SPACE, **parameters) as process:
        peer.advertise()
        peer.listen("fused/image", "status")
        peer.warm_up(next(START), **pictures(7))
        peer.diagnosed("rgb camera", OK, "used in")
        process.terminate()
        assert process.wait(20) == 0
        # node_process asks for a living node, which this has been.
        process.poll = lambda: None


def test_two_rigs_in_one_process(artifact, rig):
    """Two nodes of one executor, told apart by their namespaces."""
    context = rclpy.Context()
    rclpy.init(context=context)
    values = {"artifact": str(artifact), "rig": str(rig), **PATIENT}
    overrides = [rclpy.Parameter(name, value=value) for name, value in values.items()]
    spaces = ("/front", "/rear")
    nodes = [
        FusionNode(context=context, namespace=space, parameter_overrides=overrides)
        for space in spaces
    ]
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(nodes[1])
    with spinning(nodes[0], executor):
        peers = [Peer(space) for space in spaces]
        try:
            for number, one in enumerate(peers):
                assert one.change_state(Transition.TRANSITION_CONFIGURE)
                assert one.change_state(Transition.TRANSITION_ACTIVATE)
                one.advertise()
                one.listen("fused/image", "status")
                start = (number + 1) * 1000 * SECOND
                one.warm_up(start, **pictures(number))
                assert min(one.received["fused/image"]) >= start
                one.diagnosed("rgb camera", OK, "used in")
            # Neither hears the other's cameras.
            assert max(peers[0].received["fused/image"]) < 2000 * SECOND
        finally:
            for one in peers:
                one.close()
    for node in nodes:
        node.destroy_node()
    rclpy.shutdown(context=context)
