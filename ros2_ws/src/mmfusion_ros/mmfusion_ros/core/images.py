"""From a message's bytes to the array an engine input takes, copying only where it must."""

from __future__ import annotations

import zlib
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mmfusion_ros.core.compressed_depth import decode_compressed_depth, is_compressed_depth
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
# What decoded files are; OpenCV gives colour as BGR.
_DECODED = {
    ("uint8", 1): "mono8",
    ("uint16", 1): "mono16",
    ("float32", 1): "32FC1",
    ("uint8", 3): "bgr8",
    ("uint8", 4): "bgra8",
}
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_JPEG_PADDING = 4096  # most bytes that are looked at behind the end of a JPEG
_FINGERPRINT_SAMPLES = 4096


def is_native(encoding: str) -> bool:
    """Whether raw images of an encoding are read without help."""
    return encoding in _LAYOUTS


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
            f"encoding {image.encoding!r} is not supported; expected one of {', '.join(_LAYOUTS)} "
            "(the node reads others where cv_bridge is installed, as on a full ROS 2)"
        ) from None
    dtype = np.dtype(f"{'>' if image.is_bigendian else '<'}{kind}")
    row = image.width * channels * dtype.itemsize
    pixels = np.frombuffer(image.data, np.uint8)
    if image.height < 1 or image.width < 1:
        raise ImageError(
            f"{image.width}x{image.height} pixels is no image; expected at least 1x1, check the "
            "camera driver"
        )
    if image.step < row:
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
    # From one row no step is taken: it may be any number, even none that fits a stride.
    step = image.step if image.height > 1 else row
    rows = np.lib.stride_tricks.as_strided(pixels, (image.height, row), (step, 1), writeable=False)
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
    if image.convert is not None:
        pixels, source = image.convert(encoding), encoding
    else:
        pixels, source = decode(image)
    if encoding == "rgb8":
        return np.ascontiguousarray(_to_rgb(pixels, source))
    if encoding == "32FC1":
        return np.require(_to_metres(pixels, source), np.float32, ["C", "ALIGNED"])
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


def decode(image: SourceImage) -> tuple[NDArray[Any], str]:
    """The pixels of a raw or compressed image and their encoding.

    Returns:
        Raw images as `view`; JPEG and PNG as bgr8, bgra8, mono8, mono16 or 32FC1;
        ``compressedDepth`` as 16UC1 or 32FC1.

    Raises:
        ImageError: if the image is damaged or of an unknown encoding.
    """
    if not image.compressed:
        return view(image), image.encoding
    data = np.frombuffer(image.data, np.uint8)
    if is_compressed_depth(image.encoding):
        return decode_compressed_depth(data, image.encoding)
    try:
        pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if _is_whole(data) else None
    except cv2.error:  # raised for a size beyond its limits, where other damage gives None
        pixels = None
    if pixels is None:
        raise ImageError(
            f"a compressed image ({image.encoding}) of {data.size} bytes cannot be decoded; "
            "expected a complete JPEG or PNG file"
        )
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    try:
        return pixels, _DECODED[pixels.dtype.name, channels]
    except KeyError:
        raise ImageError(
            f"a compressed image ({image.encoding}) holds {channels} channels of {pixels.dtype}; "
            "expected 8-bit grey or colour, or 16-bit grey"
        ) from None


def _is_whole(data: NDArray[np.uint8]) -> bool:
    # OpenCV 4 fills the rows that a cut JPEG lacks with grey and says nothing.
    is_jpeg = data[:2].tobytes() == _JPEG_START
    return data.size > 0 and (not is_jpeg or _JPEG_END in data[-_JPEG_PADDING:].tobytes())


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


def _to_metres(pixels: NDArray[Any], source: str) -> NDArray[Any]:
    # REP 118: integer depth is in millimetres, 0 invalid; float depth in metres, NaN invalid.
    if pixels.dtype.kind == "f":
        return pixels
    if pixels.dtype.itemsize != 2:
        raise ImageError(_misfit(source, "32FC1", "16UC1 or 32FC1"))
    metres = pixels.astype(np.float32) / 1000
    return np.where(pixels == 0, np.float32("nan"), metres)


def _misfit(source: str, encoding: str, expected: str) -> str:
    return f"a {source} image cannot stand for {encoding}; expected {expected}"
