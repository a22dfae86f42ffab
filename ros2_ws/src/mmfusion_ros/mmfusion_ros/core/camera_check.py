"""Does a camera say of itself what the rig file says of it?"""

from __future__ import annotations

from typing import Any

import numpy as np

from mmfusion_ros.core.detections_3d import Intrinsics
from mmfusion_ros.core.rig import Camera

# Below, calibrating the same camera twice makes as much of a difference.
LARGEST_SHIFT_PX = 2.0
_GRID = 9  # points a side, from edge to edge
_ROUND_TRIP_PX = 0.1  # well above what is left where distortion was undone


def disagreement(info: Any, camera: Camera) -> str:
    """What a ``sensor_msgs/CameraInfo`` and the rig file say differently of a camera.

    Args:
        info: the message, of whichever library.
        camera: of the rig.

    Returns:
        One sentence; empty if they agree, or if the camera says nothing that can be compared (it
        is not calibrated, has a distortion model that is not known here, or sends less than the
        whole picture that it was calibrated for: binned, or a region of interest).
    """
    if _sends_less(info):
        return ""
    size = (int(info.height), int(info.width))
    if 0 not in size and size != (camera.height, camera.width):
        return (
            f"camera_info is for {size[1]}x{size[0]} pixels, the rig file for "
            f"{camera.width}x{camera.height}; use the rig file of this camera and mode"
        )
    told = Intrinsics.told_by(info, size)
    if told is None:
        return ""
    shift = largest_shift(told, Intrinsics.of(camera), size)
    if shift <= LARGEST_SHIFT_PX:
        return ""
    focal = f"{told.matrix[0]:.1f} against {camera.camera_matrix[0]:.1f} pixels of focal length"
    return (
        f"camera_info and the rig file put what is seen up to {shift:.1f} pixels apart ({focal}); "
        "use the rig file of this camera, or calibrate it again"
    )


def _sends_less(info: Any) -> bool:
    region = info.roi
    is_part = bool(region.width) and (region.width, region.height) != (info.width, info.height)
    return is_part or info.binning_x > 1 or info.binning_y > 1


def largest_shift(a: Intrinsics, b: Intrinsics, size: tuple[int, int]) -> float:
    """How far apart two cameras of one size picture the same directions, at most.

    Args:
        a: one camera.
        b: the other.
        size: (height, width) of their pictures.

    Returns:
        Pixels, over a grid that covers the picture of the first, but for where its distortion
        cannot be undone: nothing can be said there. 0 if that is everywhere.
    """
    height, width = size
    x, y = np.meshgrid(np.linspace(0, width - 1, _GRID), np.linspace(0, height - 1, _GRID))
    pixels = np.column_stack([x.ravel(), y.ravel()])
    rays = a.rays(pixels)
    # A lens that turns back towards the edge gives a direction there, but not the one asked for.
    undone = np.linalg.norm(a.pixels(rays) - pixels, axis=1) <= _ROUND_TRIP_PX
    shifts = np.linalg.norm(b.pixels(rays[undone]) - pixels[undone], axis=1)
    return float(np.max(shifts, initial=0.0))
