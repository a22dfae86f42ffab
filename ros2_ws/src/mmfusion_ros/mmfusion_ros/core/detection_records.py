"""Detections as ``vision_msgs`` messages, in the classes of whichever library sends them.

The node sends those of ``vision_msgs`` itself, a replay those that rosbags makes of its ``.msg``
files. Both are made with all fields as keyword arguments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfusion_ros.core.detections import Detections
from mmfusion_ros.core.detections_3d import Places

DETECTIONS_2D = "vision_msgs/msg/Detection2DArray"
DETECTIONS_3D = "vision_msgs/msg/Detection3DArray"
# What the two are made of.
PARTS = (
    "geometry_msgs/msg/Point",
    "geometry_msgs/msg/Pose",
    "geometry_msgs/msg/PoseWithCovariance",
    "geometry_msgs/msg/Quaternion",
    "geometry_msgs/msg/Vector3",
    "vision_msgs/msg/BoundingBox2D",
    "vision_msgs/msg/BoundingBox3D",
    "vision_msgs/msg/Detection2D",
    "vision_msgs/msg/Detection3D",
    "vision_msgs/msg/ObjectHypothesis",
    "vision_msgs/msg/ObjectHypothesisWithPose",
    "vision_msgs/msg/Point2D",
    "vision_msgs/msg/Pose2D",
)

Types = Mapping[str, Any]


def detections_2d(types: Types, header: Any, detections: Detections, names: Sequence[str]) -> Any:
    """A ``Detection2DArray``: boxes in pixels of the RGB picture.

    The pose of each hypothesis stays at the origin, as nothing here measures one.

    Args:
        types: message classes by full name.
        header: of the RGB frame.
        detections: all are told.
        names: of the classes.
    """
    told = []
    for place, box in enumerate(detections.boxes.astype(np.float64)):
        left, top, right, bottom = box.tolist()
        position = _make(types, "Point2D", x=(left + right) / 2, y=(top + bottom) / 2)
        bounds = _make(
            types,
            "BoundingBox2D",
            center=_make(types, "Pose2D", position=position, theta=0.0),
            size_x=right - left,
            size_y=bottom - top,
        )
        results = [_hypothesis(types, detections, place, names, np.zeros(3))]
        told.append(_make(types, "Detection2D", header=header, results=results, bbox=bounds, id=""))
    return types[DETECTIONS_2D](header=header, detections=told)


def detections_3d(
    types: Types, header: Any, detections: Detections, places: Places, names: Sequence[str]
) -> Any:
    """A ``Detection3DArray`` in the RGB optical frame: those that have a place.

    Args:
        types: message classes by full name.
        header: of the RGB frame.
        detections: what was found.
        places: where that is.
        names: of the classes.
    """
    told = []
    for index, centre, size in zip(places.index, places.centres, places.sizes, strict=True):
        x, y, z = size.tolist()
        bounds = _make(
            types,
            "BoundingBox3D",
            center=pose(types, centre),
            size=types["geometry_msgs/msg/Vector3"](x=x, y=y, z=z),
        )
        results = [_hypothesis(types, detections, int(index), names, centre)]
        told.append(_make(types, "Detection3D", header=header, results=results, bbox=bounds, id=""))
    return types[DETECTIONS_3D](header=header, detections=told)


def pose(types: Types, position: NDArray[np.float64]) -> Any:
    """A ``geometry_msgs/Pose`` at (3,) metres, turned by nothing."""
    x, y, z = position.tolist()
    return types["geometry_msgs/msg/Pose"](
        position=types["geometry_msgs/msg/Point"](x=x, y=y, z=z),
        orientation=types["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0),
    )


def _hypothesis(
    types: Types,
    detections: Detections,
    place: int,
    names: Sequence[str],
    position: NDArray[np.float64],
) -> Any:
    hypothesis = _make(
        types,
        "ObjectHypothesis",
        class_id=names[int(detections.classes[place])],
        score=float(detections.scores[place]),
    )
    # All zeros: not known, as in sensor_msgs.
    known = types["geometry_msgs/msg/PoseWithCovariance"](
        pose=pose(types, position), covariance=np.zeros(36)
    )
    return _make(types, "ObjectHypothesisWithPose", hypothesis=hypothesis, pose=known)


def _make(types: Types, name: str, **fields: Any) -> Any:
    return types[f"vision_msgs/msg/{name}"](**fields)
