"""What the node publishes for each frame: built only when someone listens."""

from __future__ import annotations

import time
from typing import Any

from mmfusion_msgs.msg import FrameStatus
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image

from mmfusion_ros import topics
from mmfusion_ros.core.artifact import Artifact
from mmfusion_ros.core.engines import Engine
from mmfusion_ros.core.frames import Modality
from mmfusion_ros.core.results import Results
from mmfusion_ros.core.rig import Rig
from mmfusion_ros.messages import camera_info_message, header_of, image_message, status_message

_QOS = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)


class Outputs:
    """The publishers of a configured node.

    Attributes:
        rgb_info: newest camera_info of the RGB camera; None as long as none came.
    """

    def __init__(self, node: LifecycleNode, artifact: Artifact, rig: Rig) -> None:
        self._node = node
        self._artifact = artifact
        self._rgb_camera = rig.cameras[Modality.RGB]
        self.rgb_info: CameraInfo | None = None
        self._fused = self._publisher(Image, topics.FUSED_IMAGE)
        self._info = self._publisher(CameraInfo, topics.FUSED_INFO)
        self._status = self._publisher(FrameStatus, topics.STATUS)
        self._thermal = None
        if "registered_thermal" in artifact.outputs:
            self._thermal = self._publisher(Image, topics.REGISTERED_THERMAL)

    def publish(self, results: Results, engine: Engine, sets_dropped: int) -> None:
        """Publish what there is of a result, to whoever listens.

        Without a usable RGB image there is no picture to publish: the status says so.
        """
        started = time.perf_counter()
        if Modality.RGB in results.present:
            self._publish_images(results)
        if not self._status.get_subscription_count():
            return
        stages = {**results.stages, "publish": time.perf_counter() - started}
        now_ns = self._node.get_clock().now().nanoseconds
        message = status_message(
            results,
            self._artifact,
            engine,
            stages=stages,
            latency_ns=now_ns - results.frames.stamp_ns,
            sets_dropped=sets_dropped,
        )
        self._status.publish(message)

    def close(self) -> None:
        """Destroy the publishers."""
        for publisher in (self._fused, self._info, self._status, self._thermal):
            if publisher is not None:
                self._node.destroy_lifecycle_publisher(publisher)

    def _publisher(self, message_type: type, topic: topics.Topic) -> Any:
        return self._node.create_lifecycle_publisher(message_type, topic.name, _QOS)

    def _publish_images(self, results: Results) -> None:
        header = header_of(results.frames.rgb)
        if self._fused.get_subscription_count():
            self._fused.publish(image_message(results.fused, "rgb8", header))
        if self._info.get_subscription_count():
            height, width = results.fused.shape[:2]
            info = camera_info_message(self.rgb_info, self._rgb_camera, (height, width), header)
            self._info.publish(info)
        thermal = results.registered_thermal
        if thermal is not None and self._thermal and self._thermal.get_subscription_count():
            self._thermal.publish(image_message(thermal, "mono8", header))
