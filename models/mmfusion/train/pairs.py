"""Folders of registered infrared-visible pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mmfusion.graph.photometry import RANGE_TAIL
from mmfusion.train.faults import Faults
from mmfusion.train.folders import find_images, find_subfolder, match_stems
from mmfusion.train.image_files import read_headers, read_image
from mmfusion.train.lazy import Entry, LazySequence

_SIDES = {
    "infrared": ("ir", "infrared", "thermal", "inf"),
    "visible": ("vi", "visible", "rgb", "vis"),
}
# Beside these, RoadScene has its raw pictures as infrared and visible, which are not registered.
_ROADSCENE = {"infrared": ("cropinfrared",), "visible": ("crop_LR_visible",)}
_MIN_COUNTS = 50  # of range: half a kelvin of a camera that counts hundredths
_ONE_SIZE = "a registered pair has one size"

Found = tuple[str, Path, Path]


@dataclass(frozen=True)
class Pair:
    """One registered pair, 8-bit grey: infrared and visible luma, both (H, W)."""

    name: str
    infrared: NDArray[np.uint8]
    visible: NDArray[np.uint8]


def find_pairs(folder: Path) -> list[Found]:
    """List pairs of a folder with an infrared and a visible subfolder, matched by file stem.

    Args:
        folder: holds ``ir`` (or ``infrared``, ``thermal``, ``inf``) and ``vi`` (or ``visible``,
            ``rgb``, ``vis``), or ``cropinfrared`` and ``crop_LR_visible``, whatever their case:
            the layouts of M3FD, MSRS, RoadScene, TNO and LLVIP; see `find_images` for splits.
            Stems may begin with the name of their side, as ``IR1`` and ``VIS1`` of TNO.

    Returns:
        (stem, infrared path, visible path), sorted by stem.

    Raises:
        DataError: if a subfolder is missing, or files have no partner or more than one, naming
            them.
    """
    faults = Faults()
    pairs = match_pairs(folder, faults)
    faults.complain()
    return pairs


def match_pairs(folder: Path, faults: Faults) -> list[Found]:
    """As `find_pairs`, but tells ``faults`` what is wrong, and lists the pairs that are whole."""
    roadscene = find_subfolder(folder, _ROADSCENE["infrared"]) is not None
    names = _ROADSCENE if roadscene else _SIDES
    infrared, visible = (find_images(folder, side, names[side], faults) for side in names)
    if infrared is None or visible is None:
        return []
    if not infrared.keys() & visible.keys():
        bare = _bare(infrared, "infrared"), _bare(visible, "visible")
        infrared, visible = bare if bare[0].keys() & bare[1].keys() else (infrared, visible)
    stems = match_stems(
        folder,
        {"infrared": infrared, "visible": visible},
        "images have no partner in the other subfolder",
        faults,
    )
    return [(stem, infrared[stem], visible[stem]) for stem in stems]


def load_pairs(folders: Sequence[Path]) -> LazySequence[Pair]:
    """Take every pair of some folders; images are looked at now and decoded when used.

    Raises:
        DataError: as `find_pairs`, and if images are unreadable or pairs differ in size: all
            that is wrong in all folders. A file may turn out to be damaged inside only when it
            is used.
    """
    faults = Faults()
    found = [(folder, pair) for folder in folders for pair in match_pairs(folder, faults)]
    headers = read_headers((path for _, (_, *paths) in found for path in paths), faults)
    for folder, (stem, infrared, visible) in found:
        if infrared in headers and visible in headers:
            sizes = headers[infrared].size, headers[visible].size
            if sizes[0] != sizes[1]:
                faults.add(
                    f"pair {stem} in {folder}: infrared is {sizes[0]}, visible {sizes[1]}",
                    _ONE_SIZE,
                )
    faults.complain()
    return LazySequence(
        [Entry(pair[0], headers[pair[2]].size, partial(_read_pair, *pair)) for _, pair in found]
    )


def read_grey(path: Path) -> NDArray[np.uint8]:
    """Read an image as 8-bit grey (luma of colour images).

    Raises:
        DataError: if the file is not a readable image.
    """
    return read_image(path, cv2.IMREAD_GRAYSCALE).astype(np.uint8, copy=False)


def read_infrared(path: Path) -> NDArray[np.uint8]:
    """Read a thermal image (H, W); sixteen bits are brought to eight by `to_grey8`.

    Raises:
        DataError: if the file is not a readable image.
    """
    counts = read_image(path, cv2.IMREAD_ANYDEPTH)  # grey, 8 or 16 bits as in the file
    return counts if counts.dtype == np.uint8 else to_grey8(counts)


def to_grey8(counts: NDArray[Any]) -> NDArray[np.uint8]:
    """Counts (H, W) to 8 bits, by the range of all but the lowest and highest 0.5 %.

    The same range as a compiled graph settles on for a steady scene.
    """
    low, high = np.quantile(counts, (RANGE_TAIL, 1 - RANGE_TAIL))
    half = max((high - low) / 2, _MIN_COUNTS / 2)
    unit = (counts - ((low + high) / 2 - half)) / (2 * half)
    grey: NDArray[np.uint8] = np.rint(255 * unit.clip(0, 1)).astype(np.uint8)
    return grey


def _read_pair(stem: str, infrared: Path, visible: Path) -> Pair:
    return Pair(stem, read_infrared(infrared), read_grey(visible))


def _bare(files: Mapping[str, Path], side: str) -> dict[str, Path]:
    """Stems without the name of their side, if all have it: 1 for IR1 and VIS1 of TNO."""
    prefixes = sorted(_SIDES[side], key=len, reverse=True)
    bare: dict[str, Path] = {}
    for stem, path in files.items():
        rest = [stem[len(p) :].lstrip("_-") for p in prefixes if stem.lower().startswith(p)]
        if not rest or rest[0] in ("", *bare):
            return dict(files)
        bare[rest[0]] = path
    return bare
