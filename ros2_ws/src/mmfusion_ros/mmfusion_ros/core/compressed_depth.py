"""Depth images as the ``compressedDepth`` transport carries them.

A header of twelve bytes, then a PNG file or RVL data. 16UC1 images are in there as they are; of
32FC1 images the inverse depth is, quantised to 16 bits. RVL: Wilson, "Fast Lossless Depth Image
Compression", ISS 2017.
"""

from __future__ import annotations

import struct
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mmfusion_ros.core.errors import ImageError

MARK = "compressedDepth"

_HEADER = struct.Struct("<iff")  # unused here; A and B of the quantisation
_RVL_SIZE = struct.Struct("<II")  # width, height
_PNG_START = b"\x89PNG"
_MOST_PIXELS = 1 << 26  # a damaged size must not ask for gigabytes
_LONGEST_NUMBER = 10  # nibbles of three bits, the most that a 30-bit number takes


def is_compressed_depth(image_format: str) -> bool:
    """Whether the ``format`` of a ``sensor_msgs/CompressedImage`` names this transport."""
    return MARK in image_format


def decode_compressed_depth(data: NDArray[np.uint8], image_format: str) -> tuple[NDArray[Any], str]:
    """The depth image in a message of the transport.

    Args:
        data: uint8 (n,), of a ``sensor_msgs/CompressedImage``.
        image_format: its format, like "16UC1; compressedDepth png".

    Returns:
        (image, encoding): uint16 (H, W) millimetres and 16UC1, or float32 (H, W) metres (NaN
        where nothing was measured) and 32FC1.

    Raises:
        ImageError: if the data is damaged or of another kind.
    """
    encoding = image_format.partition(";")[0].strip()
    if encoding not in {"16UC1", "mono16", "32FC1"}:
        raise ImageError(
            f"a compressedDepth image of format {image_format!r} is not supported; expected 16UC1 "
            "or 32FC1"
        )
    body = data[_HEADER.size :]
    pixels = _decode_rvl(body) if "rvl" in image_format.lower() else _decode_png(body)
    if encoding != "32FC1":
        return pixels, "16UC1"
    _, a, b = _HEADER.unpack_from(data.data)
    with np.errstate(divide="ignore", invalid="ignore"):
        metres = np.float32(a) / (pixels.astype(np.float32) - np.float32(b))
    return np.where(pixels == 0, np.float32("nan"), metres), "32FC1"


def _decode_png(body: NDArray[np.uint8]) -> NDArray[np.uint16]:
    pixels = None
    if body[:4].tobytes() == _PNG_START:
        try:
            pixels = cv2.imdecode(body, cv2.IMREAD_UNCHANGED)
        except cv2.error:  # raised for a size beyond its limits, where other damage gives None
            pixels = None
    if pixels is None or pixels.ndim != 2 or pixels.dtype != np.uint16:
        raise ImageError(
            f"a compressedDepth image of {body.size} bytes cannot be decoded; expected a header of "
            f"{_HEADER.size} bytes and a 16-bit grey PNG file"
        )
    return np.asarray(pixels, np.uint16)


def _decode_rvl(body: NDArray[np.uint8]) -> NDArray[np.uint16]:
    if body.size < _RVL_SIZE.size:
        raise _damaged_rvl(f"{body.size} bytes")
    width, height = _RVL_SIZE.unpack_from(body.data)
    if not 0 < width * height <= _MOST_PIXELS:
        raise _damaged_rvl(f"a size of {width}x{height}")
    numbers = _variable_length_numbers(body[_RVL_SIZE.size :])
    out = np.zeros(width * height, np.uint16)
    # The runs are found one by one, what is in them all at once.
    places: list[NDArray[np.intp]] = []
    deltas: list[NDArray[np.int64]] = []
    pixel = at = 0
    while pixel < out.size:
        if at + 2 > numbers.size:
            raise _damaged_rvl(f"{pixel} of {out.size} pixels")
        zeros, nonzeros = int(numbers[at]), int(numbers[at + 1])
        pixel, at = pixel + zeros, at + 2
        if pixel + nonzeros > out.size or at + nonzeros > numbers.size:
            raise _damaged_rvl(f"a run beyond the end at pixel {pixel}")
        places.append(np.arange(pixel, pixel + nonzeros))
        deltas.append(numbers[at : at + nonzeros])
        pixel, at = pixel + nonzeros, at + nonzeros
    zigzag = np.concatenate(deltas)
    # Even numbers are what is added, odd ones what is taken away; the sum wraps at 16 bits.
    out[np.concatenate(places)] = np.cumsum((zigzag >> 1) ^ -(zigzag & 1)).astype(np.uint16)
    return out.reshape(height, width)


def _variable_length_numbers(body: NDArray[np.uint8]) -> NDArray[np.int64]:
    """All numbers of an RVL stream: three bits a nibble, low ones first, the fourth for more."""
    # Words of 32 bits, least byte first, are read from their highest nibble on.
    ordered = body[: body.size // 4 * 4].view("<u4").astype(">u4").view(np.uint8)
    nibbles = np.empty(2 * ordered.size, np.uint8)
    nibbles[0::2], nibbles[1::2] = ordered >> 4, ordered & 0xF
    ends = np.flatnonzero(nibbles < 8)
    if not ends.size:
        return np.zeros(0, np.int64)
    starts = np.concatenate([[0], ends[:-1] + 1])
    numbers = (nibbles[starts] & 7).astype(np.int64)
    longer = np.flatnonzero(ends > starts)
    for place in range(1, _LONGEST_NUMBER):
        if not longer.size:
            return numbers
        numbers[longer] |= (nibbles[starts[longer] + place] & 7).astype(np.int64) << (3 * place)
        longer = longer[ends[longer] > starts[longer] + place]
    if longer.size:
        raise _damaged_rvl("a number of more than 30 bits")
    return numbers


def _damaged_rvl(found: str) -> ImageError:
    return ImageError(
        f"a compressedDepth image (RVL) holds {found}; expected complete RVL data, check the "
        "camera driver and the network"
    )
