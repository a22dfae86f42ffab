"""What the node publishes: one definition for publishing and documenting it."""

from __future__ import annotations

import sys
from collections.abc import Container
from dataclasses import dataclass

from mmfusion_ros.core.frames import Modality
from mmfusion_ros.parameters import Settings


@dataclass(frozen=True)
class Topic:
    """A topic of the node.

    Attributes:
        name: relative to the node's name, or absolute.
        type: like sensor_msgs/msg/Image.
        meaning: what a message says.
        made_from: outputs of the graph, of which the artifact must have one; empty for none.
    """

    name: str
    type: str
    meaning: str
    made_from: tuple[str, ...] = ()

    def published_with(self, outputs: Container[str]) -> bool:
        """Whether there is anything to say on it where a graph has these outputs."""
        return not self.made_from or any(name in outputs for name in self.made_from)


FUSED_IMAGE = Topic("~/fused/image", "sensor_msgs/msg/Image", "fused picture, rgb8")
FUSED_INFO = Topic(
    "~/fused/camera_info",
    "sensor_msgs/msg/CameraInfo",
    "intrinsics of the fused picture: those of the RGB camera",
)
REGISTERED_THERMAL = Topic(
    "~/registered_thermal/image",
    "sensor_msgs/msg/Image",
    "thermal as fused, mono8; if the artifact was exported with it",
    ("registered_thermal",),
)
SALIENCY_MASK = Topic(
    "~/saliency/mask",
    "sensor_msgs/msg/Image",
    "how salient each pixel is, mono8, probability times 255; if the artifact has saliency",
    ("saliency",),
)
DETECTIONS = Topic(
    "~/detections",
    "vision_msgs/msg/Detection2DArray",
    "objects in pixels of the RGB picture, class names as the artifact has them; if it detects",
    ("boxes",),
)
DETECTIONS_3D = Topic(
    "~/detections_3d",
    "vision_msgs/msg/Detection3DArray",
    "those with a depth, in the RGB optical frame; their extent along z is not measured: 0",
    ("box_depth",),
)
MARKERS = Topic(
    "~/markers",
    "visualization_msgs/msg/MarkerArray",
    "the same to look at: frame, class, score and depth",
    ("box_depth",),
)
OVERLAY_IMAGE = Topic(
    "~/overlay/image",
    "sensor_msgs/msg/Image",
    "fused picture with saliency tinted and detections framed, rgb8; if the artifact has either",
    ("saliency", "boxes"),
)
STATUS = Topic(
    "~/status",
    "mmfusion_msgs/msg/FrameStatus",
    "per frame: modalities used and why not, ages, stage durations, latency, expected quality",
)
DIAGNOSTICS = Topic(
    "/diagnostics",
    "diagnostic_msgs/msg/DiagnosticArray",
    "once a second: engine, synchroniser, each camera, quality of service of the inputs",
)
# For each frame, in the node's namespace.
PER_FRAME = (
    FUSED_IMAGE,
    FUSED_INFO,
    REGISTERED_THERMAL,
    SALIENCY_MASK,
    DETECTIONS,
    DETECTIONS_3D,
    MARKERS,
    OVERLAY_IMAGE,
    STATUS,
)
PUBLISHED = (*PER_FRAME, DIAGNOSTICS)


def subscribed() -> tuple[Topic, ...]:
    """What the node subscribes to with its default parameters."""
    settings = Settings()
    images = {
        Modality.RGB: "colour, one set of results for each",
        Modality.DEPTH: "depth: 16UC1 millimetres or 32FC1 metres, as the artifact takes",
        Modality.THERMAL: "thermal: mono16 or mono8 counts",
    }
    return (
        *(
            Topic(settings.topic(modality), "sensor_msgs/msg/Image", meaning)
            for modality, meaning in images.items()
        ),
        *(
            Topic(
                settings.info_topic(modality),
                "sensor_msgs/msg/CameraInfo",
                f"intrinsics of the {modality} camera, compared with the rig file"
                + ("; used for positions in 3-D" if modality is Modality.RGB else ""),
            )
            for modality in images
        ),
    )


def markdown() -> str:
    """The tables for the README."""
    lines = []
    for title, topics in (("subscribed", subscribed()), ("published", PUBLISHED)):
        lines += [f"| {title} | type | meaning |", "| --- | --- | --- |"]
        lines += [f"| `{t.name}` | `{t.type}` | {t.meaning} |" for t in topics]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(markdown())
