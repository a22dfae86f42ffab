"""One table declares, checks, reads and documents the parameters."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mmfusion_ros.core.errors import MmfusionError
from mmfusion_ros.core.frames import Modality
from mmfusion_ros.core.rig import load_rig
from mmfusion_ros.parameters import SYNCHRONIZERS, TABLE, Settings, declare, markdown, read


def test_defaults_are_allowed_and_of_their_type():
    defaults = dataclasses.asdict(Settings())
    assert {row.name: row.default for row in TABLE} == defaults
    assert all(type(row.default) is row.type for row in TABLE)
    assert all(row.description for row in TABLE)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"backend": "steam"}, "backend is 'steam'; expected one of auto, onnxruntime"),
        ({"input_reliability": "no"}, "expected one of reliable_if_offered, best_effort, reliable"),
        ({"threads": -1}, "threads is -1; expected 0 to 1024"),
        ({"window_ms": 901.0}, "window_ms is 901.0; expected 0 to 900"),
        ({"max_wait_ms": float("nan")}, "max_wait_ms is nan"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(wrong, message):
    with pytest.raises(MmfusionError, match=message):
        Settings(**wrong)


def test_what_is_said_of_the_engine_reaches_it():
    said = {"backend": "tensorrt", "threads": 3, "precision": "fp16", "device_id": 1}
    engine = Settings(**said, engine_fallback="openvino", engine_cache="/c").engine
    assert said == {name: getattr(engine, name) for name in said}
    assert (engine.fallback, engine.cache, engine.samples) == ("openvino", Path("/c"), None)


def test_every_allowed_timing_makes_a_synchroniser(repo_root):
    rig = load_rig(repo_root / "calibration" / "demo.yaml")
    ranges = [row for row in TABLE if not row.read_only]
    timings = {"window_ms", "max_wait_ms", "frozen_after_ms"}
    assert {row.name for row in ranges} == {*timings, "min_score"}
    for end in (0, 1):
        settings = Settings(**{row.name: row.range[end] for row in ranges})
        assert settings.synchronizer_config(rig).max_wait_ns == settings.max_wait_ms * 1e6


def test_time_offsets_come_from_the_rig(repo_root):
    rig = load_rig(repo_root / "calibration" / "demo.yaml")
    late = dataclasses.replace(rig.cameras[Modality.THERMAL], time_offset_ns=9_000_000)
    rig = dataclasses.replace(rig, cameras={**rig.cameras, Modality.THERMAL: late})
    config = Settings(window_ms=4.0).synchronizer_config(rig)
    assert (config.thermal.offset_ns, config.depth.offset_ns) == (9_000_000, 0)
    assert config.thermal.window_ns == config.depth.window_ns == 4_000_000


@pytest.mark.parametrize(
    ("image", "info"),
    [
        ("rgb/image", "rgb/camera_info"),
        ("/cam/color/image_raw", "/cam/color/camera_info"),
        ("image", "camera_info"),
        ("/image", "/camera_info"),
    ],
)
def test_camera_info_lies_beside_the_images(image, info):
    assert Settings(rgb_topic=image).info_topic(Modality.RGB) == info


def test_markdown_has_a_row_for_each_parameter_and_needs_no_ros():
    lines = markdown().splitlines()
    assert len(lines) == len(TABLE) + 2
    assert all(f"`{row.name}`" in line for row, line in zip(TABLE, lines[2:], strict=True))
    walled = "import sys; sys.modules.update(rclpy=None, rcl_interfaces=None); "
    program = walled + "import runpy; runpy.run_module('mmfusion_ros.parameters', None, '__main__')"
    printed = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert printed == markdown()


def test_the_parameter_file_says_nothing_but_defaults(repo_root):
    path = repo_root / "ros2_ws/src/mmfusion_ros/config/fusion.yaml"
    values = yaml.safe_load(path.read_text())["/**"]["ros__parameters"]
    defaults = {row.name: row.default for row in TABLE}
    assert values == {name: defaults[name] for name in values}
    assert set(defaults) - set(values) == {"artifact", "rig", "backend", "autostart"}


@pytest.mark.ros
class TestOnANode:
    @pytest.fixture
    def make_node(self):
        rclpy = pytest.importorskip("rclpy", reason="ROS 2 is not installed")
        context = rclpy.Context()
        rclpy.init(context=context)
        nodes = []

        def make(**overrides):
            parameters = [rclpy.parameter.Parameter(n, value=v) for n, v in overrides.items()]
            node = rclpy.create_node("n", context=context, parameter_overrides=parameters)
            nodes.append(node)
            return node

        yield make
        for node in nodes:
            node.destroy_node()
        rclpy.shutdown(context=context)

    def test_declared_as_the_table_says(self, make_node):
        node = make_node(window_ms=7.5)
        assert declare(node) == Settings(window_ms=7.5)
        for row in TABLE:
            descriptor = node.describe_parameter(row.name)
            assert descriptor.description == row.description
            assert descriptor.read_only == row.read_only
            ranges = [*descriptor.integer_range, *descriptor.floating_point_range]
            assert [(r.from_value, r.to_value) for r in ranges] == (
                [row.range] if row.range else []
            )

    def test_changes_are_checked_before_they_are_made(self, make_node):
        node = make_node()
        declare(node)
        assert read(node, {"window_ms": 3.0}).window_ms == 3.0
        with pytest.raises(MmfusionError, match="window_ms"):
            read(node, {"window_ms": -3.0})

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"window_ms": 15}, "parameter window_ms: .*INTEGER.* expected double 0 to 900"),
            ({"threads": 5000}, "parameter threads: .* expected integer 0 to 1024"),
            ({"rig": 3}, "parameter rig: .*INTEGER.* expected string"),
        ],
    )
    def test_a_wrong_start_value_is_named(self, make_node, wrong, message):
        with pytest.raises(MmfusionError, match=message):
            declare(make_node(**wrong))


def test_every_synchroniser_says_what_has_no_effect():
    idle = {name: Settings(synchronizer=name).without_effect for name in SYNCHRONIZERS}
    assert idle["mmfusion"] == ()
    assert set(idle["approximate"]) < set(idle["exact"]) < {row.name for row in TABLE}
