"""The shared files are found however the package is installed, and DDS is told of its profile."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from mmfusion_ros import dds_profile, memory, share
from mmfusion_ros.core.errors import MmfusionError
from mmfusion_ros.dds_profile import apply_dds_profile
from mmfusion_ros.memory import keep_image_memory

PROFILE = "config/fastdds.xml"
VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")


@pytest.fixture
def no_profile(monkeypatch):
    for name in (*VARIABLES, "ROS_DISTRO"):
        # Set before deleting, so that what the test adds is removed again.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def put(folder: Path) -> Path:
    path = folder / PROFILE
    path.parent.mkdir(parents=True)
    path.write_text("<dds/>")
    return path


def test_the_source_tree_is_the_last_resort(monkeypatch, tmp_path, repo_root):
    monkeypatch.setattr(share, "_indexed_folder", lambda _: None)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    found = share.share_file(PROFILE)
    assert found == repo_root / "ros2_ws" / "src" / "mmfusion_ros" / PROFILE


def test_messages_a_distribution_brings_are_found_in_the_underlay(monkeypatch, tmp_path, repo_root):
    monkeypatch.setattr(share, "_indexed_folder", lambda _: None)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    found = share.share_file("msg/Detection2D.msg", "vision_msgs")
    assert found == repo_root / "ros2_ws/underlay/vision_msgs/msg/Detection2D.msg"


def test_the_prefix_comes_before_the_source_tree(monkeypatch, tmp_path):
    monkeypatch.setattr(share, "_indexed_folder", lambda _: None)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    expected = put(tmp_path / "share" / "mmfusion_ros")
    assert share.share_file(PROFILE) == expected


def test_the_ament_index_comes_first(monkeypatch, tmp_path):
    pytest.importorskip("ament_index_python", reason="ROS 2 is not installed")
    marker = tmp_path / "share/ament_index/resource_index/packages/mmfusion_ros"
    marker.parent.mkdir(parents=True)
    marker.touch()
    expected = put(tmp_path / "share" / "mmfusion_ros")
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    assert share.share_file(PROFILE) == expected


@pytest.mark.parametrize("index", [None, "", "/nonexistent"])
def test_an_empty_or_missing_index_is_no_error(monkeypatch, index):
    monkeypatch.delenv("AMENT_PREFIX_PATH", raising=False)
    if index is not None:
        monkeypatch.setenv("AMENT_PREFIX_PATH", index)
    assert share.share_file(PROFILE).is_file()


def test_a_missing_file_is_named_with_the_folders_searched():
    with pytest.raises(MmfusionError, match=r"config/nothing\.xml .* is in none of .*mmfusion_ros"):
        share.share_file("config/nothing.xml")


def test_apply_sets_the_variable_of_the_distribution(no_profile, monkeypatch):
    profile = apply_dds_profile()
    assert profile is not None
    assert os.environ[VARIABLES[0]] == str(profile)
    assert VARIABLES[1] not in os.environ


@pytest.mark.parametrize("distribution", ["humble", "iron", "jazzy"])
def test_apply_uses_the_old_name_on_older_distributions(no_profile, monkeypatch, distribution):
    monkeypatch.setenv("ROS_DISTRO", distribution)
    profile = apply_dds_profile()
    assert os.environ[VARIABLES[1]] == str(profile)
    assert VARIABLES[0] not in os.environ


@pytest.mark.parametrize("name", VARIABLES)
def test_apply_respects_the_users_profile(no_profile, monkeypatch, name):
    monkeypatch.setenv(name, "/users/own.xml")
    assert apply_dds_profile() is None
    assert [os.environ.get(variable) for variable in VARIABLES].count("/users/own.xml") == 1
    assert [os.environ.get(variable) for variable in VARIABLES].count(None) == 1


def test_apply_does_not_take_a_variable_for_one_that_is_not_read(no_profile, monkeypatch):
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    monkeypatch.setenv(VARIABLES[0], "/users/own.xml")
    profile = apply_dds_profile()
    assert os.environ[VARIABLES[1]] == str(profile)


def test_apply_warns_and_goes_on_without_the_file(no_profile, monkeypatch, caplog):
    def missing(name: str) -> Path:
        raise MmfusionError(f"no {name}")

    monkeypatch.setattr(dds_profile, "share_file", missing)
    assert apply_dds_profile() is None
    assert "images may get lost" in caplog.text


def test_profile_holds_two_sets_of_three_720p_cameras_and_keeps_udp(repo_root):
    path = repo_root / "ros2_ws" / "src" / "mmfusion_ros" / PROFILE
    space = {"": "http://www.eprosima.com"}
    root = ET.parse(path).getroot()
    (size,) = root.findall(".//segment_size", space)
    assert int(size.text) >= 2 * 1280 * 720 * (3 + 2 + 2)
    kinds = {element.text for element in root.findall(".//transport_descriptor/type", space)}
    assert kinds == {"SHM", "UDPv4"}


def test_keep_image_memory_stops_page_faults():
    if not keep_image_memory():
        pytest.skip("the C library is not glibc")
    # In a process of its own: the setting cannot be taken back, and a fresh heap is needed.
    program = """
import resource, sys
from mmfusion_ros.memory import keep_image_memory
if sys.argv[1] == "keep":
    assert keep_image_memory()
def frame():
    return bytearray(1280 * 720 * 3)
for _ in range(5): frame()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20): frame()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    faults = {
        how: int(subprocess.check_output([sys.executable, "-c", program, how]))
        for how in ("keep", "default")
    }
    assert faults["keep"] < 20
    assert faults["keep"] <= faults["default"]


def test_keep_image_memory_does_nothing_elsewhere(monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    assert keep_image_memory() is False
