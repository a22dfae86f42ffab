"""Nodes whose construction fails, seen by another node over real DDS."""

from __future__ import annotations

import logging

import pytest

pytestmark = pytest.mark.ros

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("mmfusion_msgs.msg", reason="mmfusion_msgs is not built")

import cv2
import numpy as np
import rclpy
from nodes import Peer
from rclpy.parameter import Parameter
from rclpy.qos import ReliabilityPolicy

from mmfusion_ros.camera_player import CameraPlayer
from mmfusion_ros.core.errors import MmfusionError
from mmfusion_ros.core.playback import open_playback
from mmfusion_ros.core.sent_image import Sender
from mmfusion_ros.fusion_node import FusionNode

PREFIX = "/refused"


@pytest.fixture
def peer():
    peer = Peer(PREFIX)
    yield peer
    peer.close()


@pytest.fixture
def start_ros():
    """Start ROS in this process, with arguments, which a node gets that takes none."""

    def start(*arguments):
        rclpy.init(args=["--ros-args", "-r", f"__ns:={PREFIX}", *arguments])

    yield start
    rclpy.try_shutdown()


def seen_beside_another(peer):
    """What the other nodes of this process are, as the peer is told together with a last one."""
    last = rclpy.create_node("last")
    try:
        names = peer.until(
            lambda: names if "last" in (names := peer.node.get_node_names()) else None,
            "the node made last",
        )
    finally:
        last.destroy_node()
    return set(names) - {"last", "peer"}


def topics_and_services(peer):
    graph = peer.node.get_topic_names_and_types() + peer.node.get_service_names_and_types()
    return [name for name, _ in graph]


@pytest.mark.parametrize(
    ("parameter", "value"),
    [("backend", "steam"), ("qos_overrides./diagnostics.publisher.depth", 0)],
)
def test_a_fusion_node_that_refuses_a_parameter_leaves_the_graph(peer, start_ros, parameter, value):
    handlers = list(logging.getLogger("mmfusion_ros").handlers)
    start_ros()
    # Kept, and with it all that its traceback refers to: a program may go on without the node.
    with pytest.raises(MmfusionError, match=parameter) as refusal:
        FusionNode(parameter_overrides=[Parameter(parameter, value=value)])
    assert seen_beside_another(peer) == set()
    peer.until(
        lambda: not any("fusion_node" in name for name in topics_and_services(peer)),
        "its services and topics to go",
    )
    assert logging.getLogger("mmfusion_ros").handlers == handlers
    assert refusal.value.__traceback__ is not None


def test_a_camera_player_that_refuses_a_parameter_leaves_the_graph(peer, start_ros, tmp_path):
    for name, kind, shape in (("rgb", np.uint8, (8, 12, 3)), ("depth", np.uint16, (8, 12))):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "0.png"), np.zeros(shape, kind))
    playback = open_playback(tmp_path)
    # Refused after the publisher of the RGB images is there.
    start_ros("-p", f"qos_overrides.{PREFIX}/rgb/camera_info.publisher.depth:=0")
    with pytest.raises(MmfusionError, match=r"camera_info\.publisher\.depth is 0") as refusal:
        CameraPlayer(playback, Sender(), ReliabilityPolicy.RELIABLE)
    assert seen_beside_another(peer) == set()
    peer.until(
        lambda: not any(f"{PREFIX}/rgb" in name for name in topics_and_services(peer)),
        "its topics to go",
    )
    assert refusal.value.__traceback__ is not None
