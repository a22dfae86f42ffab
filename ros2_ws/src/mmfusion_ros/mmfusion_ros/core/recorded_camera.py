"""A camera as a recorded ``sensor_msgs/CameraInfo`` describes it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from mmfusion_ros.core.bag_reader import Bag, rgb_camera_info
from mmfusion_ros.core.frames import Modality


@dataclass(frozen=True)
class RecordedCamera:
    """What a camera said of itself, region of interest and binning left out.

    Attributes:
        width, height: pixels that the matrices are for.
        distortion_model: plumb_bob, rational_polynomial, equidistant, or empty.
        d: distortion coefficients, as many as the model has.
        k, r, p: camera (3 x 3), rectification (3 x 3) and projection (3 x 4) matrix, row-major;
            k of zeros for a camera that is not calibrated.
    """

    width: int
    height: int
    distortion_model: str
    d: tuple[float, ...]
    k: tuple[float, ...]
    r: tuple[float, ...]
    p: tuple[float, ...]

    @classmethod
    def of(cls, message: Any) -> RecordedCamera | None:
        """The camera of a message, whichever library read it; None if that says no size."""
        if message.width < 1 or message.height < 1:
            return None
        d, k, r, p = (
            # Fields have lower-case names in ROS 2, upper-case ones in ROS 1.
            tuple(map(float, getattr(message, name, getattr(message, name.upper(), ()))))
            for name in ("d", "k", "r", "p")
        )
        model = str(message.distortion_model)
        return cls(int(message.width), int(message.height), model, d, k, r, p)

    def scaled(self, width: int, height: int) -> RecordedCamera:
        """The camera for pictures of another size."""
        if (width, height) == (self.width, self.height):
            return self
        x, y = width / self.width, height / self.height
        # Pixel centres are whole numbers, so the corner of the picture lies at -0.5.
        k, p = (_scaled_matrix(matrix, x, y) for matrix in (self.k, self.p))
        return dataclasses.replace(self, width=width, height=height, k=k, p=p)


def _scaled_matrix(matrix: tuple[float, ...], x: float, y: float) -> tuple[float, ...]:
    """A matrix of three rows; one of zeros, which says nothing, stays so."""
    if not matrix[0]:
        return matrix
    width = len(matrix) // 3
    scaled = [*matrix]
    for row, factor in enumerate((x, y)):
        start = row * width
        scaled[start : start + width] = [value * factor for value in matrix[start : start + width]]
        scaled[start + 2] = (matrix[start + 2] + 0.5) * factor - 0.5
    return tuple(scaled)


def recorded_cameras(bag: Bag) -> dict[Modality, RecordedCamera]:
    """What a bag's cameras said of themselves first, as far as it was recorded."""
    cameras = {}
    for modality, topic in bag.topics.items():
        # It is found by the name of the images' topic, whichever camera they are from.
        message = rgb_camera_info(dataclasses.replace(bag, topics={Modality.RGB: topic}))
        camera = None if message is None else RecordedCamera.of(message)
        if camera is not None:
            cameras[modality] = camera
    return cameras
