"""Detections as ROS messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import geometry_msgs.msg
import numpy as np
import vision_msgs.msg
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point, Vector3
from std_msgs.msg import ColorRGBA, Header
from vision_msgs.msg import Detection2DArray, Detection3DArray
from visualization_msgs.msg import Marker, MarkerArray

from mmfusion_ros.core import detection_records
from mmfusion_ros.core.detections import Detections
from mmfusion_ros.core.detections_3d import Places
from mmfusion_ros.core.overlay import class_colour, label_of

_PACKAGES = {"geometry_msgs": geometry_msgs.msg, "vision_msgs": vision_msgs.msg}
_TYPES = {
    name: getattr(_PACKAGES[name.split("/")[0]], name.rpartition("/")[2])
    for name in (
        *detection_records.PARTS,
        detection_records.DETECTIONS_2D,
        detection_records.DETECTIONS_3D,
    )
}
_LINE_WIDTH_M = 0.03
_TEXT_HEIGHT_M = 0.25
# Each array clears the one before; this is for the last one, when nothing comes any more.
_LIFETIME = Duration(sec=1)


def detections_2d_message(
    detections: Detections, names: Sequence[str], header: Header
) -> Detection2DArray:
    """Boxes in pixels of the RGB picture; see `detections_2d`."""
    return detection_records.detections_2d(_TYPES, header, detections, names)


def detections_3d_message(
    detections: Detections, places: Places, names: Sequence[str], header: Header
) -> Detection3DArray:
    """Boxes in metres in the RGB optical frame; see `detections_3d`."""
    return detection_records.detections_3d(_TYPES, header, detections, places, names)


def markers_message(
    detections: Detections, places: Places, names: Sequence[str], header: Header
) -> MarkerArray:
    """Frames and labels to look at in RViz; the first marker removes all of before.

    A frame is the box as the camera sees it, at the depth of the object.
    """
    markers = [Marker(header=header, action=Marker.DELETEALL)]
    for number in range(len(places.index)):
        markers += _marks(number, detections, places, names, header)
    return MarkerArray(markers=markers)


def _marks(
    number: int,
    detections: Detections,
    places: Places,
    names: Sequence[str],
    header: Header,
) -> Iterator[Marker]:
    index = places.index[number]
    kind = int(detections.classes[index])
    red, green, blue = (channel / 255 for channel in class_colour(kind))
    centre, size = places.centres[number], places.sizes[number]
    common: dict[str, Any] = {
        "header": header,
        "id": number,
        "action": Marker.ADD,
        "color": ColorRGBA(r=red, g=green, b=blue, a=1.0),
        "lifetime": _LIFETIME,
    }
    half_width, half_height, _ = (size / 2).tolist()
    corners = [(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)]
    yield Marker(
        **common,
        ns="boxes",
        type=Marker.LINE_STRIP,
        pose=detection_records.pose(_TYPES, centre),
        scale=Vector3(x=_LINE_WIDTH_M),
        points=[Point(x=x * half_width, y=y * half_height) for x, y in corners],
    )
    depth, score = float(detections.depths[index]), float(detections.scores[index])
    above = centre - np.array([0.0, half_height + _TEXT_HEIGHT_M, 0.0])  # y points down
    yield Marker(
        **common,
        ns="labels",
        type=Marker.TEXT_VIEW_FACING,
        pose=detection_records.pose(_TYPES, above),
        scale=Vector3(z=_TEXT_HEIGHT_M),
        text=label_of(names[kind], score, depth),
    )
