"""Small folders of training data: pairs, scenes, and a recording with boxes."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np


def write_pairs(folder: Path, count: int = 3, size: tuple[int, int] = (48, 56)) -> Path:
    """Infrared and visible pictures of soft noise."""
    rng = np.random.default_rng(0)
    for name in ("ir", "vi"):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            picture = cv2.GaussianBlur(rng.random(size).astype(np.float32), (0, 0), 2)
            grey = cv2.normalize(picture, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
            cv2.imwrite(str(folder / name / f"{index}.png"), grey)
    return folder


def write_scenes(folder: Path) -> Path:
    """A near, dark square before a far, bright wall; the square stands out."""
    for name in ("rgb", "depth", "gt"):
        (folder / name).mkdir(parents=True)
    for index in range(3):
        rgb = np.full((60, 80, 3), 200, np.uint8)
        depth = np.full((60, 80), 4000, np.uint16)
        mask = np.zeros((60, 80), np.uint8)
        square = np.s_[15:45, 10 + 15 * index : 40 + 15 * index]
        rgb[square], depth[square], mask[square] = (40, 60, 80), 900, 255
        depth[:5] = 0
        for name, image in (("rgb", rgb), ("depth", depth), ("gt", mask)):
            cv2.imwrite(str(folder / name / f"{index}.png"), image)
    return folder


def write_recording(folder: Path) -> Path:
    """Three frames as the synthetic recorder writes them: a warm person walks."""
    for name in ("rgb", "thermal"):
        (folder / name).mkdir(parents=True)
    images, notes = [], []
    for index in range(3):
        colour, counts = np.full((96, 128, 3), 90, np.uint8), np.full((48, 64), 29000, np.uint16)
        left = 20 + 30 * index
        colour[30:80, left : left + 24] = (200, 60, 20)  # BGR
        counts[15:40, left // 2 : left // 2 + 12] = 30500
        cv2.imwrite(str(folder / "rgb" / f"{index}.jpg"), colour)
        cv2.imwrite(str(folder / "thermal" / f"{index}.png"), counts)
        images.append({"id": index, "file_name": f"{index}.jpg", "width": 128, "height": 96})
        box = {"image_id": index, "bbox": [left, 30, 24, 50]}
        notes += [{**box, "category_id": 1}, {**box, "category_id": 9}]
        notes.append({**box, "category_id": 2, "iscrowd": 1})
    categories = [{"id": 1, "name": "Person"}, {"id": 2, "name": "car"}, {"id": 9, "name": "Dog"}]
    content = {"images": images, "annotations": notes, "categories": categories}
    (folder / "boxes.json").write_text(json.dumps(content))
    return folder
