"""Folders of RGB pictures with registered metric depth and a saliency mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mmfusion.errors import DataError
from mmfusion.train.pairs import files_by_stem

_FOLDERS = {"colour": ("rgb", "RGB"), "depth": ("depth",), "mask": ("gt", "GT")}


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


def load_scenes(folders: Sequence[Path]) -> list[Scene]:
    """Read every sample of some folders with subfolders ``rgb``, ``depth`` and ``gt``.

    Samples whose depth is not 16-bit (relative depth, no millimetres) are left out.

    Raises:
        DataError: if a subfolder is missing, files have no partner, an image is unreadable or
            the pictures of a sample differ in size; naming them.
    """
    scenes = []
    for folder in folders:
        colour, depth, mask = (_subfolder(folder, kind) for kind in _FOLDERS)
        unpaired = sorted((colour.keys() ^ depth.keys()) | (colour.keys() ^ mask.keys()))
        if unpaired:
            raise DataError(
                f"{folder}: {len(unpaired)} samples lack colour, depth or mask: "
                f"{', '.join(unpaired[:5])}{' ...' if len(unpaired) > 5 else ''}"
            )
        for stem in sorted(colour):
            millimetres = _read(depth[stem], cv2.IMREAD_UNCHANGED)
            if millimetres.dtype != np.uint16:
                continue
            rgb = _read(colour[stem], cv2.IMREAD_COLOR)[..., ::-1]
            grey = _read(mask[stem], cv2.IMREAD_GRAYSCALE)
            if not rgb.shape[:2] == millimetres.shape == grey.shape:
                raise DataError(
                    f"sample {stem} in {folder}: colour is {rgb.shape[:2]}, depth "
                    f"{millimetres.shape}, mask {grey.shape}; a registered sample has one size"
                )
            scenes.append(Scene(stem, np.ascontiguousarray(rgb), millimetres, grey))
    if not scenes:
        raise DataError(f"no sample with 16-bit depth in {', '.join(map(str, folders))}")
    return scenes


def _subfolder(folder: Path, kind: str) -> dict[str, Path]:
    names = _FOLDERS[kind]
    found = [folder / name for name in names if (folder / name).is_dir()]
    if not found:
        raise DataError(
            f"{folder} has no {kind} images: expected a subfolder named {' or '.join(names)}"
        )
    return files_by_stem(found[0])


def _read(path: Path, mode: int) -> NDArray[Any]:
    data = np.fromfile(path, np.uint8)  # by way of memory: imread prints its own warnings
    image: Any = cv2.imdecode(data, mode) if data.size else None
    if image is None:
        raise DataError(f"{path} is not a readable image; expected a whole PNG or JPEG file")
    return np.asarray(image)
