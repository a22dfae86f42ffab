"""Launch, parameter, RViz and Foxglove files name what exists, and start what they say."""

from __future__ import annotations

import importlib.util
import json
import runpy
from pathlib import Path

import pytest
import yaml
from artifacts import write_artifact
from launch_stand_in import launch, load, standing_in

from mmfusion_ros import dds_profile
from mmfusion_ros.core.errors import MmfusionError
from mmfusion_ros.parameters import TABLE
from mmfusion_ros.topics import (
    DIAGNOSTICS,
    FUSED_IMAGE,
    FUSED_INFO,
    MARKERS,
    OVERLAY_IMAGE,
    SALIENCY_MASK,
    STATUS,
)

PACKAGE = "ros2_ws/src/mmfusion_ros"
FILES = ("fusion", "demo", "replay", "two_rigs")
DEFAULTS = {row.name: row.default for row in TABLE}
CAMERAS = tuple(f"/{DEFAULTS[f'{name}_topic']}" for name in ("rgb", "depth", "thermal"))


@pytest.fixture(autouse=True)
def no_profile(monkeypatch):
    for name in ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"):
        monkeypatch.setenv(name, "")


@pytest.fixture
def share(repo_root):
    """The package's folder has what it installs."""
    return repo_root / PACKAGE


@pytest.fixture
def run(repo_root, share):
    def run(name, **arguments):
        return launch(repo_root / "launch" / f"{name}.launch.py", share, **arguments)

    return run


@pytest.fixture
def artifact(tmp_path):
    return write_artifact(tmp_path / "small", rgb=(24, 32), depth=(12, 16), thermal=(24, 32))


def required(name, artifact):
    return (
        {"bag": "b", "artifact": "a", "out": "o"}
        if name == "replay"
        else {"artifact": str(artifact)}
    )


def installed(share):
    """The programs that setup.py installs."""
    setup = (share / "setup.py").read_text()
    names = [
        line.split("=")[0].split('f"')[1].strip() for line in setup.splitlines() if ":main" in line
    ]
    assert "fusion_node" in names
    return {name for name in names if importlib.util.find_spec(f"mmfusion_ros.{name}")}


@pytest.mark.parametrize("name", FILES)
def test_every_argument_is_described_and_every_program_installed(name, run, share, artifact):
    context = run(name, **required(name, artifact))
    assert all(argument.description for argument in context.declared.values())
    assert context.started
    for process in context.started:
        assert process.package == "mmfusion_ros"
        assert process.executable in installed(share)
        assert set(process.parameters) <= set(DEFAULTS)
        assert all(Path(file).is_file() for file in process.parameter_files)


@pytest.mark.parametrize(
    ("name", "missing"), [("fusion", "artifact"), ("replay", "bag"), ("two_rigs", "artifact")]
)
def test_what_must_be_given_is_asked_for(name, missing, run):
    with pytest.raises(RuntimeError, match=f"Required launch argument '{missing}'"):
        run(name)


def test_the_node_as_it_comes(run, share):
    (node,) = run("fusion", artifact="/a").started
    assert (node.executable, node.name, node.namespace, node.lifecycle) == (
        "fusion_node",
        "fusion_node",
        "",
        True,
    )
    assert node.parameters == {
        "artifact": "/a",
        "rig": str(share / "calibration" / "demo.yaml"),
        "autostart": True,
    }
    assert Path(node.parameters["rig"]).is_file()
    assert node.parameter_files == [str(share / "config" / "fusion.yaml")]
    assert node.ros_arguments == ["--log-level", "info"]
    assert not node.arguments


def test_every_parameter_of_the_node_is_an_argument_of_its_type(run):
    other = {str: "other", int: "3", float: "7", bool: "true"}
    given = {row.name: row.choices[-1] if row.choices else other[row.type] for row in TABLE}
    context = run("fusion", **given, namespace="front", log_level="debug", params_file="/p.yaml")
    (node,) = context.started
    assert set(node.parameters) == set(DEFAULTS)
    for row in TABLE:
        value = node.parameters[row.name]
        assert type(value) is row.type
        assert value == (row.type(given[row.name]) if row.type is not bool else True)
        assert row.description in context.declared[row.name].description
    assert (node.namespace, node.parameter_files) == ("front", ["/p.yaml"])
    assert node.ros_arguments == ["--log-level", "debug"]


