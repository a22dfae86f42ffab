"""What a camera says of itself, independent of the library that read or writes the message."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from mmfusion_ros.core.rig import Camera

CAMERA_INFO: Final = "sensor_msgs/msg/CameraInfo"
_REGION = "sensor_msgs/msg/RegionOfInterest"
PLUMB_BOB: Final = "plumb_bob"
_UNSAID = (0.0,) * 9
_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class CameraInfo:
    """A ``sensor_msgs/CameraInfo`` but for its header; the names are those of ROS 2.

    Attributes:
        roi: x_offset, y_offset, height, width, do_rectify.
    """

    height: int
    width: int
    distortion_model: str
    d: tuple[float, ...]
    k: tuple[float, ...]
    r: tuple[float, ...]
    p: tuple[float, ...]
    binning_x: int = 0
    binning_y: int = 0
    roi: tuple[int, int, int, int, bool] = (0, 0, 0, 0, False)

    @classmethod
    def told_by(cls, message: Any) -> CameraInfo:
        """Out of a message of ROS 2, or of ROS 1, which has the letters as capitals."""
        matrices = {
            name: tuple(float(value) for value in _either(message, name)) for name in "dkrp"
        }
        region = message.roi
        return cls(
            height=int(message.height),
            width=int(message.width),
            distortion_model=str(message.distortion_model),
            **matrices,
            binning_x=int(message.binning_x),
            binning_y=int(message.binning_y),
            roi=(
                int(region.x_offset),
                int(region.y_offset),
                int(region.height),
                int(region.width),
                bool(region.do_rectify),
            ),
        )

    def scaled(self, width: int, height: int) -> CameraInfo:
        """The camera for pictures of another size, which then are the whole ones."""
        if (width, height) == (self.width, self.height):
            return self
        x, y = width / self.width, height / self.height
        k, p = (_scaled_matrix(matrix, x, y) for matrix in (self.k, self.p))
        whole = (0, 0, 0, 0, False)
        return dataclasses.replace(
            self, width=width, height=height, k=k, p=p, binning_x=0, binning_y=0, roi=whole
        )

    @property
    def beyond_plain(self) -> tuple[str, ...]:
        """What it says that `plain_camera_info` of its size, K, D and distortion model does not."""
        said = {
            "the rectification (R, P)": (self.r not in {_UNSAID, _IDENTITY})
            or (any(self.p) and self.p != _projection(self.k)),
            "the region of interest": self.roi[2:4] not in {(0, 0), (self.height, self.width)},
        }
        return tuple(what for what, is_said in said.items() if is_said)

    def message(self, types: Mapping[str, Any], header: Any) -> Any:
        """The message.

        Args:
            types: message classes by full name.
            header: of the picture it belongs to.
        """
        names = ("x_offset", "y_offset", "height", "width", "do_rectify")
        return types[CAMERA_INFO](
            header=header,
            height=self.height,
            width=self.width,
            distortion_model=self.distortion_model,
            **{name: np.array(getattr(self, name), np.float64) for name in "dkrp"},
            binning_x=self.binning_x,
            binning_y=self.binning_y,
            roi=types[_REGION](**dict(zip(names, self.roi, strict=True))),
        )


def plain_camera_info(
    width: int,
    height: int,
    k: tuple[float, ...],
    d: tuple[float, ...],
    distortion_model: str = PLUMB_BOB,
) -> CameraInfo:
    """That of a camera that is not rectified, without binning.

    Args:
        width: pixels.
        height: pixels.
        k: camera matrix, row-major.
        d: coefficients of the distortion model; empty for none.
        distortion_model: of ``sensor_msgs/CameraInfo``.
    """
    return CameraInfo(
        height=height,
        width=width,
        distortion_model=distortion_model,
        d=d or ((0.0,) * 5 if distortion_model == PLUMB_BOB else ()),
        k=k,
        r=_IDENTITY,
        p=_projection(k),
    )


def _projection(k: tuple[float, ...]) -> tuple[float, ...]:
    """That of a camera that is not rectified."""
    return (*k[0:3], 0.0, *k[3:6], 0.0, *k[6:9], 0.0)


def camera_info_of(camera: Camera) -> CameraInfo:
    """That of a camera of a rig."""
    return plain_camera_info(camera.width, camera.height, camera.camera_matrix, camera.distortion)


def _scaled_matrix(matrix: tuple[float, ...], x: float, y: float) -> tuple[float, ...]:
    """A matrix of three rows; one of zeros, which says nothing, stays so."""
    if not matrix[0]:
        return matrix
    width = len(matrix) // 3
    scaled = [*matrix]
    for row, factor in enumerate((x, y)):
        start = row * width
        scaled[start : start + width] = [value * factor for value in matrix[start : start + width]]
        # Pixel centres are whole numbers, so the corner of the picture lies at -0.5.
        scaled[start + 2] = (matrix[start + 2] + 0.5) * factor - 0.5
    return tuple(scaled)


def _either(message: Any, name: str) -> Any:
    return getattr(message, name) if hasattr(message, name) else getattr(message, name.upper())
