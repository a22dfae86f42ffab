"""Folders of RGB pictures with registered depth and a saliency mask."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mmfusion.errors import DataError
from mmfusion.relative_depth import DepthReading, millimetres_by_level
from mmfusion.train.faults import Faults, listed
from mmfusion.train.folders import find_images, match_stems
from mmfusion.train.image_files import read_headers, read_image
from mmfusion.train.lazy import Entry, LazySequence

_FOLDERS = {"colour": ("rgb",), "depth": ("depth",), "mask": ("gt",)}
_LEFT_OUT = DepthReading()
_EXPECTED = (
    "expected millimetres, as grey 16-bit PNG, or a network whose recipe has relative_depth "
    "near_bright or near_dark"
)
_TINT = 16  # grey levels between channels that may still be grey, after JPEG


@dataclass(frozen=True)
class Scene:
    """One sample.

    Attributes:
        name: file stem.
        rgb: uint8 (H, W, 3).
        depth: uint16 (H, W), millimetres, 0 = unknown.
        mask: uint8 (H, W), 255 on what stands out.
    """

    name: str
    rgb: NDArray[np.uint8]
    depth: NDArray[np.uint16]
    mask: NDArray[np.uint8]


def load_scenes(folders: Sequence[Path], reading: DepthReading = _LEFT_OUT) -> LazySequence[Scene]:
    """Take every sample of some folders with subfolders ``rgb``, ``depth`` and ``gt``.

    The names may have any case (``RGB``, ``GT``). Files are looked at now and decoded when used.

    Args:
        folders: of samples.
        reading: what becomes of samples whose depth has 8 bits; if they are left out, a warning
            says how many. Grey in several channels, as JPEG and BMP often are, is grey.

    Raises:
        DataError: if a subfolder is missing, files have no partner, images are unreadable or
            the pictures of a sample differ in size: all that is wrong in all folders; or for
            what `millimetres_by_level` raises it. A file may turn out to be damaged inside, or
            depth to be no grey picture, only when it is used.
    """
    millimetres = millimetres_by_level(reading)
    faults = Faults()
    found = [sample for folder in folders for sample in _match(folder, faults)]
    headers = read_headers((path for _, _, *paths in found for path in paths), faults)
    entries = []
    relative = 0
    for folder, stem, *paths in found:
        if not headers.keys() >= set(paths):
            continue
        colour, depth, mask = (headers[path] for path in paths)
        if millimetres is None and not depth.sixteen_bit:
            relative += 1
            continue
        if not colour.size == depth.size == mask.size:
            faults.add(
                f"sample {stem} in {folder}: colour is {colour.size}, depth {depth.size}, mask "
                f"{mask.size}",
                "a registered sample has one size",
            )
        by_level = None if depth.sixteen_bit else millimetres
        entries.append(Entry(stem, colour.size, partial(_read_scene, stem, by_level, *paths)))
    faults.complain()
    where = listed(map(str, folders))
    if not entries:
        raise DataError(
            f"no sample with 16-bit depth in {where}: all {relative} have 8-bit depth, which is "
            f"relative; {_EXPECTED}"
        )
    if relative:
        warnings.warn(
            f"{relative} of {relative + len(entries)} samples in {where} are left out: their "
            f"depth has 8 bits and is relative; {_EXPECTED}",
            stacklevel=2,
        )
    return LazySequence(entries)


def _match(folder: Path, faults: Faults) -> list[tuple[Path, str, Path, Path, Path]]:
    """Folder, stem and colour, depth and mask files of the samples that are whole."""
    kinds = {kind: find_images(folder, kind, names, faults) for kind, names in _FOLDERS.items()}
    colour, depth, mask = kinds.values()
    if colour is None or depth is None or mask is None:
        return []
    stems = match_stems(
        folder,
        {"colour": colour, "depth": depth, "mask": mask},
        "samples lack colour, depth or mask",
        faults,
    )
    return [(folder, stem, colour[stem], depth[stem], mask[stem]) for stem in stems]


def _read_scene(
    stem: str, millimetres: NDArray[np.uint16] | None, colour: Path, depth: Path, mask: Path
) -> Scene:
    return Scene(
        stem,
        np.ascontiguousarray(read_image(colour, cv2.IMREAD_COLOR)[..., ::-1]),
        read_image(depth, cv2.IMREAD_UNCHANGED)
        if millimetres is None
        else millimetres[_read_levels(depth)],
        read_image(mask, cv2.IMREAD_GRAYSCALE),
    )


def _read_levels(path: Path) -> NDArray[np.uint8]:
    """Grey levels (H, W) of relative depth."""
    picture = read_image(path, cv2.IMREAD_UNCHANGED)
    if picture.dtype != np.uint8:
        raise DataError(
            f"depth {path} is {picture.dtype} of shape {picture.shape}; expected 8 or 16 bits, grey"
        )
    if picture.ndim == 2:
        return picture
    blue, green, red = cv2.split(picture)[:3]
    if max(cv2.absdiff(blue, green).max(), cv2.absdiff(green, red).max()) > _TINT:
        raise DataError(
            f"depth {path} is coloured; expected grey levels, from near to far or from far to near"
        )
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), np.uint8)