def test_parameters_that_nobody_gives_are_left_to_the_file(run):
    (node,) = run("fusion", artifact="a", autostart="false", window_ms="20").started
    assert node.parameters["window_ms"] == 20.0
    assert node.parameters["autostart"] is False
    assert set(node.parameters) == {"artifact", "rig", "autostart", "window_ms"}


@pytest.mark.parametrize(("name", "text"), [("threads", "two"), ("autostart", "perhaps")])
def test_an_argument_of_the_wrong_type_is_named(run, name, text):
    with pytest.raises(RuntimeError, match=f"{name}:={text}: expected a value of type"):
        run("fusion", artifact="a", **{name: text})


def test_the_profile_is_set_for_all_processes(run, monkeypatch):
    applied = []
    monkeypatch.setattr(dds_profile, "apply_dds_profile", lambda: applied.append(1))
    for name in ("fusion", "two_rigs"):
        run(name, artifact="a")
    assert len(applied) == 3


def test_two_rigs_do_not_know_each_other(run):
    front, rear = run("two_rigs", artifact="a", front_rig="f", rear_rig="r").started
    assert (front.namespace, front.parameters["rig"]) == ("front", "f")
    assert (rear.namespace, rear.parameters["rig"]) == ("rear", "r")
    assert front.parameters["artifact"] == rear.parameters["artifact"] == "a"
    assert front.name == rear.name == "fusion_node"


def test_the_demo_plays_what_this_repository_has(run, share, repo_root):
    node, player = run("demo").started
    assert Path(node.parameters["artifact"]) == repo_root / "artifacts" / "rgbdt_tiny_640x480"
    assert (Path(node.parameters["artifact"]) / "manifest.json").is_file()
    assert player.executable == "camera_player"
    assert player.arguments == [
        str(repo_root / "data" / "courtyard"),
        "--loop",
        "--rate",
        "5",
        "--size",
        "640x480",
        "--depth-size",
        "640x480",
        "--thermal-size",
        "640x480",
    ]
    assert Path(player.arguments[0]).is_dir()


def test_the_demo_plays_anything_in_the_sizes_of_the_artifact(run, artifact, share):
    given = {"data": "/bag", "loop": "false", "rate": "", "namespace": "n", "rig": "/r"}
    faults = "thermal:freeze=1.5@4 depth:drop=0.2"
    context = run("demo", artifact=str(artifact), faults=faults, rviz="true", **given)
    node, player, rviz = context.started
    assert (node.namespace, player.namespace, node.parameters["rig"]) == ("n", "n", "/r")
    sizes = ["--size", "32x24", "--depth-size", "16x12", "--thermal-size", "32x24"]
    ends = ["--fault", "thermal:freeze=1.5@4", "--fault", "depth:drop=0.2"]
    assert player.arguments == ["/bag", "--no-loop", *sizes, *ends]
    assert (rviz.package, rviz.executable) == ("rviz2", "rviz2")
    assert rviz.arguments == ["-d", str(share / "rviz" / "fusion.rviz")]
    assert Path(rviz.arguments[1]).is_file()


def test_a_loop_that_is_neither_true_nor_false_is_refused(run, artifact):
    with pytest.raises(RuntimeError, match="loop:=yes: expected true or false"):
        run("demo", artifact=str(artifact), loop="yes")


def test_what_the_launch_files_pass_is_understood(run, artifact):
    pytest.importorskip("rclpy", reason="ROS 2 is not installed")
    from mmfusion_ros.player_options import player_parser
    from mmfusion_ros.replay_options import parser

    context = run("demo", artifact=str(artifact), faults="rgb:noise=3 all:jump_s=-1@2")
    options = player_parser().parse_args(context.started[1].arguments)
    assert options.loop
    assert len(options.fault) == 2
    given = {"bag": "b", "artifact": "a", "out": "o", "rig": "r", "backend": "onnxruntime"}
    (process,) = run("replay", **given, options="--stride 5 --no-report").started
    options = parser().parse_args(process.arguments)
    paths = [*options.bag, options.artifact, options.out]
    assert [str(path) for path in paths] == ["b", "a", "o"]
    assert (str(options.rig), options.backend) == ("r", "onnxruntime")
    assert (options.stride, options.report) == (5, False)
    (process,) = run("replay", bag="b", artifact="a", out="o").started
    assert process.arguments == ["b", "--artifact", "a", "--out", "o"]


def test_the_demo_without_an_artifact_says_so(run, tmp_path):
    with pytest.raises(MmfusionError):
        run("demo", artifact=str(tmp_path))


