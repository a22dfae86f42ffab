"""Cameras against hand-computed pixels, and there-and-back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmfusion.errors import DataError
from mmfusion.synthetic import Camera, aligned_rig, correspondence, offset_rig
from mmfusion.synthetic.camera import intrinsics, looking


def test_axes_of_the_optical_frame():
    """A robot at the origin looks along +x: left is +y, up is +z."""
    camera = aligned_rig().rgb
    focal = camera.matrix[0, 0]
    pixels, depth = camera.project(np.array([[4.0, 0, 0], [4.0, 1, 0], [4.0, 0, 1], [-1.0, 0, 0]]))
    np.testing.assert_allclose(pixels[0], [319.5, 239.5])
    np.testing.assert_allclose(pixels[1], [319.5 - focal / 4, 239.5])
    np.testing.assert_allclose(pixels[2], [319.5, 239.5 - focal / 4])
    assert np.isnan(pixels[3]).all()
    np.testing.assert_allclose(depth, [4, 4, 4, -1], atol=1e-12)


def test_field_of_view_spans_the_outer_pixel_edges():
    matrix = intrinsics(640, 480, 90.0)
    assert matrix[0, 0] == pytest.approx(320.0)
    camera = Camera(640, 480, matrix, np.eye(4))
    left = camera.rays(np.array([[-0.5, 239.5]]))[0]
    assert left[0] / left[2] == pytest.approx(-1.0)


@given(st.floats(-0.4, 639.4), st.floats(-0.4, 479.4), st.floats(0.1, 50))
def test_there_and_back(u, v, z):
    camera = offset_rig().depth.placed(looking((1.0, -2.0, 0.7), (4.0, 1.0, 1.5)))
    point = camera.back_project(np.array([[u, v]]), np.array([z]))
    pixel, depth = camera.project(point)
    np.testing.assert_allclose(pixel[0], [u, v], atol=1e-7)
    assert depth[0] == pytest.approx(z)
    ray = camera.rays(np.array([[u, v]]))[0]
    away = point[0] - camera.position
    np.testing.assert_allclose(away / np.linalg.norm(away), ray, atol=1e-12)


def test_aligned_rig_only_needs_scaling():
    rig = aligned_rig()
    depth = np.full((480, 640), 3.0)
    pixels, z = correspondence(depth, rig.rgb, rig.thermal)
    v, u = np.mgrid[:480, :640]
    np.testing.assert_allclose(pixels[..., 0], (u + 0.5) / 2 - 0.5, atol=1e-9)
    np.testing.assert_allclose(pixels[..., 1], (v + 0.5) / 2 - 0.5, atol=1e-9)
    np.testing.assert_allclose(z, 3.0)


def test_unknown_depth_has_no_counterpart():
    rig = offset_rig()
    depth = np.full((480, 640), 3.0, np.float32)
    depth[0, 0], depth[0, 1], depth[0, 2] = 0.0, np.inf, np.nan
    pixels, _ = correspondence(depth, rig.rgb, rig.thermal)
    assert np.isnan(pixels[0, :3]).all()
    assert np.isfinite(pixels[0, 3:]).all()


def test_parallax_falls_with_distance():
    rig = offset_rig()
    near, _ = correspondence(np.full((480, 640), 1.0), rig.rgb, rig.thermal)
    far, _ = correspondence(np.full((480, 640), 1e6), rig.rgb, rig.thermal)
    # The thermal camera sits 7 cm to the left: near things move right in it.
    shift = (near - far)[240, 320]
    assert shift[0] == pytest.approx(0.07 * rig.thermal.matrix[0, 0], rel=0.02)
    assert shift[1] == pytest.approx(0.03 * rig.thermal.matrix[1, 1], rel=0.02)


def test_wrong_shapes_are_named():
    with pytest.raises(DataError, match="no picture"):
        Camera(0, 480, np.eye(3), np.eye(4))
    with pytest.raises(DataError, match=r"expected \(3, 3\) and \(4, 4\)"):
        Camera(640, 480, np.eye(4), np.eye(4))
    with pytest.raises(DataError, match=r"its camera \(480, 640\)"):
        correspondence(np.ones((2, 2)), aligned_rig().rgb, aligned_rig().thermal)
