"""Depth in compressedDepth messages comes out as it went in, and damage is refused."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfusion_ros.core.errors import ImageError
from mmfusion_ros.core.frames import SourceImage
from mmfusion_ros.core.images import decode, to_encoding


def message(body: bytes, image_format: str, a: float = 0.0, b: float = 0.0) -> SourceImage:
    return SourceImage(struct.pack("<iff", 0, a, b) + body, 0, 0, image_format, 0, compressed=True)


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def rvl(pixels: np.ndarray) -> bytes:
    """The coder of Wilson's paper, number by number."""
    nibbles: list[int] = []

    def put(value: int) -> None:
        while True:
            nibble, value = value & 7, value >> 3
            nibbles.append(nibble | (8 if value else 0))
            if not value:
                return

    flat, at, previous = pixels.reshape(-1).astype(int).tolist(), 0, 0
    while at < len(flat):
        begin = at
        while at < len(flat) and flat[at] == 0:
            at += 1
        put(at - begin)
        begin = at
        while at < len(flat) and flat[at] != 0:
            at += 1
        put(at - begin)
        for value in flat[begin:at]:
            delta, previous = value - previous, value
            put(2 * delta if delta >= 0 else -2 * delta - 1)
    nibbles += [0] * (-len(nibbles) % 8)
    words = [
        sum(nibble << (28 - 4 * place) for place, nibble in enumerate(nibbles[first : first + 8]))
        for first in range(0, len(nibbles), 8)
    ]
    height, width = pixels.shape
    return struct.pack(f"<II{len(words)}I", width, height, *words)


depths = st.tuples(st.integers(1, 7), st.integers(1, 9), st.integers(0, 2**16)).map(
    lambda drawn: (
        np.random.default_rng(drawn[2]).integers(0, 2**16, drawn[:2]).astype(np.uint16)
        * np.random.default_rng(drawn[2] + 1).integers(0, 2, drawn[:2]).astype(np.uint16)
    )
)


@settings(max_examples=100, deadline=None)
@given(pixels=depths, kind=st.sampled_from(["png", "rvl"]))
def test_millimetres_come_out_as_they_went_in(pixels, kind):
    body = png(pixels) if kind == "png" else rvl(pixels)
    found, encoding = decode(message(body, f"16UC1; compressedDepth {kind}"))
    assert encoding == "16UC1"
    np.testing.assert_array_equal(found, pixels)


def test_the_oldest_format_names_no_compression():
    pixels = np.arange(12, dtype=np.uint16).reshape(3, 4)
    found, _ = decode(message(png(pixels), "16UC1; compressedDepth"))
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("pixels", [np.zeros((480, 640), np.uint16), np.full((2, 3), 65535)])
def test_rvl_of_uniform_images(pixels):
    found, _ = decode(message(rvl(pixels), "16UC1; compressedDepth rvl"))
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("kind", ["png", "rvl"])
def test_metres_are_quantised_inverse_depth(kind):
    metres = np.array([[0.5, 1.0, 2.0], [4.0, 8.0, np.nan]], np.float32)
    quantum, furthest = 100.0, 10.0
    a = quantum * (quantum + 1)
    b = 1 - a / furthest
    with np.errstate(invalid="ignore"):
        quantised = np.where(np.isnan(metres), 0, a / metres + b).astype(np.uint16)
    body = png(quantised) if kind == "png" else rvl(quantised)
    image = message(body, f"32FC1; compressedDepth {kind}", a, b)
    found, encoding = decode(image)
    assert (encoding, found.dtype) == ("32FC1", np.float32)
    np.testing.assert_allclose(found, metres, rtol=1e-3)
    np.testing.assert_array_equal(to_encoding(image, "32FC1"), found)


def test_millimetres_for_an_input_in_metres_and_of_bytes():
    pixels = np.array([[0, 1500]], np.uint16)
    image = message(png(pixels), "16UC1; compressedDepth png")
    np.testing.assert_array_equal(to_encoding(image, "32FC1"), [[np.nan, np.float32(1.5)]])
    np.testing.assert_array_equal(to_encoding(image, "16UC1").view("<u2")[..., 0], pixels)


GOOD = np.arange(1, 61, dtype=np.uint16).reshape(6, 10)


@pytest.mark.parametrize(
    ("body", "image_format", "reason"),
    [
        (b"", "16UC1; compressedDepth png", "cannot be decoded; expected a header"),
        (png(GOOD)[:-40], "16UC1; compressedDepth png", "cannot be decoded"),
        (png(GOOD.astype(np.uint8)), "16UC1; compressedDepth png", "16-bit grey PNG"),
        (b"\x00\x01", "16UC1; compressedDepth rvl", "holds 2 bytes"),
        (struct.pack("<II", 0, 4), "16UC1; compressedDepth rvl", "a size of 0x4"),
        (struct.pack("<II", 2**31, 2**31), "16UC1; compressedDepth rvl", "a size of 2147483648x"),
        (rvl(GOOD)[:12], "16UC1; compressedDepth rvl", "expected complete RVL data"),
        (struct.pack("<II", 6, 10) + b"\xff" * 16, "16UC1; compressedDepth rvl", "0 of 60 pixels"),
        (
            struct.pack("<II", 6, 10) + b"\xff" * 16 + bytes(4),
            "16UC1; compressedDepth rvl",
            "more than 30 bits",
        ),
        (png(GOOD), "8UC3; compressedDepth png", "expected 16UC1 or 32FC1"),
    ],
)
def test_damage_is_refused(body, image_format, reason):
    with pytest.raises(ImageError, match=reason):
        decode(message(body, image_format))


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=80), kind=st.sampled_from(["png", "rvl"]))
def test_any_bytes_are_read_or_refused(data, kind):
    image = SourceImage(data, 0, 0, f"32FC1; compressedDepth {kind}", 0, compressed=True)
    try:
        pixels, _ = decode(image)
    except ImageError:
        return
    assert pixels.ndim == 2
