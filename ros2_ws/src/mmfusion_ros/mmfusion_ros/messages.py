"""Between ROS messages and the core's frames and results."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from mmfusion_msgs.msg import FrameStatus, ModalityStatus
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from mmfusion_ros.core.artifact import Artifact
from mmfusion_ros.core.engines import Engine
from mmfusion_ros.core.frames import Absence, Frame, Modality, SourceImage
from mmfusion_ros.core.images import fingerprint
from mmfusion_ros.core.results import Results
from mmfusion_ros.core.rig import Camera

# A stamp further from the node's clock than this is of another clock (a bag, a driver's uptime).
_CLOCKS_DIFFER_S = 10.0


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


def frame_from_message(message: Image, modality: Modality) -> Frame:
    """A frame that refers to the message's pixels.

    Depth and thermal get a fingerprint, so that a frozen camera is noticed; it costs more than
    all the rest here, and an RGB frame is used whatever it shows.
    """
    image = SourceImage(
        data=message.data,
        height=message.height,
        width=message.width,
        encoding=message.encoding,
        step=message.step,
        is_bigendian=bool(message.is_bigendian),
    )
    return Frame(
        modality=modality,
        stamp_ns=stamp_ns(message.header),
        frame_id=message.header.frame_id,
        image=image,
        fingerprint=None if modality is Modality.RGB else fingerprint(image),
    )


def image_message(array: NDArray[Any], encoding: str, header: Header) -> Image:
    """An image message with a copy of the pixels.

    Args:
        array: (H, W) or (H, W, C), of the encoding's type, in this machine's byte order.
        encoding: as in ``sensor_msgs/Image``.
        header: kept, not copied.
    """
    pixels = np.ascontiguousarray(array)
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
    info = camera_info_of(camera)
    info.header = header
    return info


def camera_info_of(camera: Camera) -> CameraInfo:
    """A camera of the rig as a message: not rectified, no binning."""
    k = camera.camera_matrix
    info = CameraInfo(height=camera.height, width=camera.width, distortion_model="plumb_bob")
    info.d = list(camera.distortion) or [0.0] * 5
    info.k = list(k)
    info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    info.p = [*k[0:3], 0.0, *k[3:6], 0.0, *k[6:9], 0.0]
    return info


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
    message = FrameStatus(
        header=header_of(results.frames.rgb),
        artifact=artifact.name,
        backend=engine.backend,
        precision=engine.precision,
        sets_dropped=sets_dropped,
    )
    message.modalities = list(_modality_statuses(results, artifact))
    message.stage_names = list(stages)
    message.stage_durations = [float(seconds) for seconds in stages.values()]
    latency_s = latency_ns * 1e-9
    message.latency = latency_s if abs(latency_s) < _CLOCKS_DIFFER_S else math.nan
    quality = artifact.expected_quality(results.present)
    message.quality_names = list(quality)
    message.quality_values = [float(value) for value in quality.values()]
    return message


def _modality_statuses(results: Results, artifact: Artifact) -> Iterable[ModalityStatus]:
    for modality in Modality:
        if modality.value not in artifact.inputs:
            continue
        used = modality in results.present
        if modality is Modality.RGB:
            age_ns: int | None = 0
            reason = "" if used else str(Absence.INVALID)
        else:
            companion = results.frames.companion(modality)
            age_ns = companion.age_ns
            reason = "" if companion.absence is None else str(companion.absence)
        age = math.nan if age_ns is None else age_ns * 1e-9
        yield ModalityStatus(name=str(modality), used=used, reason=reason, age=age)
