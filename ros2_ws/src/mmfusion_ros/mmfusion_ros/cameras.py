"""What an active node hears of its cameras: images for the worker, and camera_info."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from mmfusion_ros.core.artifact import Artifact
from mmfusion_ros.core.camera_check import disagreement
from mmfusion_ros.core.frames import Frame, FrameSet, Modality
from mmfusion_ros.core.fusion_worker import FusionWorker
from mmfusion_ros.core.rig import Rig
from mmfusion_ros.core.synchronizer_config import SynchronizerConfig
from mmfusion_ros.core.transports import RAW
from mmfusion_ros.inputs import Input, InputStatus
from mmfusion_ros.messages import frame_from_message
from mmfusion_ros.parameters import Settings
from mmfusion_ros.stock_filters import StockSynchronizer


class Cameras:
    """The subscriptions to all cameras that an artifact takes.

    Attributes:
        modalities: the cameras.
        disagreements: how the camera_info of each differs from the rig file; empty if it does
            not, None where none came.
        stock_sets: how many sets a synchroniser of message_filters gave; None without one.
    """

    def __init__(
        self,
        node: Node,
        settings: Settings,
        *,
        artifact: Artifact,
        rig: Rig,
        worker: FusionWorker,
        take_rgb_info: Callable[[CameraInfo], None],
    ) -> None:
        """Subscribe.

        Args:
            node: that subscribes.
            settings: topics, transports, who synchronises.
            artifact: names the cameras.
            rig: to compare camera_info with.
            worker: gets the images, or sets of them.
            take_rgb_info: called with each camera_info of the RGB camera.

        Raises:
            MmfusionError: if a parameter asks for what is not there.
        """
        self._node = node
        self._rig = rig
        self._worker = worker
        self._take_rgb_info = take_rgb_info
        self.modalities = tuple(m for m in Modality if m.value in artifact.inputs)
        self.disagreements: dict[Modality, str | None] = dict.fromkeys(self.modalities)
        self.stock_sets: int | None = None
        self._unstamped: set[Modality] = set()
        self._stock: StockSynchronizer | None = None
        if settings.synchronizer != "mmfusion":
            self._stock = StockSynchronizer(
                settings.synchronizer,
                settings.synchronizer_config(rig),
                self.modalities,
                self._take_set,
            )
            self.stock_sets = 0
        self._inputs: list[Input] = []
        try:
            for modality in self.modalities:
                self._subscribe(modality, settings)
        except Exception:
            self.close()
            raise

    @property
    def statuses(self) -> tuple[InputStatus, ...]:
        """What is known of the publishers of each topic."""
        return tuple(entry.status for entry in self._inputs)

    def poll(self) -> None:
        """Follow the publishers; call it now and then."""
        for entry in self._inputs:
            entry.poll()

    def begin_anew(self) -> None:
        """Forget what waits: time was set back."""
        self._worker.forget()
        if self._stock is not None:
            self._stock.begin_anew()

    def reconfigure(self, config: SynchronizerConfig) -> None:
        """Match images by other settings from now on."""
        if self._stock is None:
            self._worker.reconfigure(config)
        else:
            self._stock.reconfigure(config)

    def close(self) -> None:
        """Unsubscribe."""
        for entry in self._inputs:
            entry.close()

    def _subscribe(self, modality: Modality, settings: Settings) -> None:
        def hear(message_type: type, topic: str, take: Callable[[Modality, Any], None]) -> None:
            self._inputs.append(
                Input(
                    self._node,
                    message_type,
                    topic,
                    settings.input_reliability,
                    functools.partial(take, modality),
                    optional=message_type is CameraInfo,
                )
            )

        raw = settings.transport(modality) == RAW
        hear(Image if raw else CompressedImage, settings.topic(modality), self._take_image)
        hear(CameraInfo, settings.info_topic(modality), self._take_info)

    def _take_image(self, modality: Modality, message: Image | CompressedImage) -> None:
        frame = self._stamped(frame_from_message(message, modality))
        if self._stock is None:
            self._worker.add(frame)
        else:
            self._stock.add(frame)

    def _take_set(self, frames: FrameSet) -> None:
        self.stock_sets = (self.stock_sets or 0) + 1
        self._worker.add_set(frames)

    def _stamped(self, frame: Frame) -> Frame:
        """Give a frame without a stamp the time it arrived at, as replay does."""
        if frame.stamp_ns:
            return frame
        if frame.modality not in self._unstamped:
            self._unstamped.add(frame.modality)
            self._node.get_logger().warning(
                f"{frame.modality} images carry no stamp and get the time they arrive at; let the "
                "camera driver stamp them"
            )
        return dataclasses.replace(frame, stamp_ns=self._node.get_clock().now().nanoseconds)

    def _take_info(self, modality: Modality, message: CameraInfo) -> None:
        told = disagreement(message, self._rig.cameras[modality])
        if told and told != self.disagreements[modality]:
            self._node.get_logger().warning(f"{modality} camera: {told}")
        self.disagreements[modality] = told
        if modality is Modality.RGB:
            self._take_rgb_info(message)
