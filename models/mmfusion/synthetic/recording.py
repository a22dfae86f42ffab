"""A rendered sequence as a folder of plain files.

```
rgb/000000.jpg      8-bit colour
depth/000000.png    16-bit, millimetres, 0 = no value
thermal/000000.png  16-bit, kelvin times 100
gt/000000.png       8-bit, 255 on people and cars, else 0, in the RGB view
boxes.json          COCO annotations in the RGB view, with 3-D boxes
cameras.yaml        sizes, intrinsics, poses in the RGB optical frame
stamps.csv          file stem and the three stamps in nanoseconds
```
"""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import yaml

from mmfusion.errors import DataError
from mmfusion.synthetic.sequences import CLASS_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from mmfusion.synthetic.camera import Camera, Rig
    from mmfusion.synthetic.sequences import RenderedFrame

JPEG_QUALITY = 92
FIRST_STAMP_NS = 1_760_000_000_000_000_000  # a stamp of zero would mean "not set" in ROS
STAMP_FIELDS = ("stem", "rgb_stamp_ns", "depth_stamp_ns", "thermal_stamp_ns")


def write_sequence(folder: Path, rig: Rig, frames: Iterable[RenderedFrame]) -> int:
    """Write frames as they come.

    Args:
        folder: made if it is missing; must be empty.
        rig: the cameras in the body frame.
        frames: what `render_sequence` yields.

    Returns:
        Number of frames written.

    Raises:
        DataError: the folder holds something already, or a file could not be written.
    """
    if folder.exists() and any(folder.iterdir()):
        raise DataError(f"{folder} is not empty; give a new folder or empty it first")
    for name in ("rgb", "depth", "thermal", "gt"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    with (folder / "stamps.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(STAMP_FIELDS)
        for frame in frames:
            stem = f"{frame.index:06d}"
            _write_pictures(folder, stem, frame)
            stamps = (frame.stamps_ns[name] for name in ("rgb", "depth", "thermal"))
            table.writerow([stem, *(FIRST_STAMP_NS + stamp for stamp in stamps)])
            height, width = frame.rgb.shape[:2]
            picture = {"id": frame.index + 1, "file_name": f"{stem}.jpg"}
            images.append({**picture, "width": width, "height": height})
            annotations += _annotations(frame, len(annotations) + 1)
    boxes = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(CLASS_NAMES)],
    }
    (folder / "boxes.json").write_text(_lines(boxes))
    (folder / "cameras.yaml").write_text(
        yaml.safe_dump(_cameras(rig), sort_keys=False, default_flow_style=None, width=100)
    )
    return len(images)


def _write_pictures(folder: Path, stem: str, frame: RenderedFrame) -> None:
    color = cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2BGR)
    best = [cv2.IMWRITE_PNG_COMPRESSION, 9]
    for path, picture, options in (
        (folder / "rgb" / f"{stem}.jpg", color, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]),
        (folder / "depth" / f"{stem}.png", frame.depth, best),
        (folder / "thermal" / f"{stem}.png", frame.thermal, best),
        (folder / "gt" / f"{stem}.png", frame.saliency, best),
    ):
        if not cv2.imwrite(str(path), picture, options):
            raise DataError(f"could not write {path}")


def _annotations(frame: RenderedFrame, first_id: int) -> list[dict[str, Any]]:
    result = []
    for number, box in enumerate(frame.boxes):
        left, top, right, bottom = box.xyxy
        result.append(
            {
                "id": first_id + number,
                "image_id": frame.index + 1,
                "category_id": CLASS_NAMES.index(box.class_name) + 1,
                "bbox": [left, top, right - left, bottom - top],
                "area": box.pixels,
                "iscrowd": 0,
                "instance": box.instance,
                "visible": round(box.visible, 3),
                "center": np.round(box.center, 4).tolist(),
                "size": [round(side, 4) for side in box.size],
                "axes": np.round(box.axes, 5).tolist(),
            }
        )
    return result


def _cameras(rig: Rig) -> dict[str, Any]:
    rgb_from_body = np.linalg.inv(rig.rgb.pose)

    def entry(camera: Camera, **more: str) -> dict[str, Any]:
        pose = np.round(rgb_from_body @ camera.pose, 9) + 0.0  # + 0.0 turns -0.0 into 0.0
        return {
            "width": camera.width,
            "height": camera.height,
            "K": [round(float(x), 6) for x in camera.matrix.ravel()],
            "D": [0.0, 0.0, 0.0, 0.0, 0.0],
            "pose_in_rgb": [[float(x) for x in row] for row in pose],
            **more,
        }

    return {
        "rgb": entry(rig.rgb, encoding="rgb8"),
        "depth": entry(rig.depth, encoding="16UC1", unit="millimetre"),
        "thermal": entry(rig.thermal, encoding="mono16", unit="centikelvin"),
    }


def _lines(boxes: dict[str, Any]) -> str:
    """JSON with one image or annotation on each line: small, and kind to diffs."""
    blocks = []
    for key, rows in boxes.items():
        lines = ",\n".join("  " + json.dumps(row, separators=(", ", ": ")) for row in rows)
        blocks.append(f' "{key}": [\n{lines}\n ]' if rows else f' "{key}": []')
    return "{\n" + ",\n".join(blocks) + "\n}\n"
