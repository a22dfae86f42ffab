"""The launch, parameter and RViz files name things that exist."""

from __future__ import annotations

import ast
import importlib.util

import pytest
import yaml

from mmfusion_ros.parameters import TABLE
from mmfusion_ros.topics import FUSED_IMAGE, MARKERS, OVERLAY_IMAGE, SALIENCY_MASK

PACKAGE = "ros2_ws/src/mmfusion_ros"


@pytest.fixture
def tree(repo_root):
    path = repo_root / "launch" / "fusion.launch.py"
    return ast.parse(path.read_text(), str(path))


def calls(tree, name):
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == name
    ]


def keywords(call):
    return {keyword.arg: keyword.value for keyword in call.keywords}


def test_arguments_are_described_and_used(tree):
    declared = calls(tree, "DeclareLaunchArgument")
    assert all(keywords(call)["description"].value for call in declared)
    names = {call.args[0].value for call in declared}
    used = {call.args[0].value for call in calls(tree, "LaunchConfiguration")}
    assert names == used


def test_the_executable_is_installed(tree, repo_root):
    (node,) = calls(tree, "LifecycleNode")
    executable = keywords(node)["executable"].value
    setup = (repo_root / PACKAGE / "setup.py").read_text()
    assert f'"{executable} = {{PACKAGE}}.{executable}:main"' in setup
    assert importlib.util.find_spec(f"mmfusion_ros.{executable}")


def test_parameters_are_declared_by_the_node(tree):
    (node,) = calls(tree, "LifecycleNode")
    (values,) = [item for item in keywords(node)["parameters"].elts if isinstance(item, ast.Dict)]
    assert {key.value for key in values.keys} <= {row.name for row in TABLE}


def test_files_it_names_are_in_the_share_folder(tree, repo_root):
    files = {
        "/".join(reversed(parts))
        for node in ast.walk(tree)
        if (parts := path_parts(node)) and parts[0].endswith(".yaml")
    }
    assert files == {"calibration/demo.yaml", "config/fusion.yaml"}
    assert all((repo_root / PACKAGE / file).is_file() for file in files)


def path_parts(node):
    """The strings of ``share / "a" / "b"``, last one first."""
    parts = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        parts.append(node.right.value)
        node = node.left
    return parts


def test_rviz_shows_topics_that_are_published(repo_root):
    content = yaml.safe_load((repo_root / PACKAGE / "rviz" / "fusion.rviz").read_text())
    displays = content["Visualization Manager"]["Displays"]
    inputs = {row.default for row in TABLE if row.name in {"rgb_topic", "thermal_topic"}}
    topics = {display["Topic"]["Value"] for display in displays}
    outputs = (FUSED_IMAGE, SALIENCY_MASK, OVERLAY_IMAGE, MARKERS)
    shown = {topic.name.replace("~", "/fusion_node") for topic in outputs}
    assert topics == {f"/{name}" for name in inputs} | shown
    # A best-effort viewer is served by every publisher and slows none down.
    assert {display["Topic"]["Reliability Policy"] for display in displays} == {"Best Effort"}


@pytest.mark.ros
def test_the_launch_description_can_be_made(repo_root, tmp_path, monkeypatch):
    pytest.importorskip("launch", reason="launch is not among the ROS wheels on PyPI")
    pytest.importorskip("launch_ros", reason="launch_ros is not among the ROS wheels on PyPI")
    from launch.launch_context import LaunchContext
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    marker = tmp_path / "share/ament_index/resource_index/packages/mmfusion_ros"
    marker.parent.mkdir(parents=True)
    marker.touch()
    (tmp_path / "share" / "mmfusion_ros").mkdir()
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    source = PythonLaunchDescriptionSource(str(repo_root / "launch" / "fusion.launch.py"))
    assert source.get_launch_description(LaunchContext()).entities
