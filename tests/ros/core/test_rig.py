"""A rig file is read strictly: every fault is named with its key."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from mmfusion_ros.core.errors import RigError
from mmfusion_ros.core.frames import Modality
from mmfusion_ros.core.rig import load_rig

CAMERA = {
    "width": 64,
    "height": 48,
    "camera_matrix": [50.0, 0, 32, 0, 51.0, 24, 0, 0, 1],
    "distortion": [0.1, -0.2, 0, 0, 0.01],
    "translation": [0.1, 0, -0.02],
    "rotation": [0, 0, math.sqrt(0.5), math.sqrt(0.5)],
    "time_offset_ms": -12.5,
}
RIG: dict[str, Any] = {
    "name": "bench",
    "thermal_unit": "celsius",
    "cameras": {name: dict(CAMERA) for name in ("rgb", "depth", "thermal")},
    "thermal_from_rgb": [1, 2, 3, 4, 5, 6, 7, 8, 9],
}
PACKING = [f"thermal_from_rgb_h{row}{column}" for row in range(3) for column in range(3)]


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "rig.yaml"


def changed(keys: str, value: Any = ...) -> dict[str, Any]:
    """The good rig with one entry set, or left out."""
    rig = copy.deepcopy(RIG)
    *way, last = keys.split(".")
    inner = rig
    for key in way:
        inner = inner[key]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return rig


def refusal(path: Path, content: Any) -> str:
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    with pytest.raises(RigError) as caught:
        load_rig(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_a_good_rig(path):
    path.write_text(yaml.safe_dump(RIG))
    rig = load_rig(path)
    assert (rig.name, rig.thermal_unit) == ("bench", "celsius")
    assert set(rig.cameras) == set(Modality)
    camera = rig.cameras[Modality.THERMAL]
    assert (camera.width, camera.height) == (64, 48)
    assert camera.camera_matrix == (50, 0, 32, 0, 51, 24, 0, 0, 1)
    assert camera.distortion == (0.1, -0.2, 0, 0, 0.01)
    assert camera.translation == (0.1, 0, -0.02)
    assert camera.rotation == (0, 0, math.sqrt(0.5), math.sqrt(0.5))
    assert camera.time_offset_ns == -12_500_000
    assert load_rig(str(path)) == rig


@pytest.mark.parametrize("count", [0, 4, 5])
def test_lengths_that_distortion_may_have(path, count):
    path.write_text(yaml.safe_dump(changed("cameras.rgb.distortion", [0.1] * count)))
    assert load_rig(path).cameras[Modality.RGB].distortion == (0.1,) * count


def test_the_demo_rig(repo_root):
    rig = load_rig(repo_root / "calibration" / "demo.yaml")
    assert rig.name == "demo"
    assert rig.thermal_unit == "centikelvin"
    assert all((camera.width, camera.height) == (640, 480) for camera in rig.cameras.values())
    np.testing.assert_array_equal(rig.pack(PACKING), np.eye(3).ravel())


def test_json_is_yaml(path):
    path.write_text(json.dumps(RIG))
    assert load_rig(path).name == "bench"


def test_other_than_ascii_is_read_in_any_locale(path):
    path.write_bytes(yaml.safe_dump(changed("name", "Prüfstand"), allow_unicode=True).encode())
    assert load_rig(path).name == "Prüfstand"


REQUIRED = [
    *("name", "thermal_unit", "cameras"),
    *(f"cameras.{name}" for name in ("rgb", "depth", "thermal")),
    *(f"cameras.depth.{key}" for key in CAMERA),
]


@pytest.mark.parametrize("keys", REQUIRED)
def test_missing_keys_are_named(path, keys):
    parent, _, key = f"$.{keys}".rpartition(".")
    assert f"{path}, {parent}: '{key}' is a required property" in refusal(path, changed(keys))


@pytest.mark.parametrize("parent", ["$", "$.cameras", "$.cameras.thermal"])
def test_unknown_keys_are_named(path, parent):
    keys = f"{parent}.surplus".removeprefix("$.")
    message = refusal(path, changed(keys, 1))
    assert f"{path}, {parent}: Additional properties are not allowed ('surplus'" in message


def test_a_number_as_a_key_is_named(path):
    assert "(7 was unexpected)" in refusal(path, {**RIG, 7: 1})


@pytest.mark.parametrize(
    ("keys", "value", "reason"),
    [
        ("name", "", "''"),
        ("name", 3, "3 is not of type 'string'"),
        ("thermal_unit", "kelvin", "'kelvin' is not one of ['counts', 'centikelvin', 'celsius']"),
        ("cameras", [], "[] is not of type 'object'"),
        ("cameras.rgb", None, "None is not of type 'object'"),
        ("cameras.rgb.width", 0, "0 is less than the minimum of 1"),
        ("cameras.rgb.width", 64.5, "64.5 is not of type 'integer'"),
        ("cameras.rgb.height", "48", "'48' is not of type 'integer'"),
        ("cameras.rgb.height", True, "True is not of type 'integer'"),
        ("cameras.rgb.height", math.inf, "inf is not of type 'integer'"),
        ("cameras.rgb.camera_matrix", [1, 2], "[1, 2] is too short"),
        *(
            (
                "cameras.rgb.distortion",
                [0] * count,
                f"{count} coefficients; expected none, 4 (k1 k2 p1 p2) or 5 (k1 k2 p1 p2 k3)",
            )
            for count in (1, 3, 6, 8)
        ),
        ("cameras.rgb.distortion", "none", "'none' is not of type 'array'"),
        ("cameras.rgb.translation", [0, 0, 0, 0], "[0, 0, 0, 0] is too long"),
        ("cameras.rgb.rotation", [0, 0, 1], "[0, 0, 1] is too short"),
        ("cameras.rgb.rotation", [0, 0, 0, 0], "is no unit quaternion (norm 0.0000)"),
        ("cameras.depth.rotation", [1, 0, 0, 1], "is no unit quaternion (norm 1.4142)"),
        ("cameras.thermal.rotation", [1e20, 0, 0, 1], "is no unit quaternion"),
        ("cameras.rgb.time_offset_ms", "1", "'1' is not of type 'number'"),
        ("cameras.rgb.time_offset_ms", math.nan, "nan is not of type 'number'"),
        ("cameras.rgb.time_offset_ms", -math.inf, "-inf is not of type 'number'"),
        ("cameras.rgb.time_offset_ms", 10**40, " is not of type 'number'"),
        ("cameras.rgb.time_offset_ms", False, "False is not of type 'number'"),
        ("thermal_from_rgb", [1] * 8, " is too short"),
        ("thermal_from_rgb", None, "None is not of type 'array'"),
    ],
)
def test_wrong_values_are_named(path, keys, value, reason):
    message = refusal(path, changed(keys, value))
    assert message.startswith(f"{path}, $.{keys}: ")
    assert reason in message


@pytest.mark.parametrize(
    ("keys", "length"),
    [("thermal_from_rgb", 9), ("cameras.depth.camera_matrix", 9), ("cameras.rgb.rotation", 4)],
)
@pytest.mark.parametrize("number", [math.nan, math.inf, 1e39, "0"])
def test_numbers_that_no_float32_holds_are_refused(path, keys, length, number):
    message = refusal(path, changed(keys, [0] * (length - 1) + [number]))
    assert f"$.{keys}[{length - 1}]: {number!r} is not of type 'number'" in message


@pytest.mark.parametrize(
    "content",
    ["name: [", "a: b: c", "\tname: x", "name: 2026-99-99", b"\xff\xfe\xff", b"name: \xff", b"\0"],
)
def test_what_is_no_yaml_is_refused(path, content):
    assert f"{path} is not valid YAML: " in refusal(path, content)


@pytest.mark.parametrize("content", ["", "just text", "[1, 2]", "3"])
def test_what_is_no_mapping_is_refused(path, content):
    assert "$: " in refusal(path, content)
    assert "is not of type 'object'" in refusal(path, content)


def test_yaml_runs_no_code(path):
    assert "not valid YAML" in refusal(path, "name: !!python/object/apply:os.getcwd []")


def test_missing_files_are_named(path, tmp_path):
    with pytest.raises(RigError, match=r"no readable rig file at .*rig.yaml \(No such file"):
        load_rig(path)
    with pytest.raises(RigError, match="Is a directory"):
        load_rig(tmp_path)


def test_whole_numbers_may_be_written_as_floats(path):
    path.write_text(yaml.safe_dump(changed("cameras.rgb.width", 64.0)))
    assert isinstance(load_rig(path).cameras[Modality.RGB].width, int)


def test_pack_follows_the_artifacts_order(path):
    path.write_text(yaml.safe_dump(RIG))
    rig = load_rig(path)
    packed = rig.pack(PACKING)
    np.testing.assert_array_equal(packed, np.arange(1, 10))
    assert packed.dtype == np.float32
    np.testing.assert_array_equal(rig.pack(PACKING[::-2]), [9, 7, 5, 3, 1])


def test_pack_names_what_the_rig_lacks(path):
    path.write_text(yaml.safe_dump(changed("thermal_from_rgb")))
    rig = load_rig(path)
    assert rig.thermal_from_rgb is None
    with pytest.raises(RigError, match="rig 'bench' has no thermal_from_rgb homography"):
        rig.pack(PACKING)
    for owner in (rig, dataclasses.replace(rig, thermal_from_rgb=(1.0,) * 9)):
        with pytest.raises(RigError, match="the artifact asks for 'rgb_fx', which no rig file"):
            owner.pack(["rgb_fx"])
