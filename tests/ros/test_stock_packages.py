"""message_filters and cv_bridge where they are there, by stand-ins with their interface."""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

pytestmark = pytest.mark.ros

rclpy = pytest.importorskip("rclpy", reason="ROS 2 is not installed")

import message_filters_double
from artifacts import write_artifact, write_rig
from builtin_interfaces.msg import Time
from lifecycle_msgs.msg import Transition
from nodes import MS, PATIENT, SECOND, SIZE, Peer, pictures, pixels, spinning
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from mmfusion_ros import stock_filters, stock_images
from mmfusion_ros.core.errors import ImageError
from mmfusion_ros.core.frames import Frame, Modality
from mmfusion_ros.core.images import to_encoding
from mmfusion_ros.core.synchronizer_config import SensorTiming, SynchronizerConfig
from mmfusion_ros.fusion_node import FusionNode
from mmfusion_ros.messages import frame_from_message, image_message, set_stamp
from mmfusion_ros.parameters import TABLE
from mmfusion_ros.stock_filters import StockSynchronizer

SPACE = "/stock"


@pytest.fixture
def forget():
    """What was imported is looked up again before and after."""

    def clear():
        stock_filters.message_filters.cache_clear()
        stock_images._bridge.cache_clear()

    clear()
    yield
    clear()


@pytest.fixture
def filters(forget, monkeypatch):
    monkeypatch.setitem(sys.modules, "message_filters", message_filters_double.module())
    return message_filters_double


@pytest.fixture
def peer():
    peer = Peer(SPACE)
    yield peer
    peer.close()


@pytest.fixture
def start(tmp_path):
    """Gives a node of this process, not yet configured."""
    context = rclpy.Context()
    rclpy.init(context=context)
    nodes = []

    def make(**parameters):
        files = {
            "artifact": str(write_artifact(tmp_path / "a", rgb=SIZE, depth=SIZE, thermal=SIZE)),
            "rig": str(write_rig(tmp_path / "rig.yaml", SIZE)),
        }
        values = {**files, "backend": "pass_through", **PATIENT, **parameters}
        types = {row.name: row.type for row in TABLE} | {"use_sim_time": bool}
        overrides = [
            rclpy.Parameter(name, value=types[name](value)) for name, value in values.items()
        ]
        node = FusionNode(context=context, namespace=SPACE, parameter_overrides=overrides)
        nodes.append(node)
        return node

    yield make
    for node in nodes:
        node.destroy_node()
    rclpy.shutdown(context=context)


def activate(peer: Peer) -> bool:
    return peer.change_state(Transition.TRANSITION_CONFIGURE) and peer.change_state(
        Transition.TRANSITION_ACTIVATE
    )


@pytest.mark.parametrize(
    ("kind", "apart_ms"), [("exact", 0), ("approximate", 10), ("mmfusion", 10)]
)
def test_sets_of_each_synchroniser(filters, peer, start, kind, apart_ms):
    node = start(synchronizer=kind, window_ms=15.0)
    with spinning(node):
        assert activate(peer)
        peer.advertise()
        peer.listen("fused/image", "status")
        peer.matched()
        # Whatever matches them, images come through message_filters.
        assert {"rgb/image", "depth/image", "thermal/image"} <= set(filters.Subscriber.made)
        sent = pictures(3)
        stamp = 1000 * SECOND

        def arrived():
            nonlocal stamp
            stamp += 100 * MS
            peer.send(stamp - apart_ms * MS, depth=sent["depth"], thermal=sent["thermal"])
            peer.send(stamp, rgb=sent["rgb"])
            for _ in range(5):
                peer.executor.spin_once(timeout_sec=0.02)
            return peer.received["fused/image"] and peer.received["status"]

        peer.until(arrived, "a set")
        first = next(iter(peer.received["fused/image"].values()))
        np.testing.assert_array_equal(pixels(first), sent["rgb"])
        status = peer.until(lambda: next(iter(peer.received["status"].values()), None), "status")
        assert all(modality.used for modality in status.modalities)
        assert [m.age for m in status.modalities[1:]] == pytest.approx([apart_ms / 1e3] * 2)


