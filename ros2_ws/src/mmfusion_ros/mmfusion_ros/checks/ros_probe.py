"""What a ROS program started from here finds; run as a process of its own, prints JSON.

A process of its own, as an RMW implementation that is not installed ends the process that asks for
it, and as Fast DDS reads its profile once in the life of a process.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

_MESSAGES = (
    "sensor_msgs",
    "std_msgs",
    "diagnostic_msgs",
    "visualization_msgs",
    "vision_msgs",
    "mmfusion_msgs",
)


def segment_bytes(maps: Path = Path("/proc/self/maps")) -> int | None:
    """Size of the largest shared memory segment that Fast DDS has in this process.

    Every process has one of 512 KiB besides, and some for its ports; None without any.
    """
    sizes = []
    for line in maps.read_text().splitlines():
        name = line.rpartition("/dev/shm/")[2]  # noqa: S108 (nothing is written)
        if name.startswith(("fastdds_", "fastrtps_")) and "_port" not in name:
            first, _, last = line.split(maxsplit=1)[0].partition("-")
            sizes.append(int(last, 16) - int(first, 16))
    return max(sizes, default=None)


def _missing_messages() -> dict[str, str]:
    missing = {}
    for package in _MESSAGES:
        try:
            importlib.import_module(f"{package}.msg")
        except ImportError as error:
            missing[package] = str(error)
    return missing


def _numpy_problem() -> str:
    """Why messages with number arrays do not work; empty if they do."""
    from rclpy.serialization import deserialize_message, serialize_message  # noqa: PLC0415
    from sensor_msgs.msg import CameraInfo  # noqa: PLC0415

    try:
        sent = CameraInfo(k=[float(number) for number in range(9)])
        received = deserialize_message(serialize_message(sent), CameraInfo)
    except Exception as error:  # noqa: BLE001 (another NumPy may raise anything here)
        return f"{type(error).__name__}: {error}"
    return "" if list(received.k) == list(sent.k) else "numbers of a message came back changed"


def main() -> int:
    """Look around and print what there is."""
    if sys.argv[1:] == ["--with-our-profile"]:
        from mmfusion_ros.dds_profile import apply_dds_profile  # noqa: PLC0415

        apply_dds_profile()
    # Running programs need not get to know what leaves as soon as it is there.
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "OFF"
    os.environ.pop("ROS_LOCALHOST_ONLY", None)
    import rclpy  # noqa: PLC0415

    missing = _missing_messages()
    found: dict[str, Any] = {
        "rmw": rclpy.get_rmw_implementation_identifier(),
        "missing_messages": missing,
        "numpy_problem": "" if "sensor_msgs" in missing else _numpy_problem(),
    }
    rclpy.init(args=[])
    node = rclpy.create_node("mmfusion_doctor_probe", enable_rosout=False)
    found["segment_bytes"] = segment_bytes()
    node.destroy_node()
    rclpy.shutdown()
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
