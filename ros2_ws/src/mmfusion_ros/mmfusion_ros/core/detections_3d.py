"""Where detected objects are: from boxes and depths to places in the RGB optical frame."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mmfusion_ros.core.detections import Detections
from mmfusion_ros.core.rig import Camera

# Models of camera_info whose coefficients are those of OpenCV's undistortPoints.
_DISTORTION_MODELS = {"plumb_bob", "rational_polynomial"}
# How many coefficients OpenCV takes; any other number is an error of its own there.
_DISTORTION_LENGTHS = {0, 4, 5, 8, 12, 14}
# The five rounds that OpenCV takes by itself leave pixels of error at the edges of common lenses.
_UNTIL_UNDONE = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 40, 1e-9)


@dataclass(frozen=True)
class Intrinsics:
    """How a camera maps directions to pixels; checked at construction.

    Attributes:
        matrix: K, row-major, pixels.
        distortion: as OpenCV takes it (k1 k2 p1 p2 k3 ...), 4, 5, 8, 12 or 14 numbers; empty
            for none.
    """

    matrix: tuple[float, ...]
    distortion: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.matrix) != 9 or len(self.distortion) not in _DISTORTION_LENGTHS:
            raise ValueError(
                f"{len(self.matrix)} numbers of a camera matrix and {len(self.distortion)} of "
                f"distortion; expected 9, and one of {sorted(_DISTORTION_LENGTHS)}"
            )
        if not all(map(math.isfinite, (*self.matrix, *self.distortion))):
            raise ValueError("camera matrix and distortion must be finite")

    @classmethod
    def of(cls, camera: Camera) -> Intrinsics:
        """Those of a camera of the rig."""
        return cls(camera.camera_matrix, camera.distortion)

    @classmethod
    def told_by(cls, info: Any, size: tuple[int, int]) -> Intrinsics | None:
        """Those of a ``sensor_msgs/CameraInfo``, of whichever library.

        Args:
            info: the message.
            size: (height, width) of the picture.

        Returns:
            None if the camera is not calibrated (K of zeros), calibrated for pictures of
            another size or with a distortion model that is not known here, or if what it says
            are no intrinsics: a number that is not finite, or distortion of an impossible length.
        """
        matrix, distortion = tuple(map(float, info.k)), tuple(map(float, info.d))
        if (info.height, info.width) != size or not (matrix[0] > 0 and matrix[4] > 0):
            return None
        if any(distortion) and info.distortion_model not in _DISTORTION_MODELS:
            return None
        try:
            return cls(matrix, distortion)
        except ValueError:
            return None

    def rays(self, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        """In which directions the camera looks.

        Args:
            pixels: (..., 2), x and y; whole numbers are the centres of pixels.

        Returns:
            (..., 2), x and y at a depth of one metre. Where distortion cannot be undone, these
            are of no meaning: `pixels` of them gives something else than what was asked for.
        """
        matrix = np.reshape(self.matrix, (3, 3)).astype(np.float64)
        if not any(self.distortion) or not pixels.size:
            focal, principal = matrix[[0, 1], [0, 1]], matrix[:2, 2]
            plain: NDArray[np.float64] = (pixels - principal) / focal
            return plain
        bent = np.ascontiguousarray(pixels, np.float64).reshape(-1, 1, 2)
        # OpenCV 4 and 5 both have it, unlike an undistortPoints that takes when to stop.
        straight = cv2.undistortImagePoints(
            bent, matrix, np.array(self.distortion), None, _UNTIL_UNDONE
        )
        points = np.column_stack([np.reshape(straight, (-1, 2)), np.ones(len(bent))])
        rays: NDArray[np.float64] = (points @ np.linalg.inv(matrix).T)[:, :2]
        return rays.reshape(pixels.shape)

    def pixels(self, rays: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where the camera sees directions (n, 2), as pixels (n, 2); the inverse of `rays`."""
        points = np.column_stack([rays, np.ones(len(rays))])
        still = np.zeros(3)
        matrix = np.reshape(self.matrix, (3, 3)).astype(np.float64)
        seen, _ = cv2.projectPoints(points, still, still, matrix, np.array(self.distortion))
        return np.asarray(seen, np.float64).reshape(-1, 2)


@dataclass(frozen=True, eq=False)
class Places:
    """The detections that have a depth, as upright faces seen by the camera.

    Attributes:
        index: int (n,), of each among the detections.
        centres: float64 (n, 3), metres in the RGB optical frame (x right, y down, z forward).
        sizes: float64 (n, 3), metres: how wide and how high the box is at that depth. How far
            the object reaches along z is not measured: 0.
    """

    index: NDArray[np.intp]
    centres: NDArray[np.float64]
    sizes: NDArray[np.float64]


def place(detections: Detections, intrinsics: Intrinsics) -> Places:
    """Place detections in space; those without a depth are left out.

    The centre lies on the ray through the centre of the box.
    """
    depths = detections.depths
    index = np.flatnonzero(np.isfinite(depths) & (depths > 0))
    z = depths[index].astype(np.float64)
    left, top, right, bottom = detections.boxes[index].astype(np.float64).T
    x, y = (left + right) / 2, (top + bottom) / 2
    # The centre, and the ends of the cross through it, along which the box is measured.
    pixels = np.array([(x, y), (left, y), (right, y), (x, top), (x, bottom)])
    # Boxes count from the corner of the first pixel, camera matrices from its centre.
    rays = intrinsics.rays(pixels.transpose(0, 2, 1) - 0.5) * z[:, None]
    centre, from_x, to_x, from_y, to_y = rays
    return Places(
        index=index,
        centres=np.column_stack([centre, z]),
        sizes=np.column_stack([(to_x - from_x)[:, 0], (to_y - from_y)[:, 1], np.zeros_like(z)]),
    )
