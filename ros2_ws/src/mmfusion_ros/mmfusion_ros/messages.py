"""Between ROS messages and the core's frames and results."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from mmfusion_msgs.msg import FrameStatus, ModalityStatus
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from mmfusion_ros.core.artifact import Artifact
from mmfusion_ros.core.camera_info import CameraInfo as CoreCameraInfo
from mmfusion_ros.core.camera_info import camera_info_of
from mmfusion_ros.core.engines import Engine
from mmfusion_ros.core.frame_status import frame_state
from mmfusion_ros.core.frames import Frame, Modality
from mmfusion_ros.core.message_frames import frame_of
from mmfusion_ros.core.results import Results
from mmfusion_ros.core.rig import Camera
from mmfusion_ros.stock_images import converter


def stamp_ns(header: Header) -> int:
    """Stamp of a header in nanoseconds."""
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)


def set_stamp(header: Header, nanoseconds: int) -> None:
    """Give a header a stamp."""
    header.stamp.sec, header.stamp.nanosec = divmod(nanoseconds, 1_000_000_000)


def header_of(frame: Frame) -> Header:
    """The header of what is published for a frame: its stamp and frame id."""
    header = Header(frame_id=frame.frame_id)
    set_stamp(header, frame.stamp_ns)
    return header


def frame_from_message(message: Image | CompressedImage, modality: Modality) -> Frame:
    """A frame that refers to the message's pixels; see `frame_of`."""
    frame = frame_of(message, modality)
    convert = converter(message) if isinstance(message, Image) else None
    if convert is None:
        return frame
    return dataclasses.replace(frame, image=dataclasses.replace(frame.image, convert=convert))


def image_message(array: NDArray[Any], encoding: str, header: Header) -> Image:
    """An image message with a copy of the pixels.

    Args:
        array: (H, W) or (H, W, C), of the encoding's type, in any byte order.
        encoding: as in ``sensor_msgs/Image``.
        header: kept, not copied.
    """
    # In this machine's byte order; copies nothing that is in it already.
    pixels = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    message = Image(header=header, encoding=encoding)
    message.height, message.width = pixels.shape[:2]
    message.step = pixels.nbytes // max(1, pixels.shape[0])
    # The one fast way: assigning an ndarray or a list walks through the bytes one by one.
    message.data.frombytes(pixels.view(np.uint8).data)
    return message


def camera_info_message(
    received: CameraInfo | None, camera: Camera, size: tuple[int, int], header: Header
) -> CameraInfo:
    """The camera_info that belongs to the fused image.

    Args:
        received: the camera's own, passed on if it is for images of this size.
        camera: from the rig, used otherwise.
        size: (height, width) of the image.
        header: of the image.
    """
    if received is not None and (received.height, received.width) == size:
        info = copy.copy(received)
        info.header = header
        return info
    info = info_message(camera_info_of(camera))
    info.header = header
    return info


def info_message(camera: CoreCameraInfo) -> CameraInfo:
    """What a camera says of itself as a message, without header, binning or region."""
    return CameraInfo(
        height=camera.height,
        width=camera.width,
        distortion_model=camera.distortion_model,
        **{name: list(getattr(camera, name)) for name in "dkrp"},
    )


def status_message(
    results: Results,
    artifact: Artifact,
    engine: Engine,
    *,
    stages: Mapping[str, float],
    latency_ns: int,
    sets_dropped: int,
) -> FrameStatus:
    """What happened to one frame set.

    Args:
        results: of the pipeline.
        artifact: names the cameras that could have taken part and the quality to expect.
        engine: that ran it.
        stages: seconds by stage, in order.
        latency_ns: node's clock at publishing minus the stamp.
        sets_dropped: since activation.
    """
    state = frame_state(
        results,
        artifact,
        engine,
        stages=stages,
        latency_ns=latency_ns,
        sets_dropped=sets_dropped,
    )
    modalities = [ModalityStatus(**vars(modality)) for modality in state.modalities]
    header = header_of(results.frames.rgb)
    return FrameStatus(header=header, **(vars(state) | {"modalities": modalities}))
