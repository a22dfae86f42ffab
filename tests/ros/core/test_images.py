"""A message's bytes become what an engine takes: right, uncopied where possible, or refused."""

from __future__ import annotations

import array
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfusion_ros.core.errors import ImageError
from mmfusion_ros.core.frames import SourceImage
from mmfusion_ros.core.images import fingerprint, to_encoding, view

CHANNELS = {
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
TARGETS = ("rgb8", "mono8", "mono16", "16UC1", "32FC1")


def row_bytes(encoding: str, width: int) -> int:
    kind, channels = CHANNELS[encoding]
    return width * channels * int(kind[1])


def random_image(
    encoding: str,
    height: int = 5,
    width: int = 7,
    padding: int = 0,
    *,
    seed: int = 0,
    is_bigendian: bool = False,
    unpadded_end: bool = False,
) -> SourceImage:
    step = row_bytes(encoding, width) + padding
    size = step * height - (padding if unpadded_end else 0)
    data = np.random.default_rng(seed).integers(0, 256, size, np.uint8).tobytes()
    return SourceImage(data, height, width, encoding, step, is_bigendian)


def naive(image: SourceImage) -> np.ndarray:
    """The definition of sensor_msgs/Image, pixel by pixel."""
    kind, channels = CHANNELS[image.encoding]
    code = (">" if image.is_bigendian else "<") + {"u1": "B", "u2": "H", "f4": "f"}[kind]
    size = int(kind[1])
    pixels = np.zeros((image.height, image.width, channels), kind)
    for y in range(image.height):
        for x in range(image.width):
            for c in range(channels):
                offset = y * image.step + (x * channels + c) * size
                pixels[y, x, c] = struct.unpack_from(code, image.data, offset)[0]
    return pixels if channels > 1 else pixels[..., 0]


def compressed(pixels: np.ndarray, suffix: str = ".png") -> SourceImage:
    encoded = cv2.imencode(suffix, pixels)[1].tobytes()
    return SourceImage(encoded, 0, 0, suffix.removeprefix("."), 0, compressed=True)


def damaged(data: bytes) -> SourceImage:
    return SourceImage(data, 0, 0, "jpeg", 0, compressed=True)


def test_view_of_an_empty_image_is_refused():
    for height, width in ((0, 0), (0, 4), (4, 0), (-1, 4), (4, -(2**31))):
        with pytest.raises(ImageError, match="is no image; expected at least 1x1"):
            view(SourceImage(b"", height, width, "rgb8", 12))
        with pytest.raises(ImageError, match="is no image"):
            view(SourceImage(bytes(100), height, width, "rgb8", 0))


@settings(max_examples=150, deadline=None)
@given(
    encoding=st.sampled_from(sorted(CHANNELS)),
    height=st.integers(1, 6),
    width=st.integers(1, 9),
    padding=st.integers(0, 9),
    seed=st.integers(0, 2**16),
    is_bigendian=st.booleans(),
    unpadded_end=st.booleans(),
)
def test_view_is_what_the_message_defines(encoding, height, width, padding, **how):
    image = random_image(encoding, height, width, padding, **how)
    pixels = view(image)
    np.testing.assert_array_equal(pixels, naive(image))
    assert np.shares_memory(pixels, np.frombuffer(image.data, np.uint8))
    assert not pixels.flags.writeable


@settings(max_examples=150, deadline=None)
@given(
    encoding=st.sampled_from(sorted(CHANNELS)),
    height=st.integers(-2, 6),
    width=st.integers(-2, 9),
    step=st.integers(-5, 60) | st.sampled_from([2**31, 2**32 - 1, 2**64]),
    size=st.integers(0, 300),
    target=st.sampled_from(TARGETS),
    compressed=st.booleans(),
)
def test_whatever_a_message_claims_it_is_read_or_refused(
    encoding, height, width, step, size, target, compressed
):
    image = SourceImage(bytes(size), height, width, encoding, step, compressed=compressed)
    fingerprint(image)
    try:
        pixels = to_encoding(image, target)
    except ImageError:
        return
    assert pixels.shape[:2] == (height, width)


@pytest.mark.parametrize("encoding", CHANNELS)
@pytest.mark.parametrize("padding", [0, 3])
def test_truncated_buffers_are_refused_to_the_byte(encoding, padding):
    image = random_image(encoding, padding=padding, unpadded_end=True)
    view(image)
    cut = SourceImage(image.data[:-1], 5, 7, encoding, image.step)
    size = len(image.data)
    with pytest.raises(ImageError, match=f"truncated: {size - 1} bytes .* expected {size}$"):
        view(cut)


def test_impossible_steps_are_refused():
    for step in (0, -21, 20):
        with pytest.raises(ImageError, match="is impossible; expected a step of at least 21 bytes"):
            view(SourceImage(bytes(1000), 2, 7, "rgb8", step))
    with pytest.raises(ImageError, match="truncated"):
        view(SourceImage(bytes(1000), 2, 7, "rgb8", 2**32 - 1))
    # Of one row, no step is taken.
    assert view(SourceImage(bytes(21), 1, 7, "rgb8", 2**64)).shape == (1, 7, 3)


def test_sizes_beyond_any_buffer_are_refused_without_allocating():
    with pytest.raises(ImageError, match="truncated"):
        view(SourceImage(bytes(10), 2**31, 2**31, "32FC1", 2**33))


@pytest.mark.parametrize("encoding", ["", "RGB8", "bayer_rggb8", "8UC3", "yuv422", "png"])
def test_unknown_encodings_are_refused_with_the_known_ones(encoding):
    message = rf"encoding '{encoding}' is not supported; expected one of rgb8, .*32FC1"
    with pytest.raises(ImageError, match=message):
        view(SourceImage(bytes(100), 2, 2, encoding, 10))


def test_any_buffer_will_do():
    image = random_image("rgb8", padding=2)
    expected = naive(image)
    for data in (
        array.array("B", image.data),
        bytearray(image.data),
        memoryview(image.data),
        np.frombuffer(image.data, np.uint8),
    ):
        pixels = view(SourceImage(data, 5, 7, "rgb8", image.step))
        np.testing.assert_array_equal(pixels, expected)
        assert np.shares_memory(pixels, np.frombuffer(data, np.uint8))


COLOUR_ORDER = {
    "rgb8": [0, 1, 2],
    "rgba8": [0, 1, 2],
    "bgr8": [2, 1, 0],
    "bgra8": [2, 1, 0],
    "mono8": [0, 0, 0],
    "8UC1": [0, 0, 0],
}


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("encoding", COLOUR_ORDER)
def test_colour_comes_as_rgb8(encoding, padding):
    image = random_image(encoding, padding=padding)
    source = naive(image).reshape(5, 7, -1)
    rgb = to_encoding(image, "rgb8")
    np.testing.assert_array_equal(rgb, source[..., COLOUR_ORDER[encoding]])
    assert rgb.dtype == np.uint8
    assert rgb.flags.c_contiguous


@pytest.mark.parametrize("target", ["mono16", "16UC1"])
@pytest.mark.parametrize("is_bigendian", [False, True])
@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("encoding", ["mono16", "16UC1", "mono8", "8UC1"])
def test_counts_come_as_little_endian_byte_pairs(encoding, padding, is_bigendian, target):
    image = random_image(encoding, padding=padding, is_bigendian=is_bigendian)
    pairs = to_encoding(image, target)
    assert pairs.dtype == np.uint8
    assert pairs.shape == (5, 7, 2)
    assert pairs.flags.c_contiguous
    joined = pairs[..., 0].astype(int) + 256 * pairs[..., 1].astype(int)
    np.testing.assert_array_equal(joined, naive(image))


@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
@pytest.mark.parametrize("padding", [0, 3])
def test_grey_comes_as_mono8(encoding, padding):
    image = random_image(encoding, padding=padding)
    grey = to_encoding(image, "mono8")
    np.testing.assert_array_equal(grey, naive(image)[..., None])
    assert grey.flags.c_contiguous


@pytest.mark.parametrize("is_bigendian", [False, True])
@pytest.mark.parametrize("padding", [0, 4, 3])
def test_metres_stay_metres(is_bigendian, padding):
    metres = np.array([[0.5, np.nan, np.inf], [1e-3, 65.0, -1.0]], ">f4" if is_bigendian else "<f4")
    data = b"".join(row.tobytes() + b"\xaa" * padding for row in metres)
    depth = to_encoding(SourceImage(data, 2, 3, "32FC1", 12 + padding, is_bigendian), "32FC1")
    np.testing.assert_array_equal(depth, metres)
    assert depth.dtype == np.dtype(np.float32)  # in native order
    assert depth.flags.c_contiguous


@pytest.mark.parametrize("encoding", ["16UC1", "mono16"])
def test_millimetres_become_metres_and_zero_invalid(encoding):
    data = np.array([[0, 1, 1000], [65535, 2500, 0]], "<u2").tobytes()
    depth = to_encoding(SourceImage(data, 2, 3, encoding, 6), "32FC1")
    expected = np.float32([[np.nan, 0.001, 1], [65.535, 2.5, np.nan]])
    np.testing.assert_array_equal(depth, expected)
    assert depth.dtype == np.float32


@pytest.mark.parametrize(
    ("encoding", "target"),
    [*((target, target) for target in TARGETS), ("8UC1", "mono8"), ("16UC1", "mono16")],
)
def test_fitting_layouts_are_not_copied(encoding, target):
    image = random_image(encoding, height=4, width=8)
    pixels = to_encoding(image, target)
    assert np.shares_memory(pixels, np.frombuffer(image.data, np.uint8))


def test_unaligned_floats_are_copied_into_place():
    metres = np.arange(6, dtype="<f4").reshape(2, 3)
    data = memoryview(b"\x00" + metres.tobytes())[1:]
    depth = to_encoding(SourceImage(data, 2, 3, "32FC1", 12), "32FC1")
    np.testing.assert_array_equal(depth, metres)
    assert depth.flags.aligned


REFUSED = [
    *[("rgb8", source) for source in ("mono16", "16UC1", "32FC1")],
    *[("mono8", source) for source in ("rgb8", "bgra8", "mono16", "16UC1", "32FC1")],
    *[("mono16", source) for source in ("rgb8", "bgr8", "32FC1")],
    *[("16UC1", source) for source in ("rgba8", "32FC1")],
    *[("32FC1", source) for source in ("rgb8", "bgra8", "mono8", "8UC1")],
]


@pytest.mark.parametrize(("target", "encoding"), REFUSED)
def test_lossy_conversions_are_refused_naming_both(target, encoding):
    message = f"^a {encoding} image cannot stand for {target}; expected "
    with pytest.raises(ImageError, match=message):
        to_encoding(random_image(encoding), target)


def test_unknown_targets_are_refused():
    with pytest.raises(ImageError, match="no input takes encoding 'bgr8'"):
        to_encoding(random_image("bgr8"), "bgr8")


RNG = np.random.default_rng(1)
GREY8 = RNG.integers(0, 256, (12, 17), np.uint8)
GREY16 = RNG.integers(0, 65536, (12, 17), np.uint16)
BGR = RNG.integers(0, 256, (12, 17, 3), np.uint8)
BGRA = RNG.integers(0, 256, (12, 17, 4), np.uint8)


def test_png_of_eight_bits():
    np.testing.assert_array_equal(to_encoding(compressed(BGR), "rgb8"), BGR[..., ::-1])
    np.testing.assert_array_equal(to_encoding(compressed(BGRA), "rgb8"), BGRA[..., 2::-1])
    np.testing.assert_array_equal(to_encoding(compressed(GREY8), "mono8"), GREY8[..., None])
    grey = np.repeat(GREY8[..., None], 3, axis=2)
    np.testing.assert_array_equal(to_encoding(compressed(GREY8), "rgb8"), grey)


@pytest.mark.parametrize("target", ["mono16", "16UC1"])
def test_png_of_sixteen_bits_keeps_them_all(target):
    pairs = to_encoding(compressed(GREY16), target)
    np.testing.assert_array_equal(pairs.view("<u2")[..., 0], GREY16)
    metres = np.where(GREY16 == 0, np.nan, GREY16.astype(np.float32) / 1000)
    np.testing.assert_array_equal(to_encoding(compressed(GREY16), "32FC1"), metres)


def test_jpeg():
    smooth = np.dstack(np.broadcast_arrays(*np.ogrid[0:96, 0:128], 30)).astype(np.uint8)
    rgb = to_encoding(compressed(smooth, ".jpg"), "rgb8")
    assert rgb.dtype == np.uint8
    assert np.abs(rgb.astype(int) - smooth[..., ::-1]).mean() < 3
    grey = to_encoding(compressed(smooth[..., 1], ".jpg"), "mono8")
    assert np.abs(grey[..., 0].astype(int) - smooth[..., 1]).mean() < 3


def test_float_tiff_is_metres():
    metres = np.float32([[0.5, np.nan], [2.0, 3.0]])
    np.testing.assert_array_equal(to_encoding(compressed(metres, ".tiff"), "32FC1"), metres)


@pytest.mark.parametrize(
    ("pixels", "target", "source"),
    [
        (BGR, "mono8", "bgr8"),
        (BGR, "16UC1", "bgr8"),
        (BGR, "32FC1", "bgr8"),
        (GREY16, "rgb8", "mono16"),
        (GREY16, "mono8", "mono16"),
        (GREY8, "32FC1", "mono8"),
    ],
)
def test_files_that_do_not_fit_are_refused(pixels, target, source):
    with pytest.raises(ImageError, match=f"^a {source} image cannot stand for {target}"):
        to_encoding(compressed(pixels), target)


@pytest.mark.parametrize("target", TARGETS)
def test_sixteen_bit_colour_is_refused(target):
    image = compressed(np.dstack([GREY16] * 3))
    with pytest.raises(ImageError, match=r"\(png\) holds 3 channels of uint16; expected 8-bit"):
        to_encoding(image, target)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_cut_files_are_refused(suffix, kept):
    pixels = RNG.integers(0, 256, (96, 128, 3), np.uint8)
    data = cv2.imencode(suffix, pixels)[1].tobytes()
    with pytest.raises(ImageError, match="cannot be decoded; expected a complete JPEG or PNG"):
        to_encoding(damaged(data[: int(len(data) * kept)]), "rgb8")


def test_padding_behind_a_jpeg_is_harmless():
    """Hardware encoders round their buffers up."""
    image = compressed(BGR, ".jpg")
    padded = damaged(image.data + bytes(1000))
    np.testing.assert_array_equal(to_encoding(padded, "rgb8"), to_encoding(image, "rgb8"))


def png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff\xd9",
        b"rubbish" * 100,
        bytes(1000),
        png_claiming(200_000, 200_000),
        png_claiming(0, 0),
    ],
    ids=["empty", "jpeg_start", "empty_jpeg", "text", "zeros", "huge", "zero_size"],
)
def test_rubbish_is_refused(data):
    with pytest.raises(ImageError, match=rf"\(jpeg\) of {len(data)} bytes cannot be decoded"):
        to_encoding(damaged(data), "rgb8")
    fingerprint(damaged(data))


