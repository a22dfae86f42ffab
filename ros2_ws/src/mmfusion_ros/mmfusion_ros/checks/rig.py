"""The rig file: whether it loads, fits the artifact, and whether its numbers can be true."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from mmfusion_ros.checks.finding import Finding, Level, ok, skipped
from mmfusion_ros.checks.subject import Setup
from mmfusion_ros.core.errors import MmfusionError
from mmfusion_ros.core.frames import Modality
from mmfusion_ros.core.rig import Camera, Rig

_ADVICE = "correct the rig file; docs/your-cameras.md explains each field"
_NARROWEST_DEG, _WIDEST_DEG = 3.0, 160.0
_MOST_UNEQUAL_PIXELS = 1.3
_FARTHEST_M = 3.0
_LONGEST_OFFSET_NS = 500_000_000
# Reciprocal condition number below which float32 loses the inverse.
_SINGULAR = 1e-6


def check_rig(setup: Setup) -> Iterator[Finding]:
    """Everything about the rig file."""
    rig = setup.loaded_rig
    if rig is None:
        yield skipped("rig", "none given: pass --rig FILE")
        return
    if isinstance(rig, MmfusionError):
        yield Finding("rig", Level.ERROR, str(rig), "a rig file", _ADVICE)
        return
    yield ok("rig", f"{rig.name}, thermal in {rig.thermal_unit}", name=rig.name)
    problems = [
        *(entry for modality, camera in rig.cameras.items() for entry in _camera(modality, camera)),
        *_homography(rig),
    ]
    yield from problems
    if not problems:
        yield ok("rig.values", "intrinsics, poses and homography are plausible")
    yield from _fit(setup, rig)


def _implausible(level: Level, found: str, expected: str) -> Finding:
    return Finding("rig.values", level, found, expected, _ADVICE)


def _camera(modality: Modality, camera: Camera) -> Iterator[Finding]:
    k = camera.camera_matrix
    fx, fy, cx, cy = k[0], k[4], k[2], k[5]
    shown = f"{modality} camera_matrix"
    if fx <= 0 or fy <= 0:
        yield _implausible(
            Level.ERROR, f"{shown}: focal lengths {fx:g} and {fy:g}", "both above zero"
        )
        return  # what follows would only repeat it
    if (k[3], k[6], k[7], k[8]) != (0, 0, 0, 1):
        yield _implausible(
            Level.ERROR,
            f"{shown}: {list(k)} is no K",
            "row by row: fx 0 cx, 0 fy cy, 0 0 1",
        )
        return
    if not (0 <= cx <= camera.width and 0 <= cy <= camera.height):
        yield _implausible(
            Level.WARNING,
            f"{shown}: the principal point ({cx:g}, {cy:g}) lies outside the picture of "
            f"{camera.width}x{camera.height}",
            "near its middle; K belongs to the size it was calibrated at",
        )
    if max(fx / fy, fy / fx) > _MOST_UNEQUAL_PIXELS:
        yield _implausible(
            Level.WARNING,
            f"{shown}: focal lengths {fx:g} and {fy:g} differ by much",
            "nearly equal ones, as pixels are nearly square",
        )
    field = math.degrees(2 * math.atan(camera.width / (2 * fx)))
    if not _NARROWEST_DEG <= field <= _WIDEST_DEG:
        yield _implausible(
            Level.WARNING,
            f"{shown}: a view of {field:.1f} degrees",
            "focal lengths in pixels, not millimetres, of pictures of this width",
        )
    yield from _pose(modality, camera)


def _pose(modality: Modality, camera: Camera) -> Iterator[Finding]:
    distance = math.hypot(*camera.translation)
    turned = abs(camera.rotation[3]) < 1 - 1e-6
    if modality is Modality.RGB and (distance > 0 or turned):
        yield _implausible(
            Level.WARNING,
            f"rgb translation {list(camera.translation)} and rotation {list(camera.rotation)}",
            "[0, 0, 0] and [0, 0, 0, 1]: poses are given in the RGB optical frame itself",
        )
    elif distance > _FARTHEST_M:
        yield _implausible(
            Level.WARNING,
            f"{modality} translation: {distance:g} m from the RGB camera",
            "metres, not millimetres",
        )
    if abs(camera.time_offset_ns) > _LONGEST_OFFSET_NS:
        yield _implausible(
            Level.WARNING,
            f"{modality} time_offset_ms: {camera.time_offset_ns / 1e6:g}",
            "milliseconds between stamps of one instant, mostly below 100",
        )


def _homography(rig: Rig) -> Iterator[Finding]:
    if rig.thermal_from_rgb is None:
        return
    rgb, thermal = rig.cameras[Modality.RGB], rig.cameras[Modality.THERMAL]
    matrix = np.array(rig.thermal_from_rgb).reshape(3, 3)
    # In units of the pictures, as pixels make any homography look badly conditioned.
    to_unit = np.diag([1 / thermal.width, 1 / thermal.height, 1.0])
    scaled = to_unit @ matrix @ np.diag([rgb.width, rgb.height, 1.0])
    if not np.linalg.norm(scaled) or 1 / np.linalg.cond(scaled) < _SINGULAR:
        yield _implausible(
            Level.ERROR,
            "thermal_from_rgb is singular: it brings the whole picture onto a line or a point",
            "an invertible homography, row by row",
        )
        return
    corners = scaled @ np.array([[0, 1, 1, 0], [0, 0, 1, 1], [1, 1, 1, 1]], float)
    if np.all(corners[2] < 0):
        yield _implausible(
            Level.ERROR,
            "thermal_from_rgb has the sign that puts the whole picture behind the camera",
            "the same nine numbers times -1, or divided by the last of them",
        )
        return
    if not np.all(corners[2] > 0):
        yield _implausible(
            Level.ERROR,
            "thermal_from_rgb has the horizon inside the RGB picture",
            "one that keeps the whole picture in front of the camera",
        )
        return
    x, y = corners[:2] / corners[2]
    if x.max() <= 0 or y.max() <= 0 or x.min() >= 1 or y.min() >= 1:
        yield _implausible(
            Level.ERROR,
            "thermal_from_rgb puts no part of the RGB picture onto the thermal one",
            "RGB pixels to thermal pixels; perhaps it is the inverse",
        )


def _fit(setup: Setup, rig: Rig) -> Iterator[Finding]:
    artifact = setup.opened_artifact
    if artifact is None or isinstance(artifact, MmfusionError):
        why = "no artifact given" if artifact is None else "the artifact does not open"
        yield skipped("rig.fit", why)
        return
    misfits = [
        f"{modality} {camera.width}x{camera.height} instead of {width}x{height}"
        for modality, camera in rig.cameras.items()
        if modality in artifact.encodings
        for height, width in [artifact.image_size(modality)]
        if (camera.height, camera.width) != (height, width)
    ]
    if misfits:
        yield Finding(
            "rig.fit",
            Level.ERROR,
            f"the rig is not for the sizes of {artifact.name}: {', '.join(misfits)}",
            "cameras of the artifact's sizes: images of another size are left out",
            "set the drivers to that size and give K for it, or export an artifact for these "
            "cameras (docs/export.md)",
        )
        return
    try:
        if artifact.rig_packing:
            rig.pack(artifact.rig_packing)
    except MmfusionError as error:
        yield Finding("rig.fit", Level.ERROR, str(error), "all that the artifact asks for", _ADVICE)
        return
    yield ok("rig.fit", f"fits {artifact.name}")
