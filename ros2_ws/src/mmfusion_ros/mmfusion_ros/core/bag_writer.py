"""Writes what a replay gave as an MCAP bag that Foxglove, RViz and ``ros2 bag`` open.

The bag depends on nothing but what is written into it: no clock is read, so the same results
give the same bytes.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from rosbags.interfaces import Connection
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys.store import Typestore

from mmfusion_ros.core.artifact import Artifact
from mmfusion_ros.core.camera_info import CAMERA_INFO, CameraInfo
from mmfusion_ros.core.detection_records import (
    DETECTIONS_2D,
    DETECTIONS_3D,
    detections_2d,
    detections_3d,
)
from mmfusion_ros.core.detections import Detections
from mmfusion_ros.core.detections_3d import Intrinsics, place
from mmfusion_ros.core.engines import Engine
from mmfusion_ros.core.frame_status import frame_state
from mmfusion_ros.core.frames import Frame, Modality
from mmfusion_ros.core.marker_records import MARKERS, markers
from mmfusion_ros.core.overlay import draw_overlay
from mmfusion_ros.core.results import Results

if TYPE_CHECKING:
    from typing_extensions import Self

# Of rosbag2's metadata; 9 is for ROS 2 distributions from Kilted on.
VERSION: Final = 8
IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
STATUS = "mmfusion_msgs/msg/FrameStatus"
_MODALITY_STATUS = "mmfusion_msgs/msg/ModalityStatus"


@dataclass(frozen=True)
class ResultTopics:
    """Where in the bag the results go: what the node calls them, in no node's namespace.

    In the order of `mmfusion_ros.topics.PER_FRAME`.
    """

    fused: str
    fused_info: str
    registered_thermal: str
    saliency: str
    detections: str
    detections_3d: str
    markers: str
    overlay: str
    status: str
    rgb: str = "/rgb/image"


def types_written(artifact: Artifact) -> tuple[str, ...]:
    """The message types that a typestore must know besides the standard ones."""
    detections = (DETECTIONS_2D, DETECTIONS_3D, MARKERS) if "boxes" in artifact.outputs else ()
    return (STATUS, *detections)


def complete(writer: Writer) -> None:
    """Write the index of a bag and close it, if it is open.

    Raises:
        OSError: if the disk does not take it; what was written before can be read.
    """
    try:
        if writer.storage is not None:
            writer.close()
    except OSError:
        abandon(writer)
        raise


def abandon(writer: Writer) -> None:
    """Close a bag without index, as nothing more can be written; readers make do without one."""
    storage, writer.storage = writer.storage, None
    if storage is not None:
        with suppress(OSError):  # the same one again, for what was still in memory
            storage.abort()


class ResultWriter:
    """An open bag for results; a context manager, closed cleanly also after an error."""

    def __init__(
        self,
        folder: Path,
        typestore: Typestore,
        artifact: Artifact,
        engine: Engine,
        topics: ResultTopics,
        *,
        camera_info: CameraInfo | None = None,
        intrinsics: Intrinsics | None = None,
    ) -> None:
        """Create the bag.

        Args:
            folder: of the new bag; must not exist.
            typestore: knows `types_written`.
            artifact: what the results are made with.
            engine: what runs it.
            topics: names in the bag.
            camera_info: of the fused picture; None if not known: none is then written.
            intrinsics: of the RGB camera; None if not known: nothing is then placed in space.
        """
        self._store = typestore
        self._artifact = artifact
        self._engine = engine
        self._topics = topics
        self._camera_info = camera_info
        self._intrinsics = intrinsics
        self._writer = Writer(folder, version=VERSION, storage_plugin=StoragePlugin.MCAP)
        self._writer.open()
        self._connections: dict[str, Connection] = {}
        self._failed = False

    def write(self, results: Results, log_time_ns: int) -> None:
        """Write the messages of one frame set.

        They are those of the node: fused picture and its camera_info, registered thermal,
        saliency, overlay, detections (in space and as markers too, where depth and camera are
        known) and status, as far as the artifact gives them; the status without durations. The
        RGB picture is added as it was recorded.

        Without a usable RGB image there is no picture to write: the status says so.

        Args:
            results: of the set.
            log_time_ns: log time of its RGB frame.

        Raises:
            OSError: if the disk does not take them. Nothing is written from then on.
        """
        if self._failed:
            return
        try:
            self._write(results, log_time_ns)
        except OSError:
            self._failed = True
            raise

    def close(self) -> None:
        """Write the index; the bag is then complete, unless writing has failed."""
        (abandon if self._failed else complete)(self._writer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _write(self, results: Results, log_time_ns: int) -> None:
        header = self._header(results.frames.rgb)
        if Modality.RGB in results.present:
            self._put_pictures(header, results, log_time_ns)
            if results.detections is not None:
                self._put_detections(header, results.detections, log_time_ns)
        self._put(self._topics.status, STATUS, log_time_ns, self._status(header, results))

    def _put_pictures(self, header: Any, results: Results, log_time_ns: int) -> None:
        topics = self._topics
        message = self._picture(header, results.fused, "rgb8")
        self._put(topics.fused, IMAGE, log_time_ns, message)
        if self._camera_info is not None:
            info = self._camera_info.message(self._store.types, header)
            self._put(topics.fused_info, CAMERA_INFO, log_time_ns, info)
        self._put_source(topics.rgb, header, results.frames.rgb, log_time_ns)
        masks = {
            topics.registered_thermal: results.registered_thermal,
            topics.saliency: results.saliency,
        }
        for topic, mask in masks.items():
            if mask is not None:
                self._put(topic, IMAGE, log_time_ns, self._picture(header, mask, "mono8"))
        if results.saliency is not None or results.detections is not None:
            overlay = draw_overlay(
                results.fused, results.saliency, results.detections, self._artifact.classes
            )
            message = self._picture(header, overlay, "rgb8")
            self._put(topics.overlay, IMAGE, log_time_ns, message)

    def _put_detections(self, header: Any, detections: Detections, log_time_ns: int) -> None:
        types, names = self._store.types, self._artifact.classes
        message = detections_2d(types, header, detections, names)
        self._put(self._topics.detections, DETECTIONS_2D, log_time_ns, message)
        if self._intrinsics is None or "box_depth" not in self._artifact.outputs:
            return
        places = place(detections, self._intrinsics)
        message = detections_3d(types, header, detections, places, names)
        self._put(self._topics.detections_3d, DETECTIONS_3D, log_time_ns, message)
        message = markers(types, header, detections, places, names)
        self._put(self._topics.markers, MARKERS, log_time_ns, message)

    def _put(self, topic: str, msgtype: str, log_time_ns: int, message: Any) -> None:
        connection = self._connections.get(topic)
        if connection is None:
            connection = self._writer.add_connection(topic, msgtype, typestore=self._store)
            self._connections[topic] = connection
        self._writer.write(connection, log_time_ns, self._store.serialize_cdr(message, msgtype))

    def _put_source(self, topic: str, header: Any, frame: Frame, log_time_ns: int) -> None:
        """Write a camera's picture as it came, compressed or not."""
        image = frame.image
        data = np.frombuffer(image.data, np.uint8)
        if image.compressed:
            message = self._store.types[COMPRESSED_IMAGE](
                header=header, format=image.encoding, data=data
            )
            self._put(f"{topic}/compressed", COMPRESSED_IMAGE, log_time_ns, message)
            return
        message = self._store.types[IMAGE](
            header=header,
            height=image.height,
            width=image.width,
            encoding=image.encoding,
            is_bigendian=int(image.is_bigendian),
            step=image.step,
            data=data,
        )
        self._put(topic, IMAGE, log_time_ns, message)

    def _header(self, frame: Frame) -> Any:
        seconds, nanoseconds = divmod(frame.stamp_ns, 1_000_000_000)
        types = self._store.types
        stamp = types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds)
        return types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame.frame_id)

    def _picture(self, header: Any, pixels: NDArray[np.uint8], encoding: str) -> Any:
        height, width = pixels.shape[:2]
        return self._store.types[IMAGE](
            header=header,
            height=height,
            width=width,
            encoding=encoding,
            is_bigendian=0,
            step=pixels.nbytes // height,
            data=np.ascontiguousarray(pixels).reshape(-1),
        )

    def _status(self, header: Any, results: Results) -> Any:
        # Durations stay out: they differ from run to run.
        state = frame_state(
            results, self._artifact, self._engine, stages={}, latency_ns=None, sets_dropped=0
        )
        part = self._store.types[_MODALITY_STATUS]
        fields = vars(state) | {
            "modalities": [part(**vars(modality)) for modality in state.modalities],
            "stage_durations": np.array(state.stage_durations, np.float64),
            "quality_values": np.array(state.quality_values, np.float64),
        }
        return self._store.types[STATUS](header=header, **fields)