def test_parameters_at_run_time(filters, peer, start, capfd):
    node = start(synchronizer="approximate", window_ms=15.0)

    def set_parameter(name, value):
        return peer.set_parameter(rclpy.Parameter(name, value=value).to_parameter_msg())

    with spinning(node):
        assert activate(peer)
        # That of PATIENT.
        assert "max_wait_ms has no effect with synchronizer approximate" in capfd.readouterr().err
        refused = set_parameter("frozen_after_ms", 300.0)
        assert not refused.successful
        assert "frozen_after_ms has no effect with synchronizer approximate" in refused.reason
        assert set_parameter("frozen_after_ms", 250.0).successful  # which it was
        assert set_parameter("window_ms", 60.0).successful
        peer.advertise()
        peer.listen("fused/image")
        peer.matched()
        sent = pictures(8)
        stamp = 1000 * SECOND

        def arrived():
            nonlocal stamp
            stamp += 200 * MS
            peer.send(stamp - 40 * MS, depth=sent["depth"], thermal=sent["thermal"])
            peer.send(stamp, rgb=sent["rgb"])
            for _ in range(5):
                peer.executor.spin_once(timeout_sec=0.02)
            return peer.received["fused/image"]

        peer.until(arrived, "a set as wide as the new window")


@pytest.mark.parametrize("kind", ["approximate", "mmfusion"])
def test_images_without_a_stamp_get_the_time_they_arrive_at(filters, peer, start, capfd, kind):
    node = start(synchronizer=kind, window_ms=900.0)
    with spinning(node):
        assert activate(peer)
        peer.advertise()
        peer.listen("status")
        peer.matched()
        sent = pictures(9)
        began = time.time_ns()

        def arrived():
            peer.send(0, **sent)
            for _ in range(5):
                peer.executor.spin_once(timeout_sec=0.02)
            return any(
                stamp >= began and all(modality.used for modality in status.modalities)
                for stamp, status in peer.received["status"].items()
            )

        peer.until(arrived, "a set")
    told = capfd.readouterr().err
    assert [told.count(f"{name} images carry no stamp") for name in sent] == [1, 1, 1]


def frame(modality: Modality, stamp: int) -> Frame:
    message = image_message(np.zeros(SIZE, np.uint8), "mono8", Header())
    set_stamp(message.header, stamp)
    return frame_from_message(message, modality)


@pytest.mark.parametrize("kind", ["exact", "approximate"])
def test_stamps_may_go_back(filters, kind):
    """A recording that is looped, whose thermal camera lacked: the queues are full."""
    sets = []
    stock = StockSynchronizer(kind, SynchronizerConfig(), tuple(Modality), sets.append)
    for number in range(20):
        for modality in (Modality.RGB, Modality.DEPTH):
            stock.add(frame(modality, 1000 * SECOND + number * 100 * MS))
    assert sets == []
    for number in range(3):
        for modality in Modality:
            stock.add(frame(modality, 900 * SECOND + number * 100 * MS))
    # The set that each camera jumps in may be lost, no more.
    assert {s.stamp_ns - 900 * SECOND for s in sets} >= {100 * MS, 200 * MS}


def test_a_step_back_that_is_none_of_time_changes_nothing(filters):
    sets = []
    stock = StockSynchronizer("exact", SynchronizerConfig(), tuple(Modality), sets.append)
    for modality, stamps in (
        (Modality.RGB, (5, 4)),
        (Modality.DEPTH, (4, 5)),
        (Modality.THERMAL, (4, 5)),
    ):
        for stamp in stamps:
            stock.add(frame(modality, SECOND + stamp * 100 * MS))
    assert [s.stamp_ns for s in sets] == [SECOND + 400 * MS, SECOND + 500 * MS]


def test_time_offsets_of_the_rig(filters):
    sets = []
    config = SynchronizerConfig(thermal=SensorTiming(offset_ns=40 * MS))
    stock = StockSynchronizer("exact", config, tuple(Modality), sets.append)
    stock.add(frame(Modality.RGB, SECOND))
    stock.add(frame(Modality.DEPTH, SECOND))
    stock.add(frame(Modality.THERMAL, SECOND + 40 * MS))
    assert [s.thermal.age_ns for s in sets] == [0]


