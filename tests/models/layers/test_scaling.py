"""Pictures at a fraction of their size, and back."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from mmfusion.layers.scaling import enlarge, shrink, smooth

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("size", [(12, 18), (13, 17), (2, 3)])
def test_shrinking_and_enlarging_keeps_the_size_and_a_constant(size):
    image = torch.full((1, 1, *size), 0.25)
    torch.testing.assert_close(enlarge(shrink(image, 2), 2, *size), image)
    torch.testing.assert_close(smooth(image, 4), image)


def test_smoothing_takes_detail_and_leaves_the_rest():
    slope = torch.linspace(0, 1, 64).expand(1, 1, 64, 64)
    stripes = 0.1 * (-1.0) ** torch.arange(64).expand(1, 1, 64, 64)
    inner = (..., slice(8, -8), slice(8, -8))
    found = smooth(slope + stripes, 8)[inner]
    torch.testing.assert_close(found, slope[inner], atol=1e-5, rtol=0)
