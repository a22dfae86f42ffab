"""Rig files that load but cannot be true, and those that do not fit the artifact."""

from __future__ import annotations

import json

import pytest
from artifacts import write_artifact, write_rig
from finders import by_check, is_helpful, levels

from mmfusion_ros.checks.rig import check_rig
from mmfusion_ros.checks.subject import Setup


@pytest.fixture
def rig(tmp_path):
    """Write a rig with some values changed: a path of keys joined by dots, or a camera's key."""

    def write(**changes):
        path = write_rig(tmp_path / "rig.yaml")
        content = json.loads(path.read_text())
        for keys, value in changes.items():
            *folders, last = keys.split("__")
            entry = content
            for folder in folders:
                entry = entry[folder]
            entry[last] = value
        path.write_text(json.dumps(content))
        return path

    return write


def check(path, artifact=None):
    return by_check(check_rig(Setup(rig=path, artifact=artifact)))


def test_none_given_is_left_out():
    assert levels(check(None).values()) == {"rig": "skipped"}


def test_a_good_one_is_fine(rig, tmp_path):
    found = check(rig(), write_artifact(tmp_path / "artifact"))
    assert levels(found.values()) == {"rig": "ok", "rig.values": "ok", "rig.fit": "ok"}


def test_the_bundled_one_fits_the_bundled_artifacts(repo_root):
    for artifact in sorted((repo_root / "artifacts").iterdir()):
        found = check(repo_root / "calibration" / "demo.yaml", artifact)
        assert set(levels(found.values()).values()) == {"ok"}


@pytest.mark.parametrize(
    "content", [b"", b"name: [", b"\xff\xfe", b"name: x", b"- 1", b"rotation: .nan"]
)
def test_broken_files_are_an_error(tmp_path, content):
    path = tmp_path / "rig.yaml"
    path.write_bytes(content)
    found = check(path)
    assert levels(found.values()) == {"rig": "error"}
    assert is_helpful(found["rig"])


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_files_that_cannot_be_read_are_an_error(tmp_path, name):
    assert levels(check(tmp_path / name).values()) == {"rig": "error"}


def test_a_rotation_that_is_no_unit_quaternion_is_an_error(rig):
    found = check(rig(cameras__thermal__rotation=[0, 0, 0, 2]))
    assert found["rig"].level == "error"
    assert "unit quaternion" in found["rig"].found


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({"cameras__rgb__camera_matrix": [0] * 9}, "error", "focal lengths 0 and 0"),
        (
            {"cameras__depth__camera_matrix": [-64, 0, 32, 0, 64, 24, 0, 0, 1]},
            "error",
            "focal lengths -64 and 64",
        ),
        (
            {"cameras__rgb__camera_matrix": [64, 0, 0, 0, 64, 0, 32, 24, 1]},  # column by column
            "error",
            "is no K",
        ),
        (
            {"cameras__rgb__camera_matrix": [64, 0, 320, 0, 64, 240, 0, 0, 1]},
            "warning",
            "principal point (320, 240) lies outside",
        ),
        (
            {"cameras__rgb__camera_matrix": [64, 0, 32, 0, 128, 24, 0, 0, 1]},
            "warning",
            "differ by much",
        ),
        (
            {"cameras__rgb__camera_matrix": [2.8, 0, 32, 0, 2.8, 24, 0, 0, 1]},
            "warning",
            "a view of 170",
        ),
        ({"cameras__rgb__translation": [0.1, 0, 0]}, "warning", "rgb translation"),
        ({"cameras__rgb__rotation": [0, 0, 1, 0]}, "warning", "rotation [0.0, 0.0, 1.0, 0.0]"),
        ({"cameras__thermal__translation": [50, 0, 0]}, "warning", "50 m from the RGB camera"),
        ({"cameras__thermal__time_offset_ms": 1e3}, "warning", "time_offset_ms: 1000"),
        ({"thermal_from_rgb": [0] * 9}, "error", "singular"),
        ({"thermal_from_rgb": [1, 2, 3, 2, 4, 6, 0, 0, 1]}, "error", "singular"),
        ({"thermal_from_rgb": [1, 0, 0, 0, 1, 0, -0.05, 0, 1]}, "error", "horizon"),
        ({"thermal_from_rgb": [-1, 0, 0, 0, -1, 0, 0, 0, -1]}, "error", "behind the camera"),
        ({"thermal_from_rgb": [1, 0, 900, 0, 1, 0, 0, 0, 1]}, "error", "puts no part"),
    ],
)
def test_implausible_values_are_told(rig, changes, level, words):
    finding = check(rig(**changes))["rig.values"]
    assert words in finding.found
    assert finding.level == level
    assert is_helpful(finding)


def test_every_camera_with_a_fault_is_told(rig):
    path = rig(
        cameras__rgb__camera_matrix=[0] * 9,
        cameras__depth__camera_matrix=[0] * 9,
        thermal_from_rgb=[0] * 9,
    )
    found = [f for f in check_rig(Setup(rig=path)) if f.check == "rig.values"]
    assert len(found) == 3


@pytest.mark.parametrize(
    "homography",
    [
        [0.5, 0, 3, 0, 0.5, -2, 0, 0, 1],
        [-1, 0, 64, 0, -1, 48, 0, 0, 1],  # upside down
        [2, 0, 0, 0, 2, 0, 0, 0, 2],
    ],
)
def test_plausible_homographies_are_fine(rig, homography):
    assert check(rig(thermal_from_rgb=homography))["rig.values"].level == "ok"


def test_sizes_of_another_camera_are_an_error(rig, tmp_path):
    artifact = write_artifact(tmp_path / "artifact", rgb=(24, 32), thermal=(24, 32))
    finding = check(rig(), artifact)["rig.fit"]
    assert finding.level == "error"
    assert "rgb 64x48 instead of 32x24" in finding.found
    assert is_helpful(finding)


def test_with_a_broken_artifact_the_fit_is_left_out(rig, tmp_path):
    assert check(rig(), tmp_path)["rig.fit"].level == "skipped"
    assert check(rig())["rig.fit"].level == "skipped"


def test_what_the_artifact_asks_for_must_be_there(rig, tmp_path):
    artifact = write_artifact(tmp_path / "artifact")
    manifest = json.loads((artifact / "manifest.json").read_text())
    names = [f"thermal_from_rgb_h{row}{column}" for row in range(3) for column in range(3)]
    manifest["rig_packing"] = names
    manifest["inputs"].append(
        {"name": "rig", "dtype": "float32", "shape": [9], "meaning": "homography"}
    )
    (artifact / "manifest.json").write_text(json.dumps(manifest))
    assert check(rig(), artifact)["rig.fit"].level == "ok"
    path = rig()
    content = json.loads(path.read_text())
    del content["thermal_from_rgb"]
    path.write_text(json.dumps(content))
    finding = check(path, artifact)["rig.fit"]
    assert finding.level == "error"
    assert "no thermal_from_rgb" in finding.found
