"""Pinhole cameras, the rig that holds them, and how pixels of one are seen by another.

Optical frames follow REP 103: x right, y down, z forward. Pixel centres lie on whole numbers, as
in OpenCV. There is no lens distortion.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mmfusion.errors import DataError
from mmfusion.synthetic.geometry import Array

OPTICAL_FROM_BODY = np.array(
    [[0.0, -1.0, 0.0, 0.0], [0.0, 0.0, -1.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
)
"""A body frame (x forward, y left, z up) in its optical frame."""


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera at a place.

    Attributes:
        width: pixels.
        height: pixels.
        matrix: ``(3, 3)`` intrinsics K, pixels.
        pose: ``(4, 4)`` optical frame in the parent frame (the rig, or the world once placed).
    """

    width: int
    height: int
    matrix: Array
    pose: Array

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise DataError(f"a camera of {self.width}x{self.height} pixels has no picture")
        if self.matrix.shape != (3, 3) or self.pose.shape != (4, 4):
            raise DataError(
                f"camera matrix {self.matrix.shape} and pose {self.pose.shape}, "
                "expected (3, 3) and (4, 4)"
            )

    @property
    def position(self) -> Array:
        """``(3,)`` optical centre in the parent frame."""
        return np.asarray(self.pose[:3, 3])

    @property
    def pixel_angle(self) -> float:
        """Angle one pixel covers in the middle of the picture, radians."""
        return float(2.0 / (self.matrix[0, 0] + self.matrix[1, 1]))

    def placed(self, world_from_rig: Array) -> Camera:
        """The same camera with its pose in the world."""
        return replace(self, pose=world_from_rig @ self.pose)

    def pixels(self) -> Array:
        """All pixel centres ``(height * width, 2)`` as (u, v), row by row."""
        v, u = np.mgrid[: self.height, : self.width]
        return np.stack([u.ravel(), v.ravel()], axis=1).astype(np.float64)

    def rays(self, pixels: Array) -> Array:
        """Unit directions ``(n, 3)`` in the parent frame through pixels ``(n, 2)``."""
        x = (pixels[:, 0] - self.matrix[0, 2]) / self.matrix[0, 0]
        y = (pixels[:, 1] - self.matrix[1, 2]) / self.matrix[1, 1]
        directions = np.stack([x, y, np.ones_like(x)], axis=1)
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        return np.asarray(directions @ self.pose[:3, :3].T)

    def to_optical(self, points: Array) -> Array:
        """Points ``(n, 3)`` of the parent frame in the optical frame."""
        return np.asarray((points - self.position) @ self.pose[:3, :3])

    def project(self, points: Array) -> tuple[Array, Array]:
        """Pixels ``(n, 2)`` and depths z ``(n,)`` of points ``(n, 3)`` of the parent frame.

        Pixels are NaN for points that are not in front of the camera.
        """
        x, y, z = self.to_optical(points).T
        with np.errstate(divide="ignore", invalid="ignore"):
            u = self.matrix[0, 0] * x / z + self.matrix[0, 2]
            v = self.matrix[1, 1] * y / z + self.matrix[1, 2]
        pixels = np.stack([u, v], axis=1)
        pixels[z <= 0.0] = np.nan
        return pixels, z

    def back_project(self, pixels: Array, depths: Array) -> Array:
        """Points ``(n, 3)`` of the parent frame at pixels ``(n, 2)`` and depths z ``(n,)``."""
        x = (pixels[:, 0] - self.matrix[0, 2]) / self.matrix[0, 0] * depths
        y = (pixels[:, 1] - self.matrix[1, 2]) / self.matrix[1, 1] * depths
        points = np.stack([x, y, depths], axis=1)
        return np.asarray(points @ self.pose[:3, :3].T + self.position)


