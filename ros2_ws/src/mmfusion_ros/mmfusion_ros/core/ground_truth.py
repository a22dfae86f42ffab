"""Ground truth for the frames of a bag: which mask and which boxes belong to which stamp."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from mmfusion_ros.core.coco_boxes import TruthBoxes, read_coco
from mmfusion_ros.core.errors import GroundTruthError

T = TypeVar("T")

_NOT_SALIENT = 128  # up to here
_PNG_START = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class GroundTruth:
    """What is known about the frames of a bag, by the stamp of the RGB frame in nanoseconds.

    Attributes:
        masks: PNG files, all of the picture's size; None if none were given.
        boxes: what there is to detect; None if it was not given.
        unknown_categories: names in the file with the boxes that the artifact has no class for.
    """

    masks: Mapping[int, Path] | None = None
    boxes: Mapping[int, TruthBoxes] | None = None
    unknown_categories: tuple[str, ...] = ()

    def __contains__(self, stamp_ns: int) -> bool:
        return any(known is not None and stamp_ns in known for known in (self.masks, self.boxes))


def load_ground_truth(
    masks: Path | None,
    boxes: Path | None,
    *,
    stamps: Sequence[int | None],
    size: tuple[int, int],
    classes: Sequence[str],
    class_map: Mapping[str, str] | None = None,
) -> GroundTruth:
    """Read ground truth and find the frames it is about; see `associate`.

    Args:
        masks: folder of PNG masks, above 128 on the object; None for none.
        boxes: COCO file; None for none.
        stamps: of all RGB messages of the bag, in order.
        size: (height, width) of the pictures.
        classes: of the artifact.
        class_map: see `read_coco`.

    Raises:
        GroundTruthError: if something cannot be read, does not fit the pictures or cannot be
            told which frame it is about.
    """
    files = None if masks is None else associate(_masks(masks, size), stamps, f"{masks}: masks")
    if boxes is None:
        return GroundTruth(files)
    coco = read_coco(boxes, classes, class_map)
    for name, truth in coco.images.items():
        if truth.size is not None and truth.size != size:
            raise _wrong_size(f"{boxes}, image {name}", truth.size, size)
    images = {Path(name).stem: truth for name, truth in coco.images.items()}
    if len(images) != len(coco.images):
        raise GroundTruthError(
            f"{boxes}: two images differ in folder or suffix only; give each a name of its own"
        )
    return GroundTruth(files, associate(images, stamps, f"{boxes}: images"), coco.unknown)


def associate(truths: Mapping[str, T], stamps: Sequence[int | None], what: str) -> dict[int, T]:
    """Give each truth to a frame.

    Where all names are stamps in nanoseconds, each belongs to the frames with its stamp. Where
    none is, the k-th name belongs to the k-th message; digits in names count as numbers, so that
    ``frame10`` comes behind ``frame2``.

    Args:
        truths: by name.
        stamps: of all RGB messages of the bag, in order; None for one that is no image.
        what: is associated, for messages.

    Returns:
        By stamp.

    Raises:
        GroundTruthError: if some names are stamps but others are not, two are the same stamp,
            or the order decides and there are not as many names as messages, or stamps repeat.
    """
    by_digits = {str(stamp): stamp for stamp in stamps if stamp is not None}
    met = {name: by_digits[digits] for name in truths if (digits := _number(name)) in by_digits}
    if met:
        _check_stamps(truths, met, what)
        return {stamp: truths[name] for name, stamp in met.items()}
    advice = "name each after the stamp of its RGB image in nanoseconds"
    if len(truths) != len(stamps):
        raise GroundTruthError(
            f"{what}: {len(truths)}, but the bag has {len(stamps)} RGB messages; expected one for "
            f"each, in the order of the names, or {advice}"
        )
    known = [stamp for stamp in stamps if stamp is not None]
    if len(set(known)) != len(known):
        raise GroundTruthError(
            f"{what}: stamps of the bag's RGB images repeat, so that the order of the names does "
            f"not tell which one is meant; {advice}"
        )
    ordered = (truths[name] for name in sorted(truths, key=_natural))
    return {stamp: truth for stamp, truth in zip(stamps, ordered, strict=True) if stamp is not None}


def _check_stamps(truths: Mapping[str, object], met: Mapping[str, int], what: str) -> None:
    """Refuse names that are stamps only in part: neither stamp nor order tells whose they are."""
    others = sorted(truths.keys() - met.keys(), key=_natural)
    if others:
        raise GroundTruthError(
            f"{what}: {len(met)} of {len(truths)} names are stamps of RGB images of the bag, but "
            f"{others[0]!r} is not; expected all of them to be, or none; rename or remove the rest"
        )
    named: dict[int, str] = {}
    for name, stamp in met.items():
        if stamp in named:
            raise GroundTruthError(
                f"{what}: {named[stamp]!r} and {name!r} are the same stamp; remove one of them"
            )
        named[stamp] = name


def _number(digits: str) -> str:
    """A whole number without leading zeros, so that it can be compared however long it is."""
    return digits.lstrip("0") or digits[-1:]


def _natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """Sorts names with numbers in them as people count: 2 before 10."""
    # Text and runs of digits take turns, so like is compared with like.
    parts = [
        (len(_number(part)), _number(part)) if place % 2 else (0, part)
        for place, part in enumerate(re.split("([0-9]+)", name))
    ]
    return parts, name  # 1 and 01 are one number, but must not change places


def read_mask(path: Path) -> NDArray[np.uint8]:
    """A mask as uint8 (H, W).

    Raises:
        GroundTruthError: if the file is damaged, or marks something but nothing as salient.
    """
    pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if pixels is None:
        raise GroundTruthError(f"{path} cannot be decoded; expected a PNG mask")
    mask = np.asarray(pixels, np.uint8)
    brightest = int(mask.max(initial=0))
    # Masks of 0 and 1 are common; taken as they are, they would say that nothing is salient.
    if 0 < brightest <= _NOT_SALIENT:
        raise GroundTruthError(
            f"{path}: the brightest value is {brightest}, and what is salient must be above "
            f"{_NOT_SALIENT}; expected 0 and 255"
        )
    return mask


def _masks(folder: Path, size: tuple[int, int]) -> dict[str, Path]:
    if not folder.is_dir():
        raise GroundTruthError(f"{folder} is no folder; expected one with a PNG mask per image")
    files = {path.stem: path for path in folder.iterdir() if path.suffix.lower() == ".png"}
    if not files:
        raise GroundTruthError(f"{folder} holds no .png files; expected a mask per image")
    for path in sorted(files.values()):
        found = _png_size(path)
        if found != size:
            raise _wrong_size(str(path), found, size)
    return files


def _png_size(path: Path) -> tuple[int, int]:
    """(height, width) from the head of a file, as decoding all of them takes long."""
    try:
        with path.open("rb") as file:
            head = file.read(24)
    except OSError as error:
        raise GroundTruthError(f"{path} cannot be read ({error.strerror})") from error
    if len(head) < 24 or not head.startswith(_PNG_START):
        raise GroundTruthError(f"{path} is no PNG file; expected a mask")
    width, height = struct.unpack(">II", head[16:])
    return height, width


def _wrong_size(where: str, found: tuple[int, int], size: tuple[int, int]) -> GroundTruthError:
    return GroundTruthError(
        f"{where} is {found[1]}x{found[0]}, but the RGB pictures are {size[1]}x{size[0]}; "
        "expected ground truth at the size of the pictures"
    )
