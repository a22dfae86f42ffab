"""Profile files are read as Fast DDS itself reads them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mmfusion_ros.checks.fastdds_profile import DEFAULT_SEGMENT, read_profile
from mmfusion_ros.checks.ros_probe import segment_bytes

OURS = "ros2_ws/src/mmfusion_ros/config/fastdds.xml"
MIB = 1 << 20
UNDEFINED = b"""<participant is_default_profile="true"><userTransports>
    <transport_id>x</transport_id></userTransports></participant>"""
NAMES = (' xmlns="http://www.eprosima.com"', "")
BUILTIN = "<useBuiltinTransports>false</useBuiltinTransports>"
SIZE = "<segment_size>16777216</segment_size>"
CHANGES = {
    "as it is": ("", ""),
    "without namespace": NAMES,
    "builtin transports besides": (BUILTIN, ""),
    "no segment size": (SIZE, ""),
    "a small segment": (SIZE, "<segment_size>1048576</segment_size>"),
    "no default profile": (' is_default_profile="true"', ""),
    "messages larger than the segment": (SIZE, f"<maxMessageSize>99999999</maxMessageSize>{SIZE}"),
    "cut short": ("</profiles>", ""),
}


@pytest.fixture
def profile(repo_root, tmp_path):
    def write(old: str = "", new: str = ""):
        path = tmp_path / "profile.xml"
        path.write_text((repo_root / OURS).read_text().replace(old, new))
        return path

    return write


@pytest.mark.ros
@pytest.mark.parametrize("change", CHANGES)
def test_segment_is_what_fast_dds_makes_of_the_file(profile, change, tmp_path):
    pytest.importorskip("rclpy", reason="ROS 2 is not installed")
    path = profile(*CHANGES[change])
    code = "import mmfusion_ros.checks.ros_probe as p, rclpy; rclpy.init(); "
    code += "n = rclpy.create_node('n'); print(p.segment_bytes())"
    environment = {**os.environ, "FASTDDS_DEFAULT_PROFILES_FILE": str(path)}
    environment.pop("FASTRTPS_DEFAULT_PROFILES_FILE", None)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    got, read = int(done.stdout), read_profile(path)
    # What Fast DDS itself needs lies in the segment too.
    assert read.segment_bytes <= got < read.segment_bytes + MIB
    # It complains exactly of what is of no use to it, but of a profile nobody asked for.
    assert bool(read.problem) == ("rror" in done.stderr or change == "no default profile")


def test_ours_has_sixteen_mebibytes_and_udp(repo_root):
    read = read_profile(repo_root / OURS)
    assert (read.segment_bytes, read.udp, read.problem) == (16 * MIB, True, "")


def test_a_profile_of_udp_alone_has_no_shared_memory(profile):
    read = read_profile(profile("<type>SHM</type>", "<type>UDPv4</type>"))
    assert read.segment_bytes is None
    assert read.udp


def test_a_profile_without_udp_is_told(profile):
    read = read_profile(profile("<type>UDPv4</type>", "<type>TCPv4</type>"))
    assert not read.udp
    assert read.segment_bytes == 16 * MIB


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "not XML"),
        (b"<dds>", "not XML"),
        (b"\xff\xfe\x00", "not XML"),
        (b"<dds/>", "is_default_profile"),
        (UNDEFINED, "'x'"),
    ],
)
def test_what_is_of_no_use_is_told_and_counts_as_the_default(tmp_path, content, problem):
    path = tmp_path / "broken.xml"
    path.write_bytes(content)
    read = read_profile(path)
    assert problem in read.problem
    assert read.segment_bytes == DEFAULT_SEGMENT


def test_sizes_that_are_no_numbers(profile):
    assert "'16M'" in read_profile(profile(SIZE, "<segment_size>16M</segment_size>")).problem


@pytest.mark.parametrize("name", ["missing.xml", "."])
def test_what_cannot_be_read_is_told(tmp_path, name):
    assert "cannot be read" in read_profile(tmp_path / name).problem


def test_the_largest_mapping_of_fast_dds_is_its_segment(tmp_path):
    maps = tmp_path / "maps"
    maps.write_text(
        "7f00-8f00 rw-s 0 00:1b 19   /dev/shm/fastdds_port7000\n"
        "7000-7f00 rw-s 0 00:1b 20   /dev/shm/fastrtps_01ab\n"
        "7000-7100 rw-s 0 00:1b 21   /dev/shm/fastdds_02cd\n"
        "0000-ffff rw-p 0 00:00 0\n"
        "0000-ffff rw-s 0 00:1b 22   /dev/shm/lttng\n"
    )
    assert segment_bytes(maps) == 0xF00
    maps.write_text("0000-ffff rw-p 0 00:00 0\n")
    assert segment_bytes(maps) is None
