"""The node in a process of its own, with real DDS between it and the cameras."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

pytestmark = pytest.mark.ros

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("mmfusion_msgs.msg", reason="mmfusion_msgs is not built")
pytest.importorskip("onnx", reason="onnx is not installed")

from artifacts import write_artifact, write_rig
from diagnostic_msgs.msg import DiagnosticStatus
from nodes import MS, PATIENT, SECOND, SIZE, Peer, node_process, pictures, pixels
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from mmfusion_ros.messages import image_message, set_stamp

# Each test plays a recording of its own, later than all before.
START = itertools.count(1000 * SECOND, 1000 * SECOND)
ALONE = "/alone"
OUTPUTS = ("fused/image", "fused/camera_info", "registered_thermal/image", "status")


def fused_of(sent: dict[str, np.ndarray], *, thermal: bool = True) -> np.ndarray:
    added = (sent["thermal"] & 0xFF)[..., None] if thermal else 0
    return np.minimum(sent["rgb"].astype(int) + added, 255).astype(np.uint8)


def part(status, name: str):
    (found,) = [entry for entry in status.modalities if entry.name == name]
    return found


@pytest.fixture
def peer():
    peer = Peer()
    yield peer
    peer.close()


@pytest.fixture
def alone():
    """A peer for a node that a test runs for itself, beside the shared one."""
    peer = Peer(namespace=ALONE)
    yield peer
    peer.close()


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    return write_rig(tmp_path_factory.mktemp("rig") / "rig.yaml", SIZE)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    return write_artifact(tmp_path_factory.mktemp("artifact") / "tiny")


@pytest.fixture(scope="module")
def node(artifact, rig, tmp_path_factory):
    """One node for all tests that do not break it."""
    log = tmp_path_factory.mktemp("log") / "node.log"
    with node_process(artifact, rig, log, backend="onnxruntime", **PATIENT) as process:
        yield process


@pytest.fixture
def warm(node, peer):
    """A peer that is connected both ways; stamps from here on are free."""
    peer.advertise()
    peer.listen(*OUTPUTS)
    peer.stamp = peer.warm_up(next(START), **pictures(0))
    return peer


def next_stamp(peer: Peer) -> int:
    peer.stamp += 100 * MS
    return peer.stamp


def test_pass_through_gives_the_rgb_picture(artifact, rig, alone, tmp_path):
    with node_process(artifact, rig, tmp_path / "log", ALONE, backend="pass_through", **PATIENT):
        alone.advertise()
        alone.listen(*OUTPUTS)
        stamp = alone.warm_up(next(START), **pictures(0)) + 12_345_678
        sent = pictures(1)
        alone.send(stamp, **sent)
        image = alone.got("fused/image", stamp)
        np.testing.assert_array_equal(pixels(image), sent["rgb"])
        assert (image.encoding, image.header.frame_id) == ("rgb8", "rgb_frame")
        assert alone.got("status", stamp).backend == "pass_through"


def test_all_outputs_belong_to_the_rgb_frame(warm):
    stamp, sent = next_stamp(warm) + 12_345_678, pictures(2)
    warm.send(stamp, **sent)
    fused = warm.got("fused/image", stamp)
    np.testing.assert_array_equal(pixels(fused), fused_of(sent))
    thermal = warm.got("registered_thermal/image", stamp)
    np.testing.assert_array_equal(pixels(thermal)[..., 0], sent["thermal"] & 0xFF)
    info = warm.got("fused/camera_info", stamp)
    assert (info.height, info.width, info.k[0]) == (*SIZE, 64.0)
    status = warm.got("status", stamp)
    assert (status.artifact, status.backend, status.precision) == ("tiny", "onnxruntime", "fp32")
    assert [(m.name, m.used, m.reason) for m in status.modalities] == [
        ("rgb", True, ""),
        ("depth", True, ""),
        ("thermal", True, ""),
    ]
    assert list(status.stage_names) == ["prepare", "engine", "publish"]
    assert all(seconds > 0 for seconds in status.stage_durations)
    assert math.isnan(status.latency)  # these stamps are of no clock of today
    assert dict(zip(status.quality_names, status.quality_values, strict=True)) == {"vif": 0.75}
    for message in (fused, thermal, info, status):
        assert message.header.frame_id == "rgb_frame"


def test_latency_counts_from_a_stamp_of_the_nodes_clock(warm):
    stamp = warm.node.get_clock().now().nanoseconds
    warm.send(stamp, **pictures(3))
    assert 0 < warm.got("status", stamp).latency < 10


def test_camera_info_of_the_camera_is_passed_on(warm):
    publisher = warm.node.create_publisher(CameraInfo, "rgb/camera_info", 5)
    warm.until(publisher.get_subscription_count, "the node to subscribe to camera_info")
    info = CameraInfo(height=SIZE[0], width=SIZE[1])
    info.k[0] = 77.0

    def passed_on() -> bool:
        # Reliable, but on its own topic: it may come after the image.
        stamp = next_stamp(warm)
        set_stamp(info.header, stamp)
        publisher.publish(info)
        warm.send(stamp, **pictures(4))
        received = warm.got("fused/camera_info", stamp)
        return received.k[0] == 77.0 and received.header.frame_id == "rgb_frame"

    warm.until(passed_on, "the camera's own camera_info")


def test_without_thermal_the_picture_is_the_rgb_one(warm):
    sent = pictures(5)
    for _ in range(20):  # until thermal has stood still for longer than it is waited for
        stamp = next_stamp(warm)
        warm.send(stamp, rgb=sent["rgb"], depth=pictures(stamp)["depth"])
        warm.executor.spin_once(timeout_sec=0.02)
    np.testing.assert_array_equal(pixels(warm.got("fused/image", stamp)), sent["rgb"])
    status = warm.got("status", stamp)
    thermal = part(status, "thermal")
    assert not thermal.used
    assert thermal.reason in {"late", "stale"}
    assert 1.9 < thermal.age < 2.2
    assert part(status, "depth").used
    assert not status.quality_names  # not measured for this set
    warm.diagnosed("thermal camera", DiagnosticStatus.WARN)


def test_a_camera_that_never_was_there_is_absent(artifact, rig, alone, tmp_path):
    with node_process(artifact, rig, tmp_path / "log", ALONE, **PATIENT):
        alone.advertise(names=("rgb",))
        alone.listen("status", "fused/image")
        stamp = alone.warm_up(next(START), rgb=pictures(0)["rgb"])
        alone.send(stamp, rgb=pictures(0)["rgb"])
        status = alone.got("status", stamp)
        for name in ("depth", "thermal"):
            assert (part(status, name).used, part(status, name).reason) == (False, "absent")
            assert math.isnan(part(status, name).age)
        assert list(status.quality_values) == [0.25]
        alone.diagnosed("inputs", DiagnosticStatus.WARN, "nobody publishes /alone/depth/image")


def truncated(picture: np.ndarray, encoding: str):
    message = image_message(picture, encoding, Header())
    message.data = message.data[: len(message.data) // 2]
    return message


def test_a_truncated_thermal_image_is_left_out_and_reported(warm):
    sent = pictures(6)

    def left_out() -> int:
        # On a machine that stands still it may also come too late, once.
        stamp = next_stamp(warm)
        warm.send(stamp, **{**sent, "thermal": truncated(sent["thermal"], "mono16")})
        thermal = part(warm.got("status", stamp), "thermal")
        assert not thermal.used
        return stamp if thermal.reason == "invalid" else 0

    stamp = warm.until(left_out, "a damaged thermal image")
    np.testing.assert_array_equal(pixels(warm.got("fused/image", stamp)), sent["rgb"])
    warm.diagnosed("thermal camera", DiagnosticStatus.ERROR, "truncated")


def test_a_truncated_rgb_image_gives_a_status_but_no_picture(warm):
    sent = pictures(7)
    stamp = next_stamp(warm)
    warm.send(stamp, **{**sent, "rgb": truncated(sent["rgb"], "rgb8")})
    rgb = part(warm.got("status", stamp), "rgb")
    assert (rgb.used, rgb.reason) == (False, "invalid")
    warm.diagnosed("rgb camera", DiagnosticStatus.ERROR, "truncated")
    after = next_stamp(warm)
    warm.send(after, **sent)
    warm.got("fused/image", after)
    assert stamp not in warm.received["fused/image"]


def test_a_frozen_thermal_camera_is_left_out(warm):
    still = pictures(8)["thermal"]
    reasons = []
    for seed in range(10, 16):
        stamp = next_stamp(warm)
        warm.send(stamp, **{**pictures(seed), "thermal": still})
        reasons.append(part(warm.got("status", stamp), "thermal").reason)
    assert reasons[0] == ""
    assert reasons[-1] == "frozen"
    warm.diagnosed("thermal camera", DiagnosticStatus.WARN, "frozen")


def test_goes_on_when_time_is_set_back(warm):
    fuses_from(warm, next_stamp(warm))
    fuses_from(warm, 400 * SECOND)


def fuses_from(peer: Peer, stamp: int) -> None:
    """Each frame is published, and one of the first with all its companions.

    On a busy machine, what is sent without acknowledgement may be lost on its way.
    """
    complete = False
    for index in range(5):
        sent = pictures(20 + index)
        peer.send(stamp + 100 * index * MS, **sent)
        fused = pixels(peer.got("fused/image", stamp + 100 * index * MS))
        complete = complete or np.array_equal(fused, fused_of(sent))
    assert complete


def counted(peer: Peer, key: str) -> int:
    status = peer.diagnostics.get("engine", DiagnosticStatus())
    values = {pair.key: pair.value for pair in status.values}
    return int(values.get(key, 0))


def test_survives_a_failing_engine(rig, alone, tmp_path):
    artifact = write_artifact(tmp_path / "failing", fails_from=4)
    log = tmp_path / "log"
    with node_process(artifact, rig, log, ALONE, **PATIENT):
        alone.advertise()
        alone.listen("status", "fused/image")
        stamp = alone.warm_up(next(START), **pictures(0))

        def two_recoveries() -> bool:
            nonlocal stamp
            stamp += 100 * MS
            alone.send(stamp, **pictures(1))
            for _ in range(5):
                alone.executor.spin_once(timeout_sec=0.01)
            return log.read_text().count("open again") >= 2

        alone.until(two_recoveries, "the engine to come back twice")
        alone.until(lambda: counted(alone, "failures") >= 2, "two failures in the diagnostics")
        assert counted(alone, "sets_skipped") >= 2
    failures = log.read_text().count("onnxruntime failed")
    # Once in the node's own words, once in the runtime's at most.
    assert failures <= 2 * log.read_text().count("opening it again")


@pytest.mark.parametrize("reliable", [True, False])
def test_follows_what_cameras_offer(node, peer, reliable):
    """Also: publishers that come late, vanish, and come back offering something else."""
    for offered in (reliable, not reliable):
        peer.received.clear()
        peer.advertise(reliable=offered)
        peer.listen("fused/image")
        peer.warm_up(next(START), **pictures(0))
        status = peer.diagnosed("inputs", DiagnosticStatus.OK)
        wanted = "1 publishers, reliable" if offered else "1 publishers, best_effort"
        peer.until(
            lambda wanted=wanted: (
                wanted in [pair.value for pair in peer.diagnostics["inputs"].values]
            ),
            f"{wanted} in {status}",
        )
        peer.withdraw()


def test_an_incompatible_publisher_is_reported(artifact, rig, alone, tmp_path):
    with node_process(artifact, rig, tmp_path / "log", ALONE, input_reliability="reliable"):
        alone.advertise(reliable=False)
        alone.diagnosed(
            "inputs",
            DiagnosticStatus.ERROR,
            "/alone/peer is not heard on /alone/rgb/image, as it does not offer what is asked of "
            "it (Best effort publisher and reliable subscription); set "
            "qos_overrides./alone/rgb/image.subscription.*",
        )
        alone.until(
            lambda: "set qos_overrides./alone/rgb/image" in (tmp_path / "log").read_text(),
            "the warning in the log",
        )


def test_images_without_a_stamp_get_the_time_they_arrive_at(warm):
    before = set(warm.received["fused/image"])

    def new() -> set[int]:
        return set(warm.received["fused/image"]) - before

    # One after the other, as the node would leave out the older of two that come at once; the
    # second must not be taken for a repetition of the first.
    for count in (1, 2):
        warm.send(0, rgb=pictures(9 + count)["rgb"])
        warm.until(lambda count=count: len(new()) == count, "the picture")
    assert min(new()) > 0
