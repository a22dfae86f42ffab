"""The rig: three cameras, where they sit and what their numbers mean."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jsonschema import Draft202012Validator, TypeChecker, ValidationError
from jsonschema.exceptions import best_match
from jsonschema.validators import extend
from numpy.typing import NDArray

from mmfusion_ros.core.errors import RigError
from mmfusion_ros.core.frames import Modality

_HOMOGRAPHY = {f"thermal_from_rgb_h{index // 3}{index % 3}": index for index in range(9)}


@dataclass(frozen=True)
class Camera:
    """One pinhole camera.

    Attributes:
        width, height: pixels.
        camera_matrix: K, row-major, pixels.
        distortion: plumb_bob coefficients k1 k2 p1 p2 k3; empty for none.
        translation: of the camera in the RGB optical frame, metres.
        rotation: quaternion x y z w, camera to RGB optical frame (REP 103: x right, y down,
            z forward).
        time_offset_ns: stamp of this camera minus the RGB stamp of the same instant.
    """

    width: int
    height: int
    camera_matrix: tuple[float, ...]
    distortion: tuple[float, ...]
    translation: tuple[float, float, float]
    rotation: tuple[float, float, float, float]
    time_offset_ns: int


@dataclass(frozen=True)
class Rig:
    """The cameras of one robot.

    Attributes:
        name: for logs and reports.
        thermal_unit: what a thermal count is: "counts" (unknown), "centikelvin" or "celsius".
        cameras: by modality.
        thermal_from_rgb: homography, row-major, RGB pixel to thermal pixel; None if not known.
    """

    name: str
    thermal_unit: str
    cameras: dict[Modality, Camera]
    thermal_from_rgb: tuple[float, ...] | None

    def pack(self, names: Sequence[str]) -> NDArray[np.float32]:
        """The numbers an artifact asks for, in its order.

        Raises:
            RigError: if this rig does not have one of them.
        """
        unknown = [name for name in names if name not in _HOMOGRAPHY]
        if unknown:
            raise RigError(
                f"the artifact asks for {unknown[0]!r}, which no rig file provides; export it "
                "again with a matching version of mmfusion"
            )
        if self.thermal_from_rgb is None:
            raise RigError(
                f"rig {self.name!r} has no thermal_from_rgb homography, which the artifact needs; "
                "add it to the rig file or export the artifact with registration identity"
            )
        return np.array([self.thermal_from_rgb[_HOMOGRAPHY[name]] for name in names], np.float32)


def load_rig(path: Path) -> Rig:
    """Read a rig file strictly.

    Raises:
        RigError: if the file is missing, is not YAML, or has a missing, unknown or wrong key,
            naming it.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_bytes())  # which YAML itself decodes, and complains of
    except OSError as error:
        raise RigError(f"no readable rig file at {path} ({error.strerror})") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2026-99-99
        raise RigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    problem = best_match(_validator().iter_errors(content))
    if problem is not None:
        raise RigError(f"{path}, {problem.json_path}: {_reason(problem)}")
    for name, entry in content["cameras"].items():
        norm = math.hypot(*entry["rotation"])
        if abs(norm - 1) > 1e-3:
            raise RigError(
                f"{path}, $.cameras.{name}.rotation: {entry['rotation']} is no unit quaternion "
                f"(norm {norm:.4f}); expected x y z w of norm 1"
            )
    homography = content.get("thermal_from_rgb")
    return Rig(
        name=content["name"],
        thermal_unit=content["thermal_unit"],
        cameras={Modality(name): _camera(entry) for name, entry in content["cameras"].items()},
        thermal_from_rgb=None if homography is None else tuple(map(float, homography)),
    )


def _reason(problem: ValidationError) -> str:
    """What is wrong, where the schema's own words are of little help in words of ours."""
    at_distortion = list(problem.absolute_path)[-1:] == ["distortion"]
    if at_distortion and problem.validator in {"anyOf", "minItems", "maxItems"}:
        return (
            f"{len(problem.instance)} coefficients; expected none, 4 (k1 k2 p1 p2) or "
            "5 (k1 k2 p1 p2 k3)"
        )
    return str(problem.message)


def _camera(entry: dict[str, Any]) -> Camera:
    x, y, z = map(float, entry["translation"])
    qx, qy, qz, qw = map(float, entry["rotation"])
    return Camera(
        width=int(entry["width"]),  # 640.0 is an integer to JSON Schema
        height=int(entry["height"]),
        camera_matrix=tuple(map(float, entry["camera_matrix"])),
        distortion=tuple(map(float, entry["distortion"])),
        translation=(x, y, z),
        rotation=(qx, qy, qz, qw),
        time_offset_ns=round(entry["time_offset_ms"] * 1e6),
    )


@cache
def _validator() -> Draft202012Validator:
    schema = resources.files(__package__).joinpath("rig.schema.json").read_text()
    # YAML knows .nan, .inf and numbers that no float32 holds.
    checker = Draft202012Validator.TYPE_CHECKER.redefine("number", _is_usable_number)
    strict = extend(Draft202012Validator, type_checker=checker)
    validator: Draft202012Validator = strict(json.loads(schema))
    return validator


def _is_usable_number(_checker: TypeChecker, value: object) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) <= float(np.finfo(np.float32).max)
    )