@pytest.mark.parametrize("encoding", CHANNELS)
def test_fingerprint_ignores_padding(encoding):
    image = random_image(encoding, 48, 64)
    row = image.step
    rows = np.frombuffer(image.data, np.uint8).reshape(48, row)
    digests = {fingerprint(image)}
    for fill in (0, 0xAA):
        padded = np.pad(rows, ((0, 0), (0, 5)), constant_values=fill).tobytes()
        digests.add(fingerprint(SourceImage(padded, 48, 64, encoding, row + 5)))
        digests.add(fingerprint(SourceImage(padded[:-5], 48, 64, encoding, row + 5)))
    assert len(digests) == 1


@pytest.mark.parametrize("size", [(1, 1), (48, 64), (480, 640), (3, 5000)])
@pytest.mark.parametrize("encoding", CHANNELS)
def test_fingerprint_sees_sensor_noise(encoding, size):
    first, again, other = (random_image(encoding, *size, seed=seed) for seed in (0, 0, 1))
    assert fingerprint(first) == fingerprint(again)
    assert fingerprint(first) != fingerprint(other)


def test_fingerprint_of_small_pictures_sees_every_pixel():
    data = bytearray(48 * 64)
    before = fingerprint(SourceImage(data, 48, 64, "mono8", 64))
    data[17 * 64 + 33] = 1
    assert fingerprint(SourceImage(data, 48, 64, "mono8", 64)) != before


def test_fingerprint_of_damaged_and_compressed_images_is_of_their_bytes():
    cut, other = (SourceImage(data, 48, 64, "mono8", 64) for data in (b"abc", b"abd"))
    assert fingerprint(cut) == zlib.crc32(b"abc")
    assert fingerprint(cut) != fingerprint(other)
    assert fingerprint(damaged(b"abc")) == zlib.crc32(b"abc")
    assert fingerprint(SourceImage(b"abc", 1, 1, "unheard_of", 3)) == zlib.crc32(b"abc")
