"""Subscriptions against real publishers that offer different things."""

from __future__ import annotations

import time

import pytest

pytestmark = pytest.mark.ros

rclpy = pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from mmfusion_ros.core.errors import MmfusionError
from mmfusion_ros.inputs import Input


@pytest.fixture(name="node")
def fixture_node():
    yield from made("inputs")


@pytest.fixture(name="driver")
def fixture_driver():
    """A node of a participant of its own, as a driver in another process is."""
    yield from made("driver")


def made(name):
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node(name, context=context)
    yield node
    node.destroy_node()
    rclpy.shutdown(context=context)


@pytest.mark.parametrize(
    ("offered", "asked"),
    [
        (["RELIABLE"], "reliable"),
        (["BEST_EFFORT"], "best_effort"),
        # Two publishers of one node: the weaker one must be heard too.
        (["BEST_EFFORT", "RELIABLE"], "best_effort"),
        (["RELIABLE", "BEST_EFFORT"], "best_effort"),
    ],
)
def test_asks_for_what_all_publishers_offer(node, offered, asked):
    for name in offered:
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy[name])
        node.create_publisher(Image, "image", qos)
    entry = Input(node, Image, "image", "reliable_if_offered", lambda _: None)
    deadline = time.monotonic() + 20
    while entry.status.publishers < len(offered):
        assert time.monotonic() < deadline, "publishers were not discovered"
        time.sleep(0.02)
        entry.poll()
    assert entry.status.reliability == asked
    entry.close()


def polled(entry, condition):
    deadline = time.monotonic() + 20
    while not condition(entry.status):
        assert time.monotonic() < deadline, entry.status
        time.sleep(0.02)
        entry.poll()
    return entry.status


def override(node, topic, **policies):
    for policy, value in policies.items():
        name = f"qos_overrides.{topic}.subscription.{policy}"
        node._parameter_overrides[name] = Parameter(name, value=value)


def test_a_topic_of_its_own_reliability_and_depth(node):
    override(node, "/image", reliability="best_effort", depth=2, history="keep_last")
    node.create_publisher(Image, "image", QoSProfile(depth=5))
    entry = Input(node, Image, "image", "reliable", lambda _: None)
    assert polled(entry, lambda status: status.publishers).reliability == "best_effort"
    asked = entry._subscription.qos_profile
    assert (asked.reliability, asked.depth) == (ReliabilityPolicy.BEST_EFFORT, 2)
    entry.close()


@pytest.mark.parametrize(
    ("policy", "value", "message"),
    [
        ("reliability", "perhaps", "subscription.reliability is 'perhaps'; expected one of rel"),
        ("durability", "forever", "durability is 'forever'; expected one of volatile, trans"),
        ("reliability", 3, "parameter qos_overrides./image.subscription.reliability: "),
        ("depth", "many", "subscription.depth: .*; expected a whole number, at least 1"),
        ("depth", 0, "subscription.depth is 0; expected at least 1"),
    ],
)
def test_a_wrong_override_is_named(node, policy, value, message):
    override(node, "/image", **{policy: value})
    with pytest.raises(MmfusionError, match=message):
        Input(node, Image, "image", "best_effort", lambda _: None)


@pytest.mark.parametrize(
    ("offered", "wanted", "reason"),
    [
        ({"reliability": ReliabilityPolicy.BEST_EFFORT}, {}, "reliable subscription"),
        ({}, {"durability": "transient_local"}, "transient local subscription"),
    ],
)
def test_an_incompatible_publisher_is_named_with_what_to_change(node, offered, wanted, reason):
    override(node, "/image", **wanted)
    node.create_publisher(Image, "image", QoSProfile(depth=5, **offered))
    entry = Input(node, Image, "image", "reliable", lambda _: None)
    (unheard,) = polled(entry, lambda status: status.unheard).unheard
    assert unheard.startswith("/inputs is not heard on /image, as it does not offer")
    assert reason in unheard
    assert "set qos_overrides./image.subscription.* or change the publisher" in unheard
    entry.close()


def test_a_publisher_of_another_type_is_named(node, driver):
    driver.create_publisher(CompressedImage, "image", 5)
    entry = Input(node, Image, "image", "reliable_if_offered", lambda _: None)
    # Before its node is known, the publisher has no name.
    (unheard,) = polled(entry, lambda status: "/driver" in "".join(status.unheard)).unheard
    assert unheard == (
        "/driver publishes sensor_msgs/msg/CompressedImage on /image, expected "
        "sensor_msgs/msg/Image; set the topic and transport parameters of this camera"
    )
    entry.close()


@pytest.fixture(name="other")
def fixture_other():
    """One more: a participant has one type on a topic."""
    yield from made("other")


def test_a_publisher_of_another_type_does_not_choose_the_reliability(node, driver, other):
    best_effort = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    other.create_publisher(CompressedImage, "image", best_effort)
    driver.create_publisher(Image, "image", QoSProfile(depth=5))
    entry = Input(node, Image, "image", "reliable_if_offered", lambda _: None)
    status = polled(
        entry, lambda status: status.publishers == 2 and "Compressed" in "".join(status.unheard)
    )
    assert status.reliability == "reliable"
    entry.close()


@pytest.mark.parametrize(
    ("published", "subscribed"),
    [("image/compressed", "image"), ("image", "image/compressed"), ("d/compressedDepth", "d")],
)
def test_images_of_another_transport_are_found(node, published, subscribed):
    node.create_publisher(CompressedImage, published, 5)
    entry = Input(node, Image, subscribed, "reliable_if_offered", lambda _: None)
    status = polled(entry, lambda status: status.hint)
    assert status.hint == (
        f"somebody does on /{published}: set the transport parameter of this camera"
    )
    assert not status.publishers
    entry.close()
