"""Resizing by matrix products is what Pillow and torchvision do."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from hypothesis import given, settings
from hypothesis import strategies as st

from mmfusion.graph.resize import Resize, resize_weights

pytestmark = pytest.mark.torch
# From two pixels on: PyTorch 2.14 repeats the first row of a picture one pixel wide.
SIDES = st.integers(2, 40)


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, SIDES, SIDES)
def test_equals_antialiased_interpolation(height, width, new_height, new_width):
    rng = np.random.default_rng(height * 41 + width)
    image = torch.from_numpy(rng.random((1, 2, height, width), np.float32))
    target = (new_height, new_width)
    expected = torch.nn.functional.interpolate(
        image, target, mode="bilinear", antialias=True, align_corners=False
    )
    resized = Resize((height, width), target)(image)
    assert torch.allclose(resized, expected, atol=1e-5)


def test_the_same_size_is_left_alone():
    image = torch.rand(1, 3, 5, 7)
    assert Resize((5, 7), (5, 7))(image) is image


def test_every_target_pixel_is_an_average():
    weights = resize_weights(640, 384)
    assert np.allclose(weights.sum(axis=1), 1)
    assert weights.min() >= 0
