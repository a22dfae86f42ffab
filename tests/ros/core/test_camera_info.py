"""A camera_info is taken over whole, and keeps its meaning in another size."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from mmfusion_ros.core.camera_info import CameraInfo, plain_camera_info

K = (500.0, 0.0, 319.5, 0.0, 510.0, 239.5, 0.0, 0.0, 1.0)
P = (500.0, 0.0, 319.5, -60.0, 0.0, 510.0, 239.5, 0.0, 0.0, 0.0, 1.0, 0.0)


def message(**changes) -> SimpleNamespace:
    fields = {
        "width": 640,
        "height": 480,
        "distortion_model": "rational_polynomial",
        "d": np.arange(8.0),
        "k": np.array(K),
        "r": np.eye(3).reshape(-1),
        "p": np.array(P),
        "binning_x": 2,
        "binning_y": 1,
        "roi": SimpleNamespace(x_offset=3, y_offset=4, height=5, width=6, do_rectify=True),
    }
    return SimpleNamespace(**{**fields, **changes})


def test_everything_is_taken_over():
    camera = CameraInfo.told_by(message())
    assert camera == CameraInfo(
        480,
        640,
        "rational_polynomial",
        tuple(map(float, range(8))),
        K,
        (1, 0, 0, 0, 1, 0, 0, 0, 1),
        P,
        2,
        1,
        (3, 4, 5, 6, True),
    )
    assert camera.scaled(640, 480) is camera


def test_names_of_ros_1():
    fields = vars(message())
    old = {name.upper() if len(name) == 1 else name: value for name, value in fields.items()}
    assert CameraInfo.told_by(SimpleNamespace(**old)) == CameraInfo.told_by(message())


def test_a_point_lands_on_the_same_place_of_a_larger_picture():
    camera = CameraInfo.told_by(message())
    scaled = camera.scaled(1280, 1440)
    assert (scaled.width, scaled.height, scaled.d) == (1280, 1440, camera.d)
    point = np.array([0.3, -0.2, 1.5, 1.0])
    for before, after, shape in ((camera.k, scaled.k, (3, 3)), (camera.p, scaled.p, (3, 4))):
        small = np.reshape(before, shape) @ point[: shape[1]]
        large = np.reshape(after, shape) @ point[: shape[1]]
        # Pixel centres are whole numbers.
        expected = (small[:2] / small[2] + 0.5) * (2, 3) - 0.5
        np.testing.assert_allclose(large[:2] / large[2], expected)


def test_a_camera_that_is_not_calibrated_stays_so():
    camera = CameraInfo.told_by(message(k=np.zeros(9), p=np.zeros(12))).scaled(320, 240)
    assert (set(camera.k), set(camera.p), camera.width) == ({0.0}, {0.0}, 320)


def test_in_another_size_it_is_the_whole_picture():
    scaled = CameraInfo.told_by(message()).scaled(320, 240)
    assert (scaled.binning_x, scaled.binning_y, scaled.roi[:4]) == (0, 0, (0, 0, 0, 0))


def test_a_plain_camera():
    camera = plain_camera_info(640, 480, K, ())
    assert (camera.width, camera.height, camera.d) == (640, 480, (0.0,) * 5)
    np.testing.assert_array_equal(np.reshape(camera.p, (3, 4))[:, :3], np.reshape(K, (3, 3)))