def test_simulated_time_may_be_set_back(filters, peer, start):
    """By so little that stamps alone do not show it."""
    node = start(synchronizer="exact", use_sim_time=True)
    with spinning(node):
        assert activate(peer)
        clock = peer.node.create_publisher(Clock, "/clock", 5)
        peer.advertise()
        peer.listen("fused/image", "status")
        peer.until(clock.get_subscription_count, "the node to follow /clock")
        sent = pictures(4)

        def set_clock(stamp: int) -> None:
            clock.publish(Clock(clock=Time(sec=stamp // SECOND, nanosec=stamp % SECOND)))

        set_clock(1000 * SECOND)
        last = peer.warm_up(1000 * SECOND, **sent)
        for _ in range(12):  # more than a queue holds, without a thermal image
            last += 10 * MS
            peer.send(last, rgb=sent["rgb"], depth=sent["depth"])
            for _ in range(3):
                peer.executor.spin_once(timeout_sec=0.02)
        # They have come before a second is over; where not, less is tested and nothing fails.
        before = peer.diagnostics.get("clock")
        peer.until(lambda: peer.diagnostics.get("clock") is not before, "diagnostics")
        before = peer.diagnostics["clock"]
        peer.until(lambda: peer.diagnostics["clock"] is not before, "diagnostics")
        earlier = last - 500 * MS
        set_clock(earlier)

        def noticed() -> bool:
            values = peer.diagnostics["clock"].values if "clock" in peer.diagnostics else []
            return {pair.key: pair.value for pair in values}.get("jumps_back") == "1"

        peer.until(noticed, "the jump")
        peer.send(earlier + MS, **sent)
        peer.got("fused/image", earlier + MS)


def test_the_stock_synchroniser_gives_nothing_while_a_camera_lacks(filters, peer, start):
    node = start(synchronizer="approximate")
    with spinning(node):
        assert activate(peer)
        peer.advertise(names=("rgb", "depth"))
        peer.matched()
        sent = pictures(1)
        for number in range(5):
            stamp = 1000 * SECOND + number * 100 * MS
            peer.send(stamp, rgb=sent["rgb"], depth=sent["depth"])
        peer.diagnosed("rgb camera", b"\2", "no sets")
        peer.diagnosed("synchronizer", b"\0", "0 sets")


@pytest.mark.parametrize("kind", ["exact", "approximate"])
def test_without_message_filters_it_is_said_what_to_do(forget, peer, start, monkeypatch, kind):
    monkeypatch.setitem(sys.modules, "message_filters", None)
    node = start(synchronizer=kind)
    with spinning(node):
        assert peer.change_state(Transition.TRANSITION_CONFIGURE)
        assert not peer.change_state(Transition.TRANSITION_ACTIVATE)
        peer.diagnosed("engine", b"\2", "needs the package message_filters; install it")
        assert peer.state() == "inactive"


def bayer(step_back: int = 0) -> Image:
    message = image_message(np.zeros(SIZE, np.uint8), "bayer_rggb8", Header())
    set_stamp(message.header, 5)
    del message.data[len(message.data) - step_back :]
    return message


def test_cv_bridge_reads_what_is_not_native(forget, monkeypatch):
    asked = []

    class CvBridge:
        def imgmsg_to_cv2(self, img_msg, desired_encoding="passthrough"):
            asked.append((img_msg.encoding, desired_encoding))
            if len(img_msg.data) < img_msg.height * img_msg.step:
                raise RuntimeError("buffer too short")
            return np.full((img_msg.height, img_msg.width, 3), 7, np.uint8)

    monkeypatch.setitem(sys.modules, "cv_bridge", SimpleNamespace(CvBridge=CvBridge))
    frame = frame_from_message(bayer(), Modality.RGB)
    assert asked == []  # not where images are received
    assert (to_encoding(frame.image, "rgb8") == 7).all()
    assert asked == [("bayer_rggb8", "rgb8")]
    # What is native never goes there.
    native = image_message(pictures(1)["rgb"], "bgr8", Header())
    assert to_encoding(frame_from_message(native, Modality.RGB).image, "rgb8").shape == (*SIZE, 3)
    assert len(asked) == 1
    with pytest.raises(ImageError, match="cv_bridge cannot make rgb8 of a bayer_rggb8 image: buf"):
        to_encoding(frame_from_message(bayer(9), Modality.RGB).image, "rgb8")


def test_without_cv_bridge_it_is_said_what_cannot_be_read(forget, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv_bridge", None)
    frame = frame_from_message(bayer(), Modality.RGB)
    with pytest.raises(ImageError, match=r"'bayer_rggb8' is not supported; .*where cv_bridge is"):
        to_encoding(frame.image, "rgb8")
