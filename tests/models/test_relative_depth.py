"""8-bit depth: what the network sees is what the file says, by way of millimetres."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from mmfusion.errors import DataError
from mmfusion.graph.depth import DepthMapping, unpack_depth
from mmfusion.graph.depth_range import DepthRange
from mmfusion.relative_depth import DepthReading, millimetres_by_level

pytestmark = pytest.mark.torch


def seen(millimetres, depth_range):
    """Closeness of depth pixels in a network's own eyes, and which of them are known."""
    raw = millimetres.reshape(16, 16, 1).view(np.uint8)
    metres, valid = unpack_depth(torch.from_numpy(raw.copy()))
    shown = DepthMapping((16, 16), (16, 16), depth_range)(metres, valid)
    return shown.numpy().ravel(), valid.numpy().ravel()


@pytest.mark.parametrize("ends", [(0.3, 10), (0.3, 15), (0.5, 8), (0.3, 100)])
@pytest.mark.parametrize("relative", ["near_bright", "near_dark"])
def test_a_network_sees_the_level_again(relative, ends):
    depth_range = DepthRange(*ends)
    millimetres = millimetres_by_level(DepthReading(depth_range, relative))
    assert (millimetres.shape, millimetres.dtype) == ((256,), np.uint16)
    closeness, known = seen(millimetres, depth_range)
    assert known.all()
    levels = np.arange(256)
    expected = levels if relative == "near_bright" else 255 - levels
    assert np.abs(255 * closeness - expected).max() < 0.5


def test_the_ends_are_those_of_the_range():
    bright, dark = (
        millimetres_by_level(DepthReading(DepthRange(0.3, 10), relative))
        for relative in ("near_bright", "near_dark")
    )
    assert (bright[0], bright[255], dark[0], dark[255]) == (10000, 300, 300, 10000)
    far = millimetres_by_level(DepthReading(DepthRange(0.3, 100), "near_bright"))
    assert far[0] == 65535
    assert (np.diff(far.astype(int)) < 0).all()


def test_what_is_left_out_has_no_millimetres():
    assert millimetres_by_level(DepthReading()) is None


@pytest.mark.parametrize(
    ("ends", "off"), [((0.1, 10), "1.1"), ((5, 200), "13.4"), ((1e-4, 1e-3), "226.0")]
)
def test_ranges_that_millimetres_are_too_coarse_for_are_refused(ends, off):
    told = f"range of {ends[0]:g} to {ends[1]:g} m is {off} of 255 grey levels off; expected at"
    with pytest.raises(DataError, match=told):
        millimetres_by_level(DepthReading(DepthRange(*ends), "near_bright"))
    assert millimetres_by_level(DepthReading(DepthRange(*ends))) is None
