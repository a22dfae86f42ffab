"""Folders of registered infrared-visible pairs with boxes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from numpy.typing import NDArray

from mmfusion.errors import DataError
from mmfusion.graph.photometry import RANGE_TAIL
from mmfusion.train.pairs import find_pairs

_MIN_COUNTS = 50  # of range: half a kelvin of a camera that counts hundredths
_SYNONYMS = {"person": "people"}
_INTEGER = {"type": "integer"}
_NAME = {"type": "string", "minLength": 1}
# As far as it is used: everything else in the file is left alone.
_SCHEMA = {
    "type": "object",
    "required": ["images", "annotations", "categories"],
    "properties": {
        "images": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["id", "file_name"],
                "properties": {
                    "id": _INTEGER,
                    "file_name": _NAME,
                    "labelled_classes": {"type": "array", "items": _NAME},
                },
            },
        },
        "annotations": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["image_id", "category_id", "bbox"],
                "properties": {
                    "image_id": _INTEGER,
                    "category_id": _INTEGER,
                    "bbox": {
                        "type": "array",
                        "minItems": 4,
                        "maxItems": 4,
                        "items": {"type": "number"},
                    },
                },
            },
        },
        "categories": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["id", "name"],
                "properties": {"id": _INTEGER, "name": _NAME},
            },
        },
    },
}


@dataclass(frozen=True)
class BoxedPair:
    """One registered pair and the objects in it.

    Attributes:
        name: file stem.
        visible: RGB, uint8 (H, W, 3).
        infrared: uint8 (H, W).
        boxes: corners in pixels, float32 (n, 4).
        labels: positions in the class names, int64 (n,).
        labelled: which classes the boxes cover, bool (C,).
    """

    name: str
    visible: NDArray[np.uint8]
    infrared: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    labelled: NDArray[np.bool_]


def load_boxed_pairs(folders: Sequence[Path], classes: Sequence[str]) -> list[BoxedPair]:
    """Read every pair of some folders that their COCO files list.

    Images are found by `find_pairs`. Boxes are in ``boxes.json``, in
    ``annotations/instances_*.json``, or beside the folder, in ``annotations/instances_NAME.json``
    where NAME is that of the folder. Categories are matched to ``classes`` whatever their case;
    others, and boxes of crowds, are left out. An image record may list ``labelled_classes``;
    otherwise all categories of its file count as labelled.

    Args:
        folders: of registered pairs; 16-bit infrared of another size is fine if it shows the
            same field of view.
        classes: names of the model's classes.

    Raises:
        DataError: if files are missing, unreadable or contradict each other, naming them.
    """
    pairs = [
        pair
        for folder in folders
        for annotations in _annotation_files(folder)
        for pair in _read_folder(folder, annotations, classes)
    ]
    if not pairs:
        raise DataError(f"no pair with boxes in {', '.join(map(str, folders))}")
    return pairs


def to_grey8(counts: NDArray[Any]) -> NDArray[np.uint8]:
    """Counts (H, W) to 8 bits, by the range of all but the lowest and highest 0.5 %.

    The same range as a compiled graph settles on for a steady scene.
    """
    low, high = np.quantile(counts, (RANGE_TAIL, 1 - RANGE_TAIL))
    half = max((high - low) / 2, _MIN_COUNTS / 2)
    unit = (counts - ((low + high) / 2 - half)) / (2 * half)
    grey: NDArray[np.uint8] = np.rint(255 * unit.clip(0, 1)).astype(np.uint8)
    return grey


def _annotation_files(folder: Path) -> list[Path]:
    beside = folder.parent / "annotations" / f"instances_{folder.name}.json"
    found = [path for path in (folder / "boxes.json", beside) if path.is_file()]
    found += sorted((folder / "annotations").glob("instances_*.json"))
    if not found:
        raise DataError(
            f"{folder} has no boxes: expected boxes.json or annotations/instances_*.json in it, "
            f"or {beside}"
        )
    return found


def _read_folder(folder: Path, path: Path, classes: Sequence[str]) -> list[BoxedPair]:
    files = {stem: (infrared, visible) for stem, infrared, visible in find_pairs(folder)}
    content = _read_coco(path)
    names = {category["id"]: category["name"] for category in content["categories"]}
    stems = {record["id"]: Path(record["file_name"]).stem for record in content["images"]}
    missing = sorted(set(stems.values()) - files.keys())
    if missing:
        raise DataError(
            f"{path}: {len(missing)} of its images are not in {folder}: {', '.join(missing[:5])}"
            f"{' ...' if len(missing) > 5 else ''}; add them or take their records out"
        )
    objects: dict[int, list[tuple[int, list[float]]]] = {image: [] for image in stems}
    for note in content["annotations"]:
        if note["image_id"] not in objects or note["category_id"] not in names:
            raise DataError(
                f"{path}: a box of image {note['image_id']}, category {note['category_id']}; "
                "expected ids that its images and categories list"
            )
        label = _positions(classes, [names[note["category_id"]]])
        if label and not note.get("iscrowd", 0):
            objects[note["image_id"]].append((label[0], note["bbox"]))
    pairs = []
    for record in content["images"]:
        labelled = np.zeros(len(classes), np.bool_)
        labelled[_positions(classes, record.get("labelled_classes", names.values()))] = True
        visible, infrared = _read_pair(*files[stems[record["id"]]])
        boxes = [(x, y, x + w, y + h) for _, (x, y, w, h) in objects[record["id"]]]
        pairs.append(
            BoxedPair(
                stems[record["id"]],
                visible,
                infrared,
                np.array(boxes, np.float32).reshape(-1, 4),
                np.array([label for label, _ in objects[record["id"]]], np.int64),
                labelled,
            )
        )
    return pairs


def _positions(classes: Sequence[str], names: Iterable[str]) -> list[int]:
    """Positions of category names among the classes; unknown ones have none."""
    known = {_plain(name): position for position, name in enumerate(classes)}
    return [known[_plain(name)] for name in names if _plain(name) in known]


def _plain(name: str) -> str:
    lower = name.strip().lower()
    return _SYNONYMS.get(lower, lower)


@cache
def _validator() -> Draft202012Validator:
    return Draft202012Validator(_SCHEMA)


def _read_coco(path: Path) -> Any:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not readable JSON: {error}") from error
    fault = best_match(_validator().iter_errors(content))
    if fault is not None:
        raise DataError(f"{path}, {fault.json_path}: {fault.message}; expected a COCO file")
    return content


def _read_pair(
    infrared_path: Path, visible_path: Path
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    visible = np.ascontiguousarray(_read(visible_path, cv2.IMREAD_COLOR)[..., ::-1])
    counts = _read(infrared_path, cv2.IMREAD_ANYDEPTH)  # grey, 8 or 16 bits as in the file
    infrared = counts if counts.dtype == np.uint8 else to_grey8(counts)
    if infrared.shape != visible.shape[:2]:
        # Bilinear as in a compiled graph; it would alias when shrinking.
        larger = infrared.shape[0] > visible.shape[0]
        method = cv2.INTER_AREA if larger else cv2.INTER_LINEAR
        infrared = np.asarray(
            cv2.resize(infrared, visible.shape[1::-1], interpolation=method), np.uint8
        )
    return visible, infrared


def _read(path: Path, mode: int) -> NDArray[Any]:
    data = np.fromfile(path, np.uint8)  # by way of memory: imread prints its own warnings
    image: Any = cv2.imdecode(data, mode) if data.size else None
    if image is None:
        raise DataError(f"{path} is not a readable image; expected a whole PNG or JPEG file")
    return np.asarray(image)
