"""The fusions that figures are read against."""

from __future__ import annotations

import numpy as np

from mmfusion.metrics import average_fusion, maximum_fusion


def test_average_rounds_halves_up_and_does_not_overflow():
    first, second = np.array([[0, 1, 255, 255]], np.uint8), np.array([[1, 1, 254, 255]], np.uint8)
    averaged = average_fusion(first, second)
    assert averaged.dtype == np.uint8
    np.testing.assert_array_equal(averaged, [[1, 1, 255, 255]])


def test_maximum_takes_the_brighter_pixel():
    first, second = np.array([[0, 9]], np.uint8), np.array([[5, 3]], np.uint8)
    np.testing.assert_array_equal(maximum_fusion(first, second), [[5, 9]])
