"""A picture as a camera's driver sends it: its encoding, row padding, compression, damage."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mmfusion_ros.core.errors import ImageError
from mmfusion_ros.core.frames import Modality, SourceImage
from mmfusion_ros.core.playback import Picture
from mmfusion_ros.core.transports import COMPRESSED, COMPRESSED_DEPTH, RAW

_PADDING_BYTE = 0xA5
_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1]  # a driver has no time for more
# Quantisation of compressed_depth_image_transport with its default parameters.
_DEPTH_MAX_M = 10.0
_DEPTH_A = 100.0 * (100.0 + 1.0)
_DEPTH_B = 1.0 - _DEPTH_A / _DEPTH_MAX_M
_INVERSE_DEPTH = 0  # its only format


def _grey(pixels: NDArray[Any]) -> NDArray[Any]:
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)


def _metres(pixels: NDArray[Any]) -> NDArray[Any]:
    return np.where(pixels == 0, np.float32("nan"), pixels.astype(np.float32) / 1000)


def _stretched(pixels: NDArray[Any]) -> NDArray[Any]:
    """Counts to grey levels, as a thermal camera with automatic gain does it."""
    low, high = int(pixels.min()), int(pixels.max())
    return cv2.convertScaleAbs(pixels - low, alpha=255 / max(1, high - low))


# What a picture can be sent as, by what it is.
_CONVERSIONS: dict[tuple[str, str], Callable[[NDArray[Any]], NDArray[Any]]] = {
    ("rgb8", "bgr8"): lambda pixels: cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR),
    ("rgb8", "rgba8"): lambda pixels: cv2.cvtColor(pixels, cv2.COLOR_RGB2RGBA),
    ("rgb8", "bgra8"): lambda pixels: cv2.cvtColor(pixels, cv2.COLOR_RGB2BGRA),
    ("rgb8", "mono8"): _grey,
    ("16UC1", "32FC1"): _metres,
    ("mono16", "16UC1"): lambda pixels: pixels,
    ("mono16", "mono8"): _stretched,
}
ENCODINGS: dict[Modality, tuple[str, ...]] = {
    Modality.RGB: ("rgb8", "bgr8", "rgba8", "bgra8", "mono8"),
    Modality.DEPTH: ("16UC1", "32FC1"),
    Modality.THERMAL: ("mono16", "16UC1", "mono8"),
}


@dataclass(frozen=True)
class Sender:
    """Makes images of pictures.

    Attributes:
        transports: of `TRANSPORTS`, by camera; raw where none is given.
        encodings: of `ENCODINGS`, by camera; that of the picture where none is given.
        row_padding: bytes behind each row of a raw image.
    """

    transports: Mapping[Modality, str] = field(default_factory=dict)
    encodings: Mapping[Modality, str] = field(default_factory=dict)
    row_padding: int = 0

    def transport(self, modality: Modality) -> str:
        """How the pictures of a camera are sent."""
        return self.transports.get(modality, RAW)

    def image(self, picture: Picture) -> SourceImage:
        """A picture as it is sent.

        Raises:
            ImageError: if there is no such encoding of it.
        """
        pixels, encoding = picture.pixels, picture.encoding
        wanted = self.encodings.get(picture.modality, encoding)
        if wanted != encoding:
            if (encoding, wanted) not in _CONVERSIONS:
                raise ImageError(
                    f"{picture.modality} pictures are {encoding} and cannot be sent as {wanted}; "
                    f"leave out --encoding {picture.modality}={wanted}"
                )
            pixels, encoding = _CONVERSIONS[encoding, wanted](pixels), wanted
        transport = self.transport(picture.modality)
        if transport == COMPRESSED:
            image = _compressed(pixels, encoding)
        elif transport == COMPRESSED_DEPTH:
            image = _compressed_depth(pixels, encoding)
        else:
            image = self._raw(pixels, encoding)
        return _shortened(image, picture.sent)

    def _raw(self, pixels: NDArray[Any], encoding: str) -> SourceImage:
        height, width = pixels.shape[:2]
        data = np.ascontiguousarray(pixels).view(np.uint8).reshape(height, -1)
        if self.row_padding:
            padding = ((0, 0), (0, self.row_padding))
            data = np.pad(data, padding, constant_values=_PADDING_BYTE)
        return SourceImage(data.reshape(-1), height, width, encoding, data.shape[1])


def _compressed(pixels: NDArray[Any], encoding: str) -> SourceImage:
    """As compressed_image_transport writes it: JPEG for 8 bits, PNG for 16."""
    if pixels.dtype == np.uint16:
        return _file(_encode(".png", pixels, _PNG), f"{encoding}; png compressed ")
    if pixels.dtype != np.uint8:
        raise ImageError(f"{encoding} images cannot be compressed; send them raw")
    if pixels.ndim == 2:
        return _file(_encode(".jpg", pixels, []), f"{encoding}; jpeg compressed ")
    to_bgr = {"rgb8": cv2.COLOR_RGB2BGR, "rgba8": cv2.COLOR_RGBA2BGR, "bgra8": cv2.COLOR_BGRA2BGR}
    if encoding in to_bgr:
        pixels = cv2.cvtColor(pixels, to_bgr[encoding])
    return _file(_encode(".jpg", pixels, []), f"{encoding}; jpeg compressed bgr8")


def _compressed_depth(pixels: NDArray[Any], encoding: str) -> SourceImage:
    """As compressed_depth_image_transport writes it: 12 bytes of header and a PNG of 16 bits.

    It holds millimetres for 16UC1; for 32FC1 the inverse depth, quantised with the two numbers
    of the header, zero for none.
    """
    numbers = (0.0, 0.0)
    if encoding == "32FC1":
        numbers = (_DEPTH_A, _DEPTH_B)
        known = np.isfinite(pixels) & (pixels > 0) & (pixels < _DEPTH_MAX_M)
        inverse = _DEPTH_A / np.where(known, pixels, 1.0) + _DEPTH_B
        pixels = np.where(known, np.clip(np.rint(inverse), 1, 65535), 0).astype(np.uint16)
    elif encoding != "16UC1":
        raise ImageError(f"{encoding} images are no depth; send them raw or compressed")
    header = struct.pack("<iff", _INVERSE_DEPTH, *numbers)
    return _file(header + _encode(".png", pixels, _PNG), f"{encoding}; compressedDepth png")


def _encode(suffix: str, pixels: NDArray[Any], options: list[int]) -> bytes:
    return bytes(cv2.imencode(suffix, pixels, options)[1].data)


def _file(data: bytes, form: str) -> SourceImage:
    return SourceImage(np.frombuffer(data, np.uint8), 0, 0, form, 0, compressed=True)


def _shortened(image: SourceImage, share: float) -> SourceImage:
    if share >= 1:
        return image
    data = image.data[: int(len(image.data) * share)]
    return SourceImage(
        data, image.height, image.width, image.encoding, image.step, compressed=image.compressed
    )
