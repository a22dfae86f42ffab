"""Detections as ROS messages."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray, Detection3DArray
from visualization_msgs.msg import MarkerArray

from mmfusion_ros.core import detection_records, marker_records
from mmfusion_ros.core.detections import Detections
from mmfusion_ros.core.detections_3d import Places

_TYPES = {
    name: getattr(
        importlib.import_module(name.rpartition("/")[0].replace("/", ".")), name.rpartition("/")[2]
    )
    for name in (
        *detection_records.PARTS,
        detection_records.DETECTIONS_2D,
        detection_records.DETECTIONS_3D,
        *marker_records.PARTS,
        marker_records.MARKERS,
    )
}


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
    """Frames and labels to look at in RViz; see `marker_records.markers`."""
    return marker_records.markers(_TYPES, header, detections, places, names)
