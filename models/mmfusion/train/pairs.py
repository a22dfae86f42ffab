"""Folders of registered infrared-visible pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mmfusion.errors import DataError

_FOLDERS = {"infrared": ("ir", "infrared", "thermal"), "visible": ("vi", "visible", "rgb")}
_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}


@dataclass(frozen=True)
class Pair:
    """One registered pair, 8-bit grey: infrared and visible luma, both (H, W)."""

    name: str
    infrared: NDArray[np.uint8]
    visible: NDArray[np.uint8]


def find_pairs(folder: Path) -> list[tuple[str, Path, Path]]:
    """List pairs of a folder with an infrared and a visible subfolder, matched by file stem.

    Args:
        folder: holds ``ir`` (or ``infrared``, ``thermal``) and ``vi`` (or ``visible``, ``rgb``).

    Returns:
        (stem, infrared path, visible path), sorted by stem.

    Raises:
        DataError: if a subfolder is missing, or files have no partner or more than one, naming
            them.
    """
    sides = {}
    for side, names in _FOLDERS.items():
        found = [folder / name for name in names if (folder / name).is_dir()]
        if not found:
            raise DataError(
                f"{folder} has no {side} images: expected a subfolder named {' or '.join(names)}"
            )
        sides[side] = files_by_stem(found[0])
    infrared, visible = sides["infrared"], sides["visible"]
    unpaired = sorted(infrared.keys() ^ visible.keys())
    if unpaired:
        raise DataError(
            f"{folder}: {len(unpaired)} images have no partner in the other subfolder: "
            f"{', '.join(unpaired[:5])}{' ...' if len(unpaired) > 5 else ''}"
        )
    if not infrared:
        raise DataError(f"{folder} holds no images")
    return [(stem, infrared[stem], visible[stem]) for stem in sorted(infrared)]


def files_by_stem(folder: Path) -> dict[str, Path]:
    """The images of a folder by file stem.

    Raises:
        DataError: if two share a stem.
    """
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in _SUFFIXES:
            continue
        if path.stem in files:
            raise DataError(
                f"{folder} holds both {files[path.stem].name} and {path.name}; expected one image "
                f"named {path.stem}"
            )
        files[path.stem] = path
    return files


def load_pairs(folders: Sequence[Path]) -> list[Pair]:
    """Read every pair of some folders.

    Raises:
        DataError: as `find_pairs`, and if an image is unreadable or a pair differs in size.
    """
    pairs = []
    for folder in folders:
        for stem, infrared_path, visible_path in find_pairs(folder):
            infrared, visible = read_grey(infrared_path), read_grey(visible_path)
            if infrared.shape != visible.shape:
                raise DataError(
                    f"pair {stem} in {folder}: infrared is {infrared.shape}, visible "
                    f"{visible.shape}; a registered pair has one size"
                )
            pairs.append(Pair(stem, infrared, visible))
    return pairs


def read_grey(path: Path) -> NDArray[np.uint8]:
    """Read an image as 8-bit grey (luma of colour images).

    Raises:
        DataError: if the file is not a readable image.
    """
    try:
        data = np.fromfile(path, np.uint8)  # by way of memory: imread prints its own warnings
        image = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if data.size else None
    except (OSError, cv2.error) as error:
        raise DataError(f"{path} is not a readable image: {error}") from error
    if image is None:
        raise DataError(f"{path} is not a readable image; expected a whole PNG or JPEG file")
    return image.astype(np.uint8, copy=False)
