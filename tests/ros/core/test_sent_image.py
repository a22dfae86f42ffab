"""What a player sends is what the readers of such images expect."""

from __future__ import annotations

import dataclasses
import struct

import cv2
import numpy as np
import pytest

from mmfusion_ros.core.errors import ImageError
from mmfusion_ros.core.frames import Modality
from mmfusion_ros.core.images import decode, to_encoding, view
from mmfusion_ros.core.playback import Picture
from mmfusion_ros.core.sent_image import Sender

RGB, DEPTH, THERMAL = Modality
RNG = np.random.default_rng(3)
COLOUR = cv2.GaussianBlur(RNG.integers(0, 256, (24, 32, 3), np.uint8), (0, 0), 3)
MILLIMETRES = RNG.integers(400, 9000, (24, 32)).astype(np.uint16)
MILLIMETRES[:3] = 0
COUNTS = RNG.integers(20_000, 24_000, (24, 32)).astype(np.uint16)
PICTURES = {
    RGB: Picture(0, 0, RGB, COLOUR, "rgb8"),
    DEPTH: Picture(0, 0, DEPTH, MILLIMETRES, "16UC1"),
    THERMAL: Picture(0, 0, THERMAL, COUNTS, "mono16"),
}


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("modality", list(Modality))
def test_raw_images_can_be_read_with_and_without_padding(modality, padding):
    picture = PICTURES[modality]
    image = Sender(row_padding=padding).image(picture)
    assert image.step == picture.pixels[0].nbytes + padding
    assert len(image.data) == image.step * 24
    np.testing.assert_array_equal(view(image), picture.pixels)


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8"])
def test_colour_in_other_encodings_shows_the_same(encoding):
    image = Sender(encodings={RGB: encoding}).image(PICTURES[RGB])
    assert image.encoding == encoding
    np.testing.assert_array_equal(to_encoding(image, "rgb8"), COLOUR)


def test_grey_of_colour():
    image = Sender(encodings={RGB: "mono8"}).image(PICTURES[RGB])
    expected = COLOUR @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(view(image), expected, atol=1)


def test_depth_in_metres():
    pixels = view(Sender(encodings={DEPTH: "32FC1"}).image(PICTURES[DEPTH]))
    assert np.isnan(pixels[:3]).all()
    np.testing.assert_allclose(pixels[3:], MILLIMETRES[3:] / 1000, rtol=1e-6)


def test_thermal_is_stretched_over_the_grey_levels():
    pixels = view(Sender(encodings={THERMAL: "mono8"}).image(PICTURES[THERMAL])).astype(int)
    counts = COUNTS.astype(float)
    span = counts.max() - counts.min()
    np.testing.assert_allclose(pixels, (counts - counts.min()) / span * 255, atol=0.51)
    flat = dataclasses.replace(PICTURES[THERMAL], pixels=np.full((2, 3), 700, np.uint16))
    assert not view(Sender(encodings={THERMAL: "mono8"}).image(flat)).any()


def test_an_encoding_that_a_picture_does_not_have_is_refused():
    grey = Picture(0, 0, THERMAL, np.zeros((4, 4), np.uint8), "mono8")
    with pytest.raises(ImageError, match="thermal pictures are mono8 and cannot be sent as mono16"):
        Sender(encodings={THERMAL: "mono16"}).image(grey)


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8"])
def test_compressed_colour_is_a_jpeg(encoding):
    image = Sender({RGB: "compressed"}, {RGB: encoding}).image(PICTURES[RGB])
    assert (image.compressed, image.encoding) == (True, f"{encoding}; jpeg compressed bgr8")
    assert bytes(image.data[:2]) == b"\xff\xd8"
    np.testing.assert_allclose(to_encoding(image, "rgb8").astype(int), COLOUR, atol=12)


def test_compressed_grey_is_a_jpeg():
    grey = Picture(0, 0, THERMAL, COLOUR[..., 0], "mono8")
    image = Sender({THERMAL: "compressed"}).image(grey)
    assert image.encoding == "mono8; jpeg compressed "
    np.testing.assert_allclose(decode(image)[0].astype(int), COLOUR[..., 0], atol=12)


@pytest.mark.parametrize("modality", [DEPTH, THERMAL])
def test_sixteen_bits_are_compressed_without_loss(modality):
    picture = PICTURES[modality]
    image = Sender({modality: "compressed"}).image(picture)
    assert image.encoding == f"{picture.encoding}; png compressed "
    np.testing.assert_array_equal(decode(image)[0], picture.pixels)


def test_compressed_depth_has_a_header_before_its_png():
    image = Sender({DEPTH: "compressedDepth"}).image(PICTURES[DEPTH])
    assert image.encoding == "16UC1; compressedDepth png"
    assert struct.unpack("<iff", bytes(image.data[:12])) == (0, 0.0, 0.0)
    pixels = cv2.imdecode(image.data[12:], cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(pixels, MILLIMETRES)
    np.testing.assert_array_equal(decode(image)[0], MILLIMETRES)


def test_compressed_depth_in_metres_is_quantised_as_its_decoder_expects():
    image = Sender({DEPTH: "compressedDepth"}, {DEPTH: "32FC1"}).image(PICTURES[DEPTH])
    assert image.encoding == "32FC1; compressedDepth png"
    _, a, b = struct.unpack("<iff", bytes(image.data[:12]))
    inverse = cv2.imdecode(image.data[12:], cv2.IMREAD_UNCHANGED)
    assert not inverse[:3].any()
    # What compressed_depth_image_transport does with them.
    metres = a / (inverse[3:].astype(np.float32) - b)
    np.testing.assert_allclose(metres, MILLIMETRES[3:] / 1000, atol=0.006)
    np.testing.assert_allclose(decode(image)[0][3:], metres, rtol=1e-5)


@pytest.mark.parametrize(
    ("transport", "encoding", "pixels"),
    [
        ("compressed", "32FC1", np.ones((4, 4), np.float32)),
        ("compressedDepth", "mono8", np.ones((4, 4), np.uint8)),
    ],
)
def test_what_cannot_be_compressed_is_refused(transport, encoding, pixels):
    with pytest.raises(ImageError, match=f"{encoding} images .*; send them raw"):
        Sender({DEPTH: transport}).image(Picture(0, 0, DEPTH, pixels, encoding))


@pytest.mark.parametrize("transport", ["raw", "compressed"])
def test_a_truncated_image_keeps_what_it_says_of_itself(transport):
    sender = Sender({RGB: transport})
    whole = sender.image(PICTURES[RGB])
    cut = sender.image(dataclasses.replace(PICTURES[RGB], sent=0.25))
    assert len(cut.data) == len(whole.data) // 4
    assert (cut.height, cut.width, cut.step) == (whole.height, whole.width, whole.step)
    assert cut.compressed is whole.compressed
    with pytest.raises(ImageError):
        decode(cut)
