"""A rig file of another camera is noticed; a camera calibrated again is not complained of."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest

from mmfusion_ros.core.camera_check import disagreement, largest_shift
from mmfusion_ros.core.detections_3d import Intrinsics
from mmfusion_ros.core.rig import Camera

K = (500.0, 0.0, 319.5, 0.0, 500.0, 239.5, 0.0, 0.0, 1.0)
CAMERA = Camera(640, 480, K, (), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0), 0)


def info(k=K, d=(), size=(480, 640), model="plumb_bob", binning=0, region=(0, 0)):
    return SimpleNamespace(
        height=size[0],
        width=size[1],
        k=k,
        d=d,
        distortion_model=model,
        binning_x=binning,
        binning_y=binning,
        roi=SimpleNamespace(height=region[0], width=region[1]),
    )


def moved(index: int, by: float) -> tuple[float, ...]:
    return tuple(value + by * (place == index) for place, value in enumerate(K))


@pytest.mark.parametrize(
    "told",
    [
        info(),
        info(d=(0.0,) * 5),
        info(k=moved(2, 1.5)),
        info(k=moved(0, 2.0)),
        # Nothing to compare.
        info(k=(0.0,) * 9),
        info(d=(0.1, 0.1, 0.1, 0.1), model="equidistant"),
        info(size=(0, 0)),
        # Its numbers are for more than the picture that the rig file is for.
        info(size=(960, 1280), binning=2),
        info(size=(720, 1280), region=(480, 640)),
    ],
)
def test_agreement(told):
    assert disagreement(told, CAMERA) == ""


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (info(size=(720, 1280)), "camera_info is for 1280x720 pixels, the rig file for 640x480"),
        # 10 % of focal length move the edge, 320 pixels from the centre, by 10 % of that.
        (
            info(k=moved(0, 50.0)),
            r"up to 29\.\d pixels apart \(550.0 against 500.0 pixels of focal",
        ),
        (info(k=moved(2, 30.0), binning=1, region=(480, 640)), r"up to 30\.0 pixels apart"),
        (info(k=moved(2, 30.0)), r"up to 30\.0 pixels apart"),
        (info(d=(-0.3, 0.1, 0.0, 0.0, 0.0)), r"up to \d+\.\d pixels apart"),
    ],
)
def test_disagreement(told, expected):
    import re

    assert re.search(expected, disagreement(told, CAMERA))


def test_the_shift_is_that_of_both_models_together():
    bent = dataclasses.replace(CAMERA, distortion=(-0.2, 0.05, 0.001, -0.001, 0.0))
    same = Intrinsics(K, (-0.2, 0.05, 0.001, -0.001, 0.0))
    assert largest_shift(same, Intrinsics.of(bent), (480, 640)) < 0.05


# Calibrated cameras of common lenses. The last one's distortion turns back before the corners.
KITTI = (959.791, 0.0, 696.0217, 0.0, 956.9251, 224.1806, 0.0, 0.0, 1.0)
KITTI_D = (-0.3691481, 0.1968681, 0.001353473, 0.0005677587, -0.06770705)
WIDE = (800.0, 0.0, 639.5, 0.0, 800.0, 359.5, 0.0, 0.0, 1.0)
WIDE_D = (-0.40, 0.18, 0.0, 0.0, -0.05)


@pytest.mark.parametrize(
    ("k", "d", "size"), [(KITTI, KITTI_D, (512, 1392)), (WIDE, WIDE_D, (720, 1280))]
)
def test_a_camera_agrees_with_itself_however_much_it_bends(k, d, size):
    same = Intrinsics(k, d)
    assert largest_shift(same, same, size) < 0.1
    camera = Camera(size[1], size[0], k, d, CAMERA.translation, CAMERA.rotation, 0)
    assert disagreement(info(k, d, size), camera) == ""


def test_a_camera_that_differs_is_noticed_where_distortion_can_be_undone():
    other = (*WIDE[:2], WIDE[2] + 20.0, *WIDE[3:])
    shift = largest_shift(Intrinsics(WIDE, WIDE_D), Intrinsics(other, WIDE_D), (720, 1280))
    assert shift == pytest.approx(20.0)


def test_where_no_distortion_can_be_undone_nothing_is_said():
    hopeless = Intrinsics(K, (-50.0, 0.0, 0.0, 0.0, 0.0))
    corners = Intrinsics(K, ())
    # But for the optical axis, where every lens agrees.
    assert largest_shift(hopeless, corners, (480, 640)) < 0.1
