"""What is said of ROS and DDS, in processes that are started as the user's would be."""

from __future__ import annotations

import os

import pytest
from finders import by_check, is_helpful, levels

from mmfusion_ros.checks import ros
from mmfusion_ros.checks.ros import check_ros
from mmfusion_ros.checks.subject import Setup

pytestmark = pytest.mark.ros

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

OURS = "ros2_ws/src/mmfusion_ros/config/fastdds.xml"
VARIABLES = (
    "FASTDDS_DEFAULT_PROFILES_FILE",
    "FASTRTPS_DEFAULT_PROFILES_FILE",
    "ROS_DOMAIN_ID",
    "ROS_AUTOMATIC_DISCOVERY_RANGE",
    "ROS_LOCALHOST_ONLY",
)

FOLDER_PROFILES = ("DEFAULT_FASTDDS_PROFILES.xml", "DEFAULT_FASTRTPS_PROFILES.xml")


def environment(**changes):
    kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    kept["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    kept["ROS_DOMAIN_ID"] = os.environ["ROS_DOMAIN_ID"]
    return {name: value for name, value in {**kept, **changes}.items() if value is not None}


def check(tmp_path, *, quick=True, size=None, **changes):
    setup = Setup(folder=tmp_path, environment=environment(**changes), quick=quick, size=size)
    return by_check(check_ros(setup))


def test_here_all_is_well_but_that_drivers_need_the_profile(tmp_path):
    found = check(tmp_path, quick=False)
    assert levels(found.values()) == {
        "ros.installation": "ok",
        "ros.messages": "ok",
        "ros.numpy": "ok",
        "dds.profile": "warning",
        "dds.segment": "ok",
        "dds.domain": "ok",
        "dds.discovery": "ok",
    }
    assert "FASTDDS_DEFAULT_PROFILES_FILE" in found["dds.profile"].advice
    segments = found["dds.segment"].values
    assert segments["as_set_bytes"] < 1 << 20 < 16 << 20 <= segments["with_profile_bytes"]


@pytest.mark.parametrize(("distribution", "variable"), [("kilted", 0), ("humble", 1)])
def test_the_advice_is_for_the_distribution(distribution, variable):
    setup = Setup(environment={"ROS_DISTRO": distribution})
    assert ros.our_profile_command(setup).startswith(f"export {VARIABLES[variable]}=")


def test_small_images_need_no_profile(tmp_path):
    assert check(tmp_path, size=(240, 320))["dds.profile"].level == "ok"


@pytest.mark.parametrize("name", VARIABLES[:2])
def test_a_profile_that_is_set_is_fine(tmp_path, repo_root, name):
    found = check(tmp_path, **{name: str(repo_root / OURS)})
    assert found["dds.profile"].level == "ok"
    assert found["dds.segment"].level == "ok"


def test_a_profile_in_the_working_folder_counts(tmp_path, repo_root):
    (tmp_path / FOLDER_PROFILES[0]).write_text((repo_root / OURS).read_text())
    found = check(tmp_path)
    assert found["dds.profile"].level == "ok"
    assert str(tmp_path) in found["dds.profile"].found
    both = check(tmp_path, FASTDDS_DEFAULT_PROFILES_FILE=str(repo_root / OURS))
    assert both["dds.profile"].level == "note"
    assert is_helpful(both["dds.profile"])


@pytest.mark.parametrize(("value", "level"), [("1", "warning"), ("0", "ok")])
def test_a_profile_in_the_working_folder_can_be_passed_over(tmp_path, repo_root, value, level):
    (tmp_path / FOLDER_PROFILES[0]).write_text((repo_root / OURS).read_text())
    found = check(tmp_path, quick=False, SKIP_DEFAULT_XML_FILE=value)
    assert found["dds.profile"].level == level
    # Fast DDS holds with it.
    assert (found["dds.segment"].values["as_set_bytes"] < 1 << 20) == (level == "warning")


@pytest.mark.parametrize(("distribution", "names"), [("kilted", 0), ("jazzy", 1), ("humble", 1)])
def test_a_profile_counts_by_the_names_of_the_distribution(
    tmp_path, repo_root, distribution, names
):
    ours = (repo_root / OURS).read_text()
    folder = tmp_path / "folder"
    folder.mkdir()
    setup = Setup(folder=folder, environment={"ROS_DISTRO": distribution})
    (folder / FOLDER_PROFILES[1 - names]).write_text(ours)
    assert ros._profile(setup).level == "warning"
    (folder / FOLDER_PROFILES[names]).write_text(ours)
    assert ros._profile(setup).level == "ok"
    assert str(folder / FOLDER_PROFILES[names]) in ros._profile(setup).found


def test_a_variable_that_the_distribution_does_not_read_sets_nothing(tmp_path, repo_root):
    environment = {"ROS_DISTRO": "jazzy", VARIABLES[0]: str(repo_root / OURS)}
    finding = ros._profile(Setup(folder=tmp_path, environment=environment))
    assert finding.level == "warning"
    assert f"export {VARIABLES[1]}=" in finding.advice


@pytest.mark.parametrize("content", [None, "<dds>", "<dds/>"])
def test_a_profile_of_no_use_is_an_error(tmp_path, content):
    path = tmp_path / "profile.xml"
    if content is not None:
        path.write_text(content)
    found = check(tmp_path, FASTDDS_DEFAULT_PROFILES_FILE=str(path))
    assert found["dds.profile"].level == "error"
    assert found["dds.segment"].level == "error"
    assert is_helpful(found["dds.profile"])
    assert is_helpful(found["dds.segment"])


def test_a_profile_too_small_for_the_cameras_is_a_warning(tmp_path, repo_root):
    found = check(tmp_path, size=(2160, 3840), FASTDDS_DEFAULT_PROFILES_FILE=str(repo_root / OURS))
    assert found["dds.profile"].level == "warning"
    assert "segment_size" in found["dds.profile"].advice
    assert found["dds.segment"].level == "error"  # one image alone has 24 MB


def test_a_profile_without_udp_is_a_warning(tmp_path, repo_root):
    path = tmp_path / "profile.xml"
    path.write_text((repo_root / OURS).read_text().replace("UDPv4", "TCPv4"))
    setup = Setup(folder=tmp_path, environment={VARIABLES[0]: str(path)})
    finding = ros._profile(setup)
    assert finding.level == "warning"
    assert "no UDP" in finding.found


def test_an_rmw_that_is_not_installed_is_an_error_and_names_itself(tmp_path):
    found = check(tmp_path, RMW_IMPLEMENTATION="rmw_nothing_cpp")
    assert levels(found.values()) == {
        "ros.installation": "error",
        "ros.messages": "skipped",
        "ros.numpy": "skipped",
        "dds.profile": "skipped",
        "dds.segment": "skipped",
        "dds.domain": "ok",
        "dds.discovery": "ok",
    }
    assert "ros-DISTRO-rmw-nothing-cpp" in found["ros.installation"].advice


def test_without_ros_that_is_said(tmp_path):
    """A folder of this name in front of the real rclpy stands for a machine without it."""
    (tmp_path / "rclpy.py").write_text("raise ImportError('No module named rclpy')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    found = check(tmp_path, PYTHONPATH=path)
    assert found["ros.installation"].level == "error"
    assert "No module named rclpy" in found["ros.installation"].found
    assert "setup.bash" in found["ros.installation"].advice


def test_wheels_without_their_libraries_are_explained(tmp_path):
    """The wheels' start-up does nothing when its flag is set and leaves the path to the caller."""
    if "_ROS_WHEELS_BOOTSTRAP_COMPLETE" not in os.environ:
        pytest.skip("ROS does not come from wheels here")
    found = check(tmp_path, LD_LIBRARY_PATH=None)
    assert found["ros.installation"].level == "error"
    assert "_ROS_WHEELS_BOOTSTRAP_COMPLETE" in found["ros.installation"].advice


def test_messages_that_are_missing_are_named():
    needed = ros._messages({"mmfusion_msgs": "No module named 'mmfusion_msgs'"})
    assert (needed.level, needed.values["missing"]) == ("error", ["mmfusion_msgs"])
    assert ros._messages({"vision_msgs": "no"}).level == "warning"


def test_another_numpy_is_an_error():
    finding = ros._numpy("AssertionError: numpy.core.multiarray failed to import")
    assert finding.level == "error"
    assert is_helpful(finding)


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ({"ROS_DOMAIN_ID": None}, "ok"),  # of this machine only
        ({"ROS_DOMAIN_ID": None, "ROS_AUTOMATIC_DISCOVERY_RANGE": None}, "note"),
        ({"ROS_DOMAIN_ID": "0", "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"}, "note"),
        ({"ROS_DOMAIN_ID": "7", "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"}, "ok"),
        ({"ROS_DOMAIN_ID": "150"}, "warning"),
        ({"ROS_DOMAIN_ID": "233"}, "error"),
        ({"ROS_DOMAIN_ID": "-1"}, "error"),
        ({"ROS_DOMAIN_ID": "robot"}, "error"),
    ],
)
def test_domains(changes, level):
    finding = ros._domain(Setup(environment=environment(**changes)))
    assert finding.level == level
    assert is_helpful(finding)


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({}, "ok", "only programs of this machine"),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": None}, "ok", "of the local network"),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF"}, "error", "no program finds another"),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "HERE"}, "warning", "'HERE'"),
        ({"ROS_LOCALHOST_ONLY": "1"}, "note", "ROS_LOCALHOST_ONLY=1"),
        ({"ROS_DISCOVERY_SERVER": "1.2.3.4:11811"}, "note", "1.2.3.4:11811"),
    ],
)
def test_discovery(changes, level, words):
    finding = ros._discovery(Setup(environment=environment(**changes)))
    assert finding.level == level
    assert words in finding.found
    assert is_helpful(finding)


@pytest.mark.parametrize(
    ("uri", "level"),
    [("", "note"), ("file:///nowhere/cyclone.xml", "error"), ("<CycloneDDS/>", "note")],
)
def test_with_cyclone_the_kernels_buffers_count(uri, level):
    setup = Setup(environment={"CYCLONEDDS_URI": uri})
    finding = ros._other_middleware(setup, "rmw_cyclonedds_cpp")
    assert finding.level == level
    assert is_helpful(finding)


def test_other_middleware_is_left_to_the_streams():
    assert ros._other_middleware(Setup(), "rmw_zenoh_cpp").level == "note"


def test_no_shared_memory_at_all_is_an_error():
    finding = ros._segment(Setup(), None, None, "Unable to Register SHM Transport")
    assert finding.level == "error"
    assert "Unable to Register" in finding.found
