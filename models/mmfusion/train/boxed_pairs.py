"""Folders of registered infrared-visible pairs with boxes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from numpy.typing import NDArray

from mmfusion.errors import DataError
from mmfusion.train.faults import Faults, listed
from mmfusion.train.folders import find_subfolder
from mmfusion.train.image_files import Header, read_headers, read_image
from mmfusion.train.lazy import Entry, LazySequence
from mmfusion.train.pairs import Found, match_pairs, read_infrared
from mmfusion.train.voc import VocImage, read_voc

_VOC_FOLDERS = ("annotation", "annotations", "labels_xml")
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
                    "height": _INTEGER,
                    "width": _INTEGER,
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


@dataclass(frozen=True)
class _Notes:
    """What is known of a pair before it is read.

    Attributes:
        size: (height, width) of the visible image that the boxes are of; None if not told.
        boxes, labels, labelled: as of a `BoxedPair`.
    """

    size: tuple[int, int] | None
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    labelled: NDArray[np.bool_]


def load_boxed_pairs(folders: Sequence[Path], classes: Sequence[str]) -> LazySequence[BoxedPair]:
    """Take every pair of some folders that has boxes; images are decoded when they are used.

    Images are found as by `find_pairs`. Boxes are in COCO files: ``boxes.json``,
    ``annotations/instances_*.json``, or beside the folder, in ``annotations/instances_NAME.json``
    where NAME is that of the folder. Without any, they are in one VOC file per pair, in
    ``Annotation``, ``Annotations`` or ``labels_xml`` in the folder or, for splits, beside it.
    Categories are matched to ``classes`` whatever their case; others, and boxes of crowds or
    marked difficult, are left out. An image record may list ``labelled_classes``; otherwise all
    categories of its COCO file, or all names in the VOC files of the folder, count as labelled.

    Args:
        folders: of registered pairs; 16-bit infrared of another size is fine if it shows the
            same field of view.
        classes: names of the model's classes.

    Raises:
        DataError: if files are missing, unreadable or contradict each other, naming them: all
            that is wrong in all folders. A file may turn out to be damaged inside only when it
            is used.
    """
    faults = Faults()
    taken = [take for folder in folders for take in _read_folder(folder, classes, faults)]
    headers = read_headers((path for (_, *paths), _ in taken for path in paths), faults)
    for (_, infrared, visible), notes in taken:
        if infrared in headers and visible in headers:
            _compare(visible, headers[visible], headers[infrared], notes, faults)
    faults.complain()
    if not taken:
        raise DataError(f"no pair with boxes in {listed(map(str, folders))}")
    return LazySequence(
        [
            Entry(files[0], headers[files[2]].size, partial(_read_pair, *files, notes))
            for files, notes in taken
        ]
    )


def _annotation_files(folder: Path) -> list[Path]:
    """COCO files of a folder."""
    found = [path for path in (folder / "boxes.json", _beside(folder)) if path.is_file()]
    return found + sorted((folder / "annotations").glob("instances_*.json"))


def _beside(folder: Path) -> Path:
    return folder.parent / "annotations" / f"instances_{folder.name}.json"


def _voc_files(folder: Path) -> dict[str, Path] | None:
    """VOC files of a folder by stem; None if there are none."""
    for place in (folder, folder.parent):
        home = find_subfolder(place, _VOC_FOLDERS)
        files = {path.stem: path for path in home.glob("*.xml")} if home else {}
        if files:
            return files
    return None


def _read_folder(
    folder: Path, classes: Sequence[str], faults: Faults
) -> list[tuple[Found, _Notes]]:
    coco, voc = _annotation_files(folder), _voc_files(folder)
    if not coco and voc is None:
        faults.add(
            f"{folder} has no boxes: expected boxes.json or annotations/instances_*.json in it, "
            f"or {_beside(folder)}, or a subfolder named {' or '.join(_VOC_FOLDERS)} of XML files"
        )
        return []
    before = faults.count
    pairs = {pair[0]: pair for pair in match_pairs(folder, faults)}
    if faults.count > before:
        return []
    taken = []
    for path in coco:
        with faults.noting():
            for stem, notes in _read_coco_notes(path, folder, pairs.keys(), classes):
                taken.append((pairs[stem], notes))
    if coco or voc is None:
        return taken
    missing = sorted(pairs.keys() - voc.keys())
    if missing:
        faults.add(f"{folder}: {len(missing)} images have no XML file: {listed(missing)}")
    images = {}
    for stem in pairs.keys() & voc.keys():
        with faults.noting():
            images[stem] = read_voc(voc[stem])
    return [(pairs[stem], notes) for stem, notes in _of_voc(images, classes)]


def _of_voc(images: Mapping[str, VocImage], classes: Sequence[str]) -> Iterator[tuple[str, _Notes]]:
    """Stems of images, and what their VOC files say."""
    labelled = np.zeros(len(classes), np.bool_)
    names = {thing.name for image in images.values() for thing in image.objects}
    labelled[_positions(classes, names)] = True
    for stem, image in sorted(images.items()):
        known = [
            (label, thing.box)
            for thing in image.objects
            for label in _positions(classes, [thing.name])
            if not thing.difficult
        ]
        yield stem, _note(image.size, known, labelled)


def _note(
    size: tuple[int, int] | None,
    objects: Sequence[tuple[int, Sequence[float]]],
    labelled: NDArray[np.bool_],
) -> _Notes:
    return _Notes(
        size,
        np.array([box for _, box in objects], np.float32).reshape(-1, 4),
        np.array([label for label, _ in objects], np.int64),
        labelled,
    )


def _read_coco_notes(
    path: Path, folder: Path, stems_of_pairs: Set[str], classes: Sequence[str]
) -> Iterator[tuple[str, _Notes]]:
    """Stems of the images that a COCO file lists, and what it says of each."""
    content = _read_coco(path)
    names = {category["id"]: category["name"] for category in content["categories"]}
    stems = {record["id"]: Path(record["file_name"]).stem for record in content["images"]}
    missing = sorted(set(stems.values()) - stems_of_pairs)
    if missing:
        raise DataError(
            f"{path}: {len(missing)} of its images are not in {folder}: {listed(missing)}; add "
            "them or take their records out"
        )
    objects: dict[int, list[tuple[int, Sequence[float]]]] = {image: [] for image in stems}
    for note in content["annotations"]:
        if note["image_id"] not in objects or note["category_id"] not in names:
            raise DataError(
                f"{path}: a box of image {note['image_id']}, category {note['category_id']}; "
                "expected ids that its images and categories list"
            )
        label = _positions(classes, [names[note["category_id"]]])
        if label and not note.get("iscrowd", 0):
            x, y, width, height = note["bbox"]
            objects[note["image_id"]].append((label[0], (x, y, x + width, y + height)))
    for record in content["images"]:
        labelled = np.zeros(len(classes), np.bool_)
        labelled[_positions(classes, record.get("labelled_classes", names.values()))] = True
        told = "height" in record and "width" in record
        size = (record["height"], record["width"]) if told else None
        yield stems[record["id"]], _note(size, objects[record["id"]], labelled)


def _compare(visible: Path, seen: Header, infrared: Header, notes: _Notes, faults: Faults) -> None:
    """Tell of sizes that cannot belong together."""
    if notes.size not in (None, seen.size):
        faults.add(
            f"{visible} is {seen.size}, but its boxes are of an image of {notes.size}",
            "expected boxes in pixels of the image",
        )
    if infrared.size != seen.size and not infrared.sixteen_bit:
        faults.add(
            f"{visible} is {seen.size}, its infrared {infrared.size}",
            "a registered pair has one size, unless infrared has 16 bits",
        )


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


def _read_pair(stem: str, infrared_path: Path, visible_path: Path, notes: _Notes) -> BoxedPair:
    visible = np.ascontiguousarray(read_image(visible_path, cv2.IMREAD_COLOR)[..., ::-1])
    infrared = read_infrared(infrared_path)
    if infrared.shape != visible.shape[:2]:
        # Bilinear as in a compiled graph; it would alias when shrinking.
        larger = infrared.shape[0] > visible.shape[0]
        method = cv2.INTER_AREA if larger else cv2.INTER_LINEAR
        infrared = np.asarray(
            cv2.resize(infrared, visible.shape[1::-1], interpolation=method), np.uint8
        )
    return BoxedPair(stem, visible, infrared, notes.boxes, notes.labels, notes.labelled)
