"""From a message's bytes to the array an engine input takes, copying only where it must."""

from __future__ import annotations

import zlib
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mmfusion_ros.core.errors import ImageError
from mmfusion_ros.core.frames import SourceImage

# encoding: (dtype of one channel, channels)
_LAYOUTS: dict[str, tuple[str, int]] = {
    "rgb8": ("u1", 3),
    "bgr8": ("u1", 3),
    "rgba8": ("u1", 4),
    "bgra8": ("u1", 4),
    "mono8": ("u1", 1),
    "8UC1": ("u1", 1),
    "mono16": ("u2", 1),
    "16UC1": ("u2", 1),
    "32FC1": ("f4", 1),
}
_FINGERPRINT_SAMPLES = 4096


def view(image: SourceImage) -> NDArray[Any]:
    """A raw image as an array, without copying pixels.

    Args:
        image: not compressed.

    Returns:
        Read-only (H, W) or (H, W, C) in the message's byte order; padded rows are strided over.

    Raises:
        ImageError: if the encoding is unknown or the buffer is shorter than it claims.
    """
    try:
        kind, channels = _LAYOUTS[image.encoding]
    except KeyError:
        raise ImageError(
            f"encoding {image.encoding!r} is not supported; expected one of {', '.join(_LAYOUTS)}"
        ) from None
    dtype = np.dtype(f"{'>' if image.is_bigendian else '<'}{kind}")
    row = image.width * channels * dtype.itemsize
    pixels = np.frombuffer(image.data, np.uint8)
    if image.height < 1 or image.width < 1 or image.step < row:
        raise ImageError(
            f"{image.width}x{image.height} {image.encoding} with step {image.step} is impossible; "
            f"expected a step of at least {row} bytes"
        )
    # The last row need not be padded.
    needed = image.step * (image.height - 1) + row
    if pixels.size < needed:
        raise ImageError(
            f"truncated: {pixels.size} bytes for {image.width}x{image.height} {image.encoding} "
            f"with step {image.step}; expected {needed}"
        )
    rows = np.lib.stride_tricks.as_strided(
        pixels, (image.height, row), (image.step, 1), writeable=False
    )
    array = rows.view(dtype)
    return array.reshape(image.height, image.width, channels) if channels > 1 else array


def to_encoding(image: SourceImage, encoding: str) -> NDArray[Any]:
    """An image in the encoding an engine input takes.

    Args:
        image: raw or compressed.
        encoding: rgb8, mono8, mono16, 16UC1 or 32FC1.

    Returns:
        C-contiguous array for the graph: uint8 (H, W, 3) for rgb8, uint8 (H, W, 1) for mono8,
        little-endian byte pairs uint8 (H, W, 2) for mono16 and 16UC1, float32 (H, W) for 32FC1.
        A view of the message where its layout allows.

    Raises:
        ImageError: if the image is damaged or cannot be expressed in ``encoding`` without loss.
    """
    pixels, source = _decode(image) if image.compressed else (view(image), image.encoding)
    if encoding == "rgb8":
        return np.ascontiguousarray(_to_rgb(pixels, source))
    if encoding == "32FC1":
        return np.ascontiguousarray(_to_metres(pixels), dtype=np.float32)
    if encoding in {"mono16", "16UC1"}:
        if pixels.ndim != 2 or pixels.dtype.kind != "u":
            raise ImageError(_misfit(source, encoding, "mono16, 16UC1 or mono8"))
        counts = np.ascontiguousarray(pixels, dtype="<u2")
        return counts.view(np.uint8).reshape(*counts.shape, 2)
    if encoding == "mono8":
        if pixels.ndim != 2 or pixels.dtype != np.uint8:
            raise ImageError(_misfit(source, encoding, "mono8"))
        return np.ascontiguousarray(pixels)[..., None]
    raise ImageError(f"no input takes encoding {encoding!r}")


def fingerprint(image: SourceImage) -> int:
    """Cheap digest of the picture, equal for repeated frames.

    Looks at a few thousand evenly spread bytes of the pixels, never at row padding, which is
    uninitialised memory. A damaged image has the digest of what is there.
    """
    data = np.frombuffer(image.data, np.uint8)
    if image.compressed:
        return zlib.crc32(data.data)
    try:
        pixels = view(image)
    except ImageError:
        return zlib.crc32(data.data)
    stride = max(1, int((pixels.size / _FINGERPRINT_SAMPLES) ** 0.5))
    return zlib.crc32(np.ascontiguousarray(pixels[::stride, ::stride]).data)


def _decode(image: SourceImage) -> tuple[NDArray[Any], str]:
    pixels = cv2.imdecode(np.frombuffer(image.data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ImageError(
            f"a compressed image ({image.encoding}) of {len(image.data)} bytes cannot be decoded; "
            "expected a complete JPEG or PNG file"
        )
    if pixels.ndim == 2:
        return pixels, "mono16" if pixels.dtype == np.uint16 else "mono8"
    return pixels, "bgra8" if pixels.shape[2] == 4 else "bgr8"


def _to_rgb(pixels: NDArray[Any], source: str) -> NDArray[Any]:
    if source == "rgb8":
        return pixels
    if source in {"bgr8", "bgra8"}:
        return pixels[..., 2::-1]
    if source == "rgba8":
        return pixels[..., :3]
    if source in {"mono8", "8UC1"}:
        return np.repeat(pixels[..., None], 3, axis=2)
    raise ImageError(_misfit(source, "rgb8", "an 8-bit colour or mono8 image"))


def _to_metres(pixels: NDArray[Any]) -> NDArray[Any]:
    # REP 118: integer depth is in millimetres, 0 invalid; float depth in metres, NaN invalid.
    if pixels.dtype.kind == "f":
        return pixels
    if pixels.dtype.itemsize != 2:
        raise ImageError(_misfit("mono8", "32FC1", "16UC1 or 32FC1"))
    metres = pixels.astype(np.float32) / 1000
    return np.where(pixels == 0, np.float32("nan"), metres)


def _misfit(source: str, encoding: str, expected: str) -> str:
    return f"a {source} image cannot stand for {encoding}; expected {expected}"
