"""Images are sent between two processes over real DDS, and what arrives is judged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from finders import by_check, is_helpful, levels

from mmfusion_ros.checks import streams
from mmfusion_ros.checks.streams import check_streams
from mmfusion_ros.checks.subject import Setup

pytestmark = pytest.mark.ros

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

SIZE = (480, 640)


def environment(**changes):
    kept = {name: value for name, value in os.environ.items() if "PROFILES_FILE" not in name}
    return {**kept, **changes}


def check(tmp_path, **options):
    options.setdefault("environment", environment())
    # A profile file in the working folder would be read as well.
    setup = Setup(folder=tmp_path, size=SIZE, rate=20.0, seconds=1.0, **options)
    return by_check(check_streams(setup))


def test_images_arrive_with_the_profile_and_get_lost_without(tmp_path):
    if int(Path("/proc/sys/net/core/rmem_default").read_text()) > 3 * 480 * 640:
        pytest.skip("this machine's UDP buffers hold whole images")
    # Best effort promises nothing when the machine is so busy that a process stands still for
    # longer than the segment lasts.
    for _ in range(3):
        found = check(tmp_path)
        if found["streams.best_effort"].level == "ok":
            break
    assert levels(found.values()) == {
        "streams.best_effort": "ok",
        "streams.reliable": "ok",
        "streams.without_profile": "warning",
    }
    values = found["streams.best_effort"].values
    assert values["sent"] == values["received"] == 60
    assert values["received_by_camera"] == {"rgb": 20, "depth": 20, "thermal": 20}
    assert 0 < values["latency_p50_ms"] <= values["latency_p99_ms"]
    assert values["segment_bytes"] >= 16 << 20
    lost = found["streams.without_profile"]
    assert lost.values["received"] < lost.values["sent"]
    assert lost.values["segment_bytes"] < 1 << 20
    assert "publishing process" in lost.advice


def test_a_profile_that_is_set_is_the_one_that_is_measured(tmp_path, repo_root):
    small = tmp_path / "small.xml"
    text = (repo_root / "ros2_ws/src/mmfusion_ros/config/fastdds.xml").read_text()
    small.write_text(text.replace("16777216", "262144"))
    found = check(tmp_path, environment=environment(FASTDDS_DEFAULT_PROFILES_FILE=str(small)))
    assert found["streams.without_profile"].level == "skipped"
    finding = found["streams.best_effort"]
    assert finding.values["segment_bytes"] < 1 << 20
    if finding.level != "ok":  # as on every machine with small UDP buffers
        assert finding.level in {"error", "warning"}
        assert "dds.profile" in finding.advice


@pytest.mark.parametrize("options", [{"streams": False}, {"quick": True}])
def test_they_are_left_out_when_asked(tmp_path, options):
    found = check(tmp_path, **options)
    assert set(levels(found.values()).values()) == {"skipped"}


def test_without_ros_they_are_left_out(tmp_path):
    found = check(tmp_path, environment=environment(RMW_IMPLEMENTATION="rmw_nothing_cpp"))
    assert set(levels(found.values()).values()) == {"skipped"}


def test_processes_that_do_not_find_each_other_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "_PATIENCE_S", 0.5)
    found = check(tmp_path, environment=environment(ROS_AUTOMATIC_DISCOVERY_RANGE="OFF"))
    for finding in found.values():
        assert finding.level == "error"
        assert "do not find each other" in finding.found
        assert is_helpful(finding)


def test_a_process_that_breaks_off_is_an_error(tmp_path, monkeypatch):
    setup = Setup(folder=tmp_path, environment=environment(ROS_DOMAIN_ID="nowhere"))
    (finding,) = streams._measure(setup, "profile", {"reliable": "streams.reliable"})
    assert finding.level == "error"
    assert "ROS_DOMAIN_ID" in finding.found


def judged(sent, received, *, seconds=1.0, segment=16 << 20, name="streams.best_effort"):
    facts = {"sent": sent, "seconds": seconds, "cpu": 0.1}
    latencies = {"rgb": [2.0] * received}
    return streams._judge(
        Setup(rate=20.0, size=SIZE),
        name,
        "best_effort",
        {"segment_bytes": segment, "phases": {"best_effort": facts}},
        {"latencies_ms": {"best_effort": latencies}, "cpu": 0.2},
    )


@pytest.mark.parametrize(
    ("received", "level"),
    [(1000, "ok"), (995, "ok"), (950, "warning"), (500, "error"), (0, "error")],
)
def test_the_share_that_is_lost_makes_the_level(received, level):
    finding = judged(1000, received, seconds=50)
    assert finding.level == level
    assert is_helpful(finding)


def test_the_advice_tells_a_small_segment_from_a_slow_receiver():
    assert "see dds.profile" in judged(100, 10, segment=512 << 10).advice
    assert "no shared memory" in judged(100, 10, segment=None).advice
    assert "did not keep up" in judged(100, 10).advice


def test_a_machine_too_slow_to_send_is_a_warning():
    finding = judged(20, 20, seconds=3)
    assert finding.level == "warning"
    assert "could be sent" in finding.found
