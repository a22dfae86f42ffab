"""Detections as ``visualization_msgs`` markers, in the classes of whichever library sends them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from mmfusion_ros.core.detection_records import Types, pose
from mmfusion_ros.core.detections import Detections
from mmfusion_ros.core.detections_3d import Places
from mmfusion_ros.core.overlay import class_colour, label_of

MARKERS: Final = "visualization_msgs/msg/MarkerArray"
_MARKER = "visualization_msgs/msg/Marker"
# What they are made of.
PARTS = (
    "builtin_interfaces/msg/Duration",
    "builtin_interfaces/msg/Time",
    "geometry_msgs/msg/Point",
    "geometry_msgs/msg/Pose",
    "geometry_msgs/msg/Quaternion",
    "geometry_msgs/msg/Vector3",
    "sensor_msgs/msg/CompressedImage",
    "std_msgs/msg/ColorRGBA",
    "std_msgs/msg/Header",
    _MARKER,
    "visualization_msgs/msg/MeshFile",
)
_LINE_STRIP, _TEXT_VIEW_FACING = 4, 9  # Marker.type
_ADD, _DELETEALL = 0, 3  # Marker.action
_LINE_WIDTH_M = 0.03
_TEXT_HEIGHT_M = 0.25
# Each array clears the one before; this is for the last one, when nothing comes any more.
_LIFETIME_S = 1


def markers(
    types: Types, header: Any, detections: Detections, places: Places, names: Sequence[str]
) -> Any:
    """A ``MarkerArray``: frames and labels to look at; the first removes all of before.

    A frame is the box as the camera sees it, at the depth of the object.

    Args:
        types: message classes by full name.
        header: of the RGB frame.
        detections: what was found.
        places: where that is.
        names: of the classes.
    """
    told = [_marker(types, header, action=_DELETEALL)]
    for number in range(len(places.index)):
        told += _marks(types, header, detections, places, names=names, number=number)
    return types[MARKERS](markers=told)


def _marks(
    types: Types,
    header: Any,
    detections: Detections,
    places: Places,
    *,
    names: Sequence[str],
    number: int,
) -> Iterator[Any]:
    index = places.index[number]
    kind = int(detections.classes[index])
    red, green, blue = (channel / 255 for channel in class_colour(kind))
    centre, size = places.centres[number], places.sizes[number]
    common: dict[str, Any] = {
        "id": number,
        "action": _ADD,
        "color": types["std_msgs/msg/ColorRGBA"](r=red, g=green, b=blue, a=1.0),
        "lifetime": types["builtin_interfaces/msg/Duration"](sec=_LIFETIME_S, nanosec=0),
    }
    half_width, half_height, _ = (size / 2).tolist()
    point = types["geometry_msgs/msg/Point"]
    corners = [(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)]
    yield _marker(
        types,
        header,
        **common,
        ns="boxes",
        type=_LINE_STRIP,
        pose=pose(types, centre),
        scale=_vector(types, x=_LINE_WIDTH_M),
        points=[point(x=x * half_width, y=y * half_height, z=0.0) for x, y in corners],
    )
    depth, score = float(detections.depths[index]), float(detections.scores[index])
    above = centre - np.array([0.0, half_height + _TEXT_HEIGHT_M, 0.0])  # y points down
    yield _marker(
        types,
        header,
        **common,
        ns="labels",
        type=_TEXT_VIEW_FACING,
        pose=pose(types, above),
        scale=_vector(types, z=_TEXT_HEIGHT_M),
        text=label_of(names[kind], score, depth),
    )


def _marker(types: Types, header: Any, **fields: Any) -> Any:
    """A marker with what is said of it, and the message's defaults for the rest.

    Spelt out, as the classes of rosbags have none.
    """
    nothing = np.zeros(0, np.uint8)
    time = types["builtin_interfaces/msg/Time"](sec=0, nanosec=0)
    unnamed = types["std_msgs/msg/Header"](stamp=time, frame_id="")
    defaults = {
        "ns": "",
        "id": 0,
        "type": 0,
        "pose": pose(types, np.zeros(3)),
        "scale": _vector(types),
        "color": types["std_msgs/msg/ColorRGBA"](r=0.0, g=0.0, b=0.0, a=0.0),
        "lifetime": types["builtin_interfaces/msg/Duration"](sec=0, nanosec=0),
        "frame_locked": False,
        "points": [],
        "colors": [],
        "texture_resource": "",
        "texture": types["sensor_msgs/msg/CompressedImage"](
            header=unnamed, format="", data=nothing
        ),
        "uv_coordinates": [],
        "text": "",
        "mesh_resource": "",
        "mesh_file": types["visualization_msgs/msg/MeshFile"](filename="", data=nothing),
        "mesh_use_embedded_materials": False,
    }
    return types[_MARKER](header=header, **{**defaults, **fields})


def _vector(types: Types, x: float = 0.0, z: float = 0.0) -> Any:
    return types["geometry_msgs/msg/Vector3"](x=x, y=0.0, z=z)
