"""Thermal onto RGB: scaling, and homographies against OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from mmfusion.graph.registration import Homography, Scaling

pytestmark = pytest.mark.torch


def test_the_same_size_passes_untouched():
    image = torch.rand(1, 1, 12, 16)
    scaled, valid = Scaling((12, 16))(image)
    assert scaled is image
    assert valid.min() == 1


def test_scaling_agrees_with_opencv():
    image = np.random.default_rng(0).random((24, 32), np.float32)
    scaled, _ = Scaling((48, 64))(torch.from_numpy(image)[None, None])
    expected = cv2.resize(image, (64, 48), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(scaled[0, 0].numpy(), expected, atol=1e-3)


def test_the_identity_homography_changes_nothing():
    image = torch.rand(1, 1, 30, 40)
    warped, valid = Homography((30, 40))(image, torch.eye(3).flatten())
    torch.testing.assert_close(warped, image, atol=1e-5, rtol=0)
    assert valid.min() == 1


def test_a_perspective_agrees_with_opencv_where_the_camera_sees():
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.random((60, 80), np.float32), (0, 0), 2)
    matrix = np.array([[0.9, 0.05, 3], [-0.04, 0.95, 2], [1e-4, -2e-4, 1]])
    warped, valid = Homography((48, 64))(
        torch.from_numpy(image)[None, None], torch.from_numpy(matrix).float().flatten()
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    expected = cv2.warpPerspective(image, matrix, (64, 48), flags=flags)
    seen = valid[0, 0].numpy() > 0
    np.testing.assert_allclose(warped[0, 0].numpy()[seen], expected[seen], atol=0.01)
    assert 0.9 < seen.mean() <= 1


def test_pixels_outside_the_other_camera_are_invalid():
    shift = torch.tensor([1.0, 0, 10, 0, 1, 0, 0, 0, 1])
    _, valid = Homography((20, 30))(torch.rand(1, 1, 20, 30), shift)
    assert valid[0, 0, :, :20].min() == 1
    assert valid[0, 0, :, 20:].max() == 0


def test_pixels_behind_the_other_camera_are_invalid():
    flipped = -torch.eye(3).flatten()
    _, valid = Homography((20, 30))(torch.rand(1, 1, 20, 30), flipped)
    assert valid.max() == 0