def test_files_are_installed(share, repo_root, monkeypatch):
    """What setup.py lists, taken from a run of it."""
    found = {}
    monkeypatch.chdir(share)
    setuptools = pytest.importorskip("setuptools")
    monkeypatch.setattr(setuptools, "setup", lambda **options: found.update(options))
    runpy.run_path("setup.py")
    files = {
        f"{folder.removeprefix('share/mmfusion_ros/')}/{Path(file).name}"
        for folder, files in found["data_files"]
        for file in files
    }
    expected = {
        f"launch/{path.name}" for path in (repo_root / "launch").iterdir() if path.is_file()
    }
    assert {f"launch/{name}.launch.py" for name in FILES} == expected
    assert expected <= files
    assert {"rviz/fusion.rviz", "foxglove/fusion.json", "config/fusion.yaml"} <= files


def shown(*topics):
    return {topic.name.replace("~", "/fusion_node") for topic in topics}


def test_rviz_shows_topics_that_are_published(share):
    content = yaml.safe_load((share / "rviz" / "fusion.rviz").read_text())
    displays = content["Visualization Manager"]["Displays"]
    seen = [display["Topic"] for display in displays if "Topic" in display]
    outputs = shown(FUSED_IMAGE, SALIENCY_MASK, OVERLAY_IMAGE, MARKERS)
    assert {topic["Value"] for topic in seen} == {*CAMERAS, *outputs}
    # A best-effort viewer is served by every publisher and slows none down.
    assert {topic["Reliability Policy"] for topic in seen} == {"Best Effort"}
    # Markers are in this frame, so no TF is needed.
    assert content["Visualization Manager"]["Global Options"]["Fixed Frame"] == "rgb_optical_frame"
    windows = {name for name in content["Window Geometry"] if name not in {"Height", "Width"}}
    images = {d["Name"] for d in displays if d["Class"] == "rviz_default_plugins/Image"}
    assert windows == images | {"Displays"}


def panels(layout):
    if isinstance(layout, str):
        return [layout]
    return [*panels(layout["first"]), *panels(layout["second"])]


def test_foxglove_shows_topics_that_are_published(share):
    content = json.loads((share / "foxglove" / "fusion.json").read_text())
    configs = content["configById"]
    placed = panels(content["layout"])
    assert sorted(placed) == sorted(configs)
    images = [config["imageMode"] for name, config in configs.items() if name.startswith("Image!")]
    seen = {image["imageTopic"] for image in images}
    outputs = shown(FUSED_IMAGE, SALIENCY_MASK, OVERLAY_IMAGE)
    assert seen == {CAMERAS[0], CAMERAS[2], *outputs}
    infos = {image["calibrationTopic"] for image in images if "calibrationTopic" in image}
    assert infos == {"/rgb/camera_info", *shown(FUSED_INFO)}
    assert set(configs["3D!markers"]["topics"]) == shown(MARKERS)
    assert configs["3D!markers"]["followTf"] == "rgb_optical_frame"
    assert configs["DiagnosticSummary!diagnostics"]["topicToRender"] == DIAGNOSTICS.name
    assert {configs["RawMessages!status"]["topicPath"]} == shown(STATUS)


def test_the_stand_in_leaves_nothing_behind(share):
    import sys

    before = {name for name in sys.modules if name.startswith(("launch", "ament_index"))}
    with standing_in(share):
        assert load(share / "launch" / "replay.launch.py")
    after = {name for name in sys.modules if name.startswith(("launch", "ament_index"))}
    assert after == before


@pytest.mark.ros
@pytest.mark.parametrize("name", FILES)
def test_the_real_launch_understands_the_files(name, repo_root, tmp_path, monkeypatch):
    pytest.importorskip("launch.actions", reason="launch is not among the ROS wheels on PyPI")
    pytest.importorskip("launch_ros", reason="launch_ros is not among the ROS wheels on PyPI")
    from launch.launch_context import LaunchContext
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    marker = tmp_path / "share/ament_index/resource_index/packages/mmfusion_ros"
    marker.parent.mkdir(parents=True)
    marker.touch()
    (tmp_path / "share" / "mmfusion_ros").symlink_to(repo_root / PACKAGE)
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    source = PythonLaunchDescriptionSource(str(repo_root / "launch" / f"{name}.launch.py"))
    assert source.get_launch_description(LaunchContext()).entities
