"""Ground-truth boxes out of a COCO file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from numpy.typing import NDArray

from mmfusion_ros.core.errors import GroundTruthError

_LARGEST = float(np.finfo(np.float32).max)
_NUMBER = {"type": "number"}
_COUNT = {"type": "integer", "minimum": 1}
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
                    "id": {"type": "integer"},
                    "file_name": {"type": "string"},
                    "width": _COUNT,
                    "height": _COUNT,
                    "labelled_classes": {"type": "array", "items": {"type": "string"}},
                },
            },
        },
        "annotations": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["image_id", "category_id", "bbox"],
                "properties": {
                    "image_id": {"type": "integer"},
                    "category_id": {"type": "integer"},
                    "bbox": {"type": "array", "minItems": 4, "maxItems": 4, "items": _NUMBER},
                    "iscrowd": {"enum": [0, 1]},
                },
            },
        },
        "categories": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["id", "name"],
                "properties": {"id": {"type": "integer"}, "name": {"type": "string"}},
            },
        },
    },
}


@dataclass(frozen=True, eq=False)
class TruthBoxes:
    """What there is to detect in one picture.

    Attributes:
        boxes: float32 (n, 4), x y x y in pixels.
        classes: int32 (n,), indices into the artifact's classes.
        crowd: bool (n,), regions in which detections count neither for nor against.
        labelled: the classes that were looked for; of others nothing is known.
        size: (height, width) of the picture; None if the file does not say.
    """

    boxes: NDArray[np.float32]
    classes: NDArray[np.int32]
    crowd: NDArray[np.bool_]
    labelled: frozenset[int]
    size: tuple[int, int] | None


@dataclass(frozen=True)
class CocoFile:
    """A COCO file as far as an artifact knows its classes.

    Attributes:
        images: by file name, as in the file.
        unknown: categories, and names among the labelled classes, that the artifact has no class
            for.
    """

    images: Mapping[str, TruthBoxes]
    unknown: tuple[str, ...]


def read_coco(
    path: Path, classes: Sequence[str], class_map: Mapping[str, str] | None = None
) -> CocoFile:
    """Read a COCO file; categories are those classes that have their name in any case.

    An image record may have ``labelled_classes``, names of what was looked for in it, also of
    what is nowhere in the file; without, all categories of the file were.

    Args:
        path: a JSON file with images, annotations and categories.
        classes: of the artifact.
        class_map: category to class, where their names differ; in any case.

    Raises:
        GroundTruthError: if the file is missing, malformed or contradicts itself (naming the
            place), or has no class of the artifact, or if the map names what is nowhere.
    """
    content = _content(path)
    index = _index(path, content, classes, class_map or {})
    _check_entries(path, content, index)
    kinds = {entry["id"]: index.get(entry["name"].casefold()) for entry in content["categories"]}
    known = frozenset(kind for kind in kinds.values() if kind is not None)
    if not known:
        theirs = ", ".join(entry["name"] for entry in content["categories"]) or "none"
        raise GroundTruthError(
            f"{path} has no class of the artifact: its categories are {theirs}, the artifact's "
            f"classes {', '.join(classes)}; pass --class-map CATEGORY=CLASS for those that are "
            "meant, or rename them"
        )
    by_image: dict[int, list[dict[str, Any]]] = {entry["id"]: [] for entry in content["images"]}
    for place, annotation in enumerate(content["annotations"]):
        for key, ids in (("image_id", by_image), ("category_id", kinds)):
            if annotation[key] not in ids:
                raise _fault(
                    path,
                    f"annotations[{place}].{key}",
                    f"{annotation[key]} is the id of nothing in the file",
                )
        if kinds[annotation["category_id"]] is not None:
            by_image[annotation["image_id"]].append(annotation)
    images = {
        entry["file_name"]: _truth(entry, by_image[entry["id"]], kinds, index, known)
        for entry in content["images"]
    }
    if len(images) != len(content["images"]):
        raise GroundTruthError(f"{path}: two images have one file_name; correct the file")
    # Labelled classes need no category: none may have been found. Where one is misspelt, here
    # it shows.
    told = [name for entry in content["images"] for name in entry.get("labelled_classes", ())]
    told += [entry["name"] for entry in content["categories"]]
    unknown = {name.casefold(): name for name in told if name.casefold() not in index}
    return CocoFile(images, tuple(sorted(unknown.values())))


def _index(
    path: Path, content: Mapping[str, Any], classes: Sequence[str], class_map: Mapping[str, str]
) -> dict[str, int]:
    """Places of the classes by the names that the file may use for them, case folded."""
    index = {name.casefold(): place for place, name in enumerate(classes)}
    theirs = {entry["name"].casefold(): entry["name"] for entry in content["categories"]}
    for entry in content["images"]:
        for name in entry.get("labelled_classes", ()):
            theirs.setdefault(name.casefold(), name)
    mapped = {}
    for category, kind in class_map.items():
        if category.casefold() not in theirs:
            raise GroundTruthError(
                f"--class-map names {category}, which {path} does not have; its categories are "
                f"{', '.join(theirs.values()) or 'none'}"
            )
        if kind.casefold() not in index:
            raise GroundTruthError(
                f"--class-map names {kind}, which is no class of the artifact; expected one of "
                f"{', '.join(classes)}"
            )
        mapped[category.casefold()] = index[kind.casefold()]
    return index | mapped


def _check_entries(path: Path, content: Mapping[str, Any], index: Mapping[str, int]) -> None:
    """Refuse what is well-formed but cannot be meant."""
    for key in ("images", "categories"):
        seen: set[int] = set()
        for place, entry in enumerate(content[key]):
            if entry["id"] in seen:
                raise _fault(path, f"{key}[{place}].id", f"{entry['id']} is used twice")
            seen.add(entry["id"])
    names = {entry["id"]: entry["name"] for entry in content["categories"]}

    def meant(name: str) -> str | int:
        return index.get(name.casefold(), name.casefold())

    labelled = {
        entry["id"]: set(map(meant, entry["labelled_classes"]))
        for entry in content["images"]
        if "labelled_classes" in entry
    }
    for place, annotation in enumerate(content["annotations"]):
        x_y_w_h = annotation["bbox"]
        x, y, width, height = x_y_w_h
        # Also false for NaN, which Python's JSON takes.
        if not all(abs(n) <= _LARGEST for n in (*x_y_w_h, x + width, y + height)):
            reason = f"{x_y_w_h} has a number that is not finite or no float32 holds"
        elif width <= 0 or height <= 0:
            reason = f"{x_y_w_h} (x, y, width, height) must have a width and height above 0"
        else:
            reason = ""
        if reason:
            raise _fault(path, f"annotations[{place}].bbox", reason)
        name, image = names.get(annotation["category_id"]), annotation["image_id"]
        # Most likely a name misspelt there, for which the class would silently not be measured.
        if name is not None and meant(name) not in labelled.get(image, {meant(name)}):
            raise _fault(
                path,
                f"annotations[{place}].category_id",
                f"{name!r} is annotated, but not among labelled_classes of image {image}",
            )


def _fault(path: Path, where: str, reason: str) -> GroundTruthError:
    return GroundTruthError(f"{path}, $.{where}: {reason}; correct the file")


def _truth(
    image: Mapping[str, Any],
    annotations: Sequence[Mapping[str, Any]],
    kinds: Mapping[int, int | None],
    index: Mapping[str, int],
    known: frozenset[int],
) -> TruthBoxes:
    labelled = known
    if "labelled_classes" in image:
        names = (name.casefold() for name in image["labelled_classes"])
        labelled = frozenset(index[name] for name in names if name in index)
    x_y_w_h = np.array([a["bbox"] for a in annotations], np.float32).reshape(-1, 4)
    boxes = np.concatenate([x_y_w_h[:, :2], x_y_w_h[:, :2] + x_y_w_h[:, 2:]], axis=1)
    size = (image["height"], image["width"]) if {"height", "width"} <= image.keys() else None
    return TruthBoxes(
        boxes=boxes,
        classes=np.array([kinds[a["category_id"]] for a in annotations], np.int32),
        crowd=np.array([a.get("iscrowd", 0) for a in annotations], bool),
        labelled=labelled,
        size=size,
    )


def _content(path: Path) -> Any:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise GroundTruthError(
            f"no readable ground-truth file at {path} ({error.strerror}); expected COCO JSON"
        ) from error
    except ValueError as error:
        raise GroundTruthError(
            f"{path} is not valid JSON ({error}); expected a COCO file with images, annotations "
            "and categories"
        ) from error
    problem = best_match(_validator().iter_errors(content))
    if problem is not None:
        raise GroundTruthError(f"{path}, {problem.json_path}: {problem.message}; correct the file")
    return content


@cache
def _validator() -> Draft202012Validator:
    return Draft202012Validator(_SCHEMA)
