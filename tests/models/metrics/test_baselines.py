"""The fusions that figures are read against."""

from __future__ import annotations

import numpy as np

from mmfusion.metrics import average_fusion, maximum_fusion, pyramid_fusion


def test_average_rounds_halves_up_and_does_not_overflow():
    first, second = np.array([[0, 1, 255, 255]], np.uint8), np.array([[1, 1, 254, 255]], np.uint8)
    averaged = average_fusion(first, second)
    assert averaged.dtype == np.uint8
    np.testing.assert_array_equal(averaged, [[1, 1, 255, 255]])


def test_maximum_takes_the_brighter_pixel():
    first, second = np.array([[0, 9]], np.uint8), np.array([[5, 3]], np.uint8)
    np.testing.assert_array_equal(maximum_fusion(first, second), [[5, 9]])


def test_a_pyramid_gives_a_picture_fused_with_itself_back():
    picture = np.random.default_rng(0).integers(0, 256, (61, 83), dtype=np.uint8)
    np.testing.assert_array_equal(pyramid_fusion(picture, picture), picture)


def test_a_pyramid_keeps_the_detail_of_both():
    first = np.full((64, 64), 100, np.uint8)
    second = first.copy()
    first[16, ::2], second[48, ::2] = 160, 160
    fused = pyramid_fusion(first, second)
    for row in (16, 48):
        assert np.ptp(fused[row].astype(int)) > 0.6 * 60 > 2 * np.ptp(fused[32].astype(int))


def test_tiny_pictures_are_averaged():
    first, second = np.array([[4, 8]], np.uint8), np.array([[6, 2]], np.uint8)
    np.testing.assert_array_equal(pyramid_fusion(first, second), [[5, 5]])
