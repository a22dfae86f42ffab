"""What the node publishes for each frame: built only when someone listens."""

from __future__ import annotations

import functools
import importlib
import time
from collections.abc import Callable
from typing import Any

from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo

from mmfusion_ros import topics
from mmfusion_ros.core.artifact import Artifact
from mmfusion_ros.core.detections import Detections
from mmfusion_ros.core.detections_3d import Intrinsics, Places, place
from mmfusion_ros.core.engines import Engine
from mmfusion_ros.core.frames import Modality
from mmfusion_ros.core.overlay import draw_overlay
from mmfusion_ros.core.results import Results
from mmfusion_ros.core.rig import Rig
from mmfusion_ros.detection_messages import (
    detections_2d_message,
    detections_3d_message,
    markers_message,
)
from mmfusion_ros.messages import camera_info_message, header_of, image_message, status_message
from mmfusion_ros.quality_of_service import publisher_qos

_QOS = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)


class Outputs:
    """The publishers of a configured node: of those topics that its artifact has outputs for.

    Making one raises `MmfusionError` if a qos_overrides parameter of a topic is wrong.

    Attributes:
        rgb_info: newest camera_info of the RGB camera; None as long as none came.
    """

    def __init__(self, node: LifecycleNode, artifact: Artifact, rig: Rig) -> None:
        self._node = node
        self._artifact = artifact
        self._rgb_camera = rig.cameras[Modality.RGB]
        self.rgb_info: CameraInfo | None = None
        self._failed: set[topics.Topic] = set()
        # First all that may be refused: a publisher that is there must be closed again.
        profiles = {
            topic: publisher_qos(node, node.resolve_topic_name(topic.name), _QOS)
            for topic in topics.PER_FRAME
            if topic.published_with(artifact.outputs)
        }
        self._publishers: dict[topics.Topic, LifecyclePublisher[Any]] = {
            topic: node.create_lifecycle_publisher(_message_type(topic), topic.name, qos)
            for topic, qos in profiles.items()
        }

    def publish(self, results: Results, engine: Engine, sets_dropped: int) -> None:
        """Publish what there is of a result, to whoever listens.

        Without a usable RGB image there is no picture to publish: the status says so. A message
        that cannot be built is left out, which is logged once for each topic: the others are sent
        all the same, the status above all.
        """
        started = time.perf_counter()
        if Modality.RGB in results.present:
            self._publish_images(results)
            if results.detections is not None:
                self._publish_detections(results, results.detections)
        self._send(
            topics.STATUS,
            lambda: status_message(
                results,
                self._artifact,
                engine,
                stages={**results.stages, "publish": time.perf_counter() - started},
                latency_ns=self._node.get_clock().now().nanoseconds - results.frames.stamp_ns,
                sets_dropped=sets_dropped,
            ),
        )

    def take_rgb_info(self, info: CameraInfo) -> None:
        """Take note of what the RGB camera says of itself."""
        self.rgb_info = info

    def close(self) -> None:
        """Destroy the publishers."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)

    def _send(self, topic: topics.Topic, build: Callable[[], Any]) -> None:
        """Publish what ``build`` gives, if the topic is there and somebody listens to it."""
        publisher = self._publishers.get(topic)
        if publisher is None or not publisher.get_subscription_count():
            return
        try:
            message = build()
        except Exception as error:  # noqa: BLE001 (one topic must not cost the others)
            self._note_failure(topic, error)
            return
        publisher.publish(message)

    def _note_failure(self, topic: topics.Topic, error: Exception) -> None:
        # Most likely it will fail with every frame: once is enough to know.
        if topic not in self._failed:
            self._failed.add(topic)
            self._node.get_logger().error(
                f"{topic.name} cannot be built and is left out: {error!r}"
            )

    def _publish_images(self, results: Results) -> None:
        header = header_of(results.frames.rgb)
        size = results.fused.shape[:2]
        self._send(topics.FUSED_IMAGE, lambda: image_message(results.fused, "rgb8", header))
        self._send(
            topics.FUSED_INFO,
            lambda: camera_info_message(self.rgb_info, self._rgb_camera, size, header),
        )
        for topic, picture in (
            (topics.REGISTERED_THERMAL, results.registered_thermal),
            (topics.SALIENCY_MASK, results.saliency),
        ):
            if picture is not None:
                self._send(topic, functools.partial(image_message, picture, "mono8", header))
        self._send(
            topics.OVERLAY_IMAGE, lambda: image_message(self._overlay(results), "rgb8", header)
        )

    def _publish_detections(self, results: Results, detections: Detections) -> None:
        header, names = header_of(results.frames.rgb), self._artifact.classes
        self._send(topics.DETECTIONS, lambda: detections_2d_message(detections, names, header))

        @functools.cache
        def places() -> Places:
            height, width = results.fused.shape[:2]
            return place(detections, self._intrinsics((height, width)))

        self._send(
            topics.DETECTIONS_3D,
            lambda: detections_3d_message(detections, places(), names, header),
        )
        self._send(topics.MARKERS, lambda: markers_message(detections, places(), names, header))

    def _intrinsics(self, size: tuple[int, int]) -> Intrinsics:
        """What the camera says of itself, as far as it can be used, else what the rig says."""
        info = self.rgb_info
        told = None if info is None else Intrinsics.told_by(info, size)
        return told or Intrinsics.of(self._rgb_camera)

    def _overlay(self, results: Results) -> Any:
        return draw_overlay(
            results.fused, results.saliency, results.detections, self._artifact.classes
        )


def _message_type(topic: topics.Topic) -> Any:
    package, kind, name = topic.type.split("/")
    return getattr(importlib.import_module(f"{package}.{kind}"), name)
