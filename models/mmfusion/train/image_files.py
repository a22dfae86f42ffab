"""Image files: a quick look at each, and their pixels."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from mmfusion.errors import DataError
from mmfusion.train.faults import Faults

_WHOLE_FILE = "expected a whole PNG or JPEG file"
_END = {"PNG": b"IEND", "JPEG": b"\xff\xd9"}
_TAIL = 4096  # bytes in which the end is looked for; some writers add a little after it


class Header(NamedTuple):
    """What a file says about its image before it is decoded.

    Attributes:
        size: (height, width) in pixels.
        sixteen_bit: whether it is grey with more than 8 bits.
    """

    size: tuple[int, int]
    sixteen_bit: bool


def read_headers(paths: Iterable[Path], faults: Faults) -> dict[Path, Header]:
    """Look at images without decoding them; a bar shows if that takes more than a second.

    Args:
        paths: of images.
        faults: is told of those that are unreadable, which are left out.
    """
    headers = {}
    paths = list(paths)
    for path in tqdm(paths, "checking", unit="image", delay=1, leave=False, dynamic_ncols=True):
        try:
            headers[path] = _read_header(path)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            faults.add(f"{path} is not a readable image", _WHOLE_FILE)
    return headers


def read_image(path: Path, mode: int) -> NDArray[Any]:
    """Decode an image as it lies in the file, whatever its EXIF orientation.

    Args:
        path: of the file.
        mode: as for `cv2.imdecode`.

    Raises:
        DataError: if the file is not a readable image.
    """
    try:
        data = np.fromfile(path, np.uint8)  # by way of memory: imread prints its own warnings
        # Not turned: what lies beside it (infrared, depth, masks, boxes) is not turned either.
        image: Any = cv2.imdecode(data, mode | cv2.IMREAD_IGNORE_ORIENTATION) if data.size else None
    except (OSError, cv2.error) as error:
        raise DataError(f"{path} is not a readable image: {error}") from error
    if image is None:
        raise DataError(f"{path} is not a readable image; {_WHOLE_FILE}")
    return np.asarray(image)


def _read_header(path: Path) -> Header:
    with path.open("rb") as file:
        with Image.open(file) as image:
            width, height = image.size
            header = Header((height, width), image.mode == "I" or image.mode.startswith("I;16"))
            if not _ends(image.format, path):
                image.load()
        return header


def _ends(kind: str | None, path: Path) -> bool:
    """Whether a file has the end of its format: a broken download has not."""
    if kind not in _END:
        return False
    with path.open("rb") as file:
        length = file.seek(0, 2)
        file.seek(max(0, length - _TAIL))
        return _END[kind] in file.read()