def correspondence(
    depth: NDArray[np.floating], source: Camera, target: Camera
) -> tuple[Array, Array]:
    """Where each pixel of one camera lies in another, through its depth.

    Args:
        depth: ``(height, width)`` depth z of ``source`` in metres; not finite or <= 0 is unknown.
        source: the camera the depth belongs to.
        target: the other camera, posed in the same parent frame.

    Returns:
        ``(height, width, 2)`` pixels (u, v) of ``target``, NaN where unknown or behind it, and
        ``(height, width)`` depths z in ``target``. Occlusion is not judged here.
    """
    if depth.shape != (source.height, source.width):
        raise DataError(
            f"depth has shape {depth.shape}, its camera {(source.height, source.width)}"
        )
    flat = np.asarray(depth, np.float64).ravel()
    known = np.isfinite(flat) & (flat > 0.0)
    points = source.back_project(source.pixels(), np.where(known, flat, np.nan))
    pixels, z = target.project(points)
    return pixels.reshape(*depth.shape, 2), z.reshape(depth.shape)


def intrinsics(width: int, height: int, horizontal_fov: float) -> Array:
    """K of a centred pinhole with square pixels; the field of view in degrees."""
    focal = width / 2.0 / np.tan(np.radians(horizontal_fov) / 2.0)
    center = (width - 1) / 2.0, (height - 1) / 2.0
    return np.array([[focal, 0.0, center[0]], [0.0, focal, center[1]], [0.0, 0.0, 1.0]])


def looking(position: tuple[float, float, float], target: tuple[float, float, float]) -> Array:
    """``(4, 4)`` pose of a body frame at ``position`` whose x axis points at ``target``."""
    forward = np.asarray(target, np.float64) - np.asarray(position, np.float64)
    forward /= np.linalg.norm(forward)
    left = np.cross([0.0, 0.0, 1.0], forward)
    left /= np.linalg.norm(left)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([forward, left, np.cross(forward, left)], axis=1)
    pose[:3, 3] = position
    return pose


@dataclass(frozen=True, eq=False)
class Rig:
    """Three cameras on one body (x forward, y left, z up); camera poses are in the body frame."""

    rgb: Camera
    depth: Camera
    thermal: Camera

    def placed(self, world_from_body: Array) -> Rig:
        """The rig with all poses in the world."""
        return Rig(
            self.rgb.placed(world_from_body),
            self.depth.placed(world_from_body),
            self.thermal.placed(world_from_body),
        )


def _mounted(left: float, up: float, yaw: float = 0.0) -> Array:
    """Optical frame of a camera on the body, shifted in metres and turned left in radians."""
    c, s = np.cos(yaw), np.sin(yaw)
    body = np.array([[c, -s, 0, 0], [s, c, 0, left], [0, 0, 1, up], [0, 0, 0, 1]], np.float64)
    return np.asarray(body @ np.linalg.inv(OPTICAL_FROM_BODY))


def aligned_rig(horizontal_fov: float = 66.0) -> Rig:
    """All three cameras share centre and field of view; thermal has half the resolution.

    RGB and depth 640x480, thermal 320x240: scaling is all the registration there is.
    """
    color = Camera(640, 480, intrinsics(640, 480, horizontal_fov), _mounted(0.0, 0.0))
    thermal = Camera(320, 240, intrinsics(320, 240, horizontal_fov), _mounted(0.0, 0.0))
    return Rig(color, color, thermal)


def offset_rig(*, registered_depth: bool = False) -> Rig:
    """Three cameras some centimetres apart, as a robot carries them.

    RGB 640x480; depth 640x480, 5 cm to the right of it (or registered onto it); thermal 320x256,
    7 cm to the left, 3 cm higher, turned by half a degree.
    """
    color = Camera(640, 480, intrinsics(640, 480, 66.0), _mounted(0.0, 0.0))
    depth = Camera(640, 480, intrinsics(640, 480, 74.0), _mounted(-0.05, 0.0))
    thermal = Camera(
        320, 256, intrinsics(320, 256, 57.0), _mounted(0.07, 0.03, float(np.radians(0.5)))
    )
    return Rig(color, color if registered_depth else depth, thermal)
