"""What is placed in space shows up again where it was seen."""

from __future__ import annotations

import math
import re
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from mmfusion_ros.core.detections import Detections
from mmfusion_ros.core.detections_3d import Intrinsics, place

K = (500.0, 0.0, 320.0, 0.0, 400.0, 240.0, 0.0, 0.0, 1.0)
PLAIN = Intrinsics(K, ())
BENT = Intrinsics(K, (-0.3, 0.1, 0.001, -0.002, 0.0))


def detections(boxes, depths) -> Detections:
    count = len(boxes)
    return Detections(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.linspace(0.9, 0.5, count, dtype=np.float32),
        classes=np.zeros(count, np.int32),
        depths=np.array(depths, np.float32),
    )


def test_a_box_round_the_principal_point():
    # In pixel corners the centre of pixel (320, 240) is (320.5, 240.5).
    places = place(detections([[270.5, 200.5, 370.5, 280.5]], [4.0]), PLAIN)
    np.testing.assert_allclose(places.centres, [[0, 0, 4]], atol=1e-9)
    np.testing.assert_allclose(places.sizes, [[100 / 500 * 4, 80 / 400 * 4, 0]])


def test_those_without_a_depth_are_left_out():
    depths = [np.nan, 2.0, 0.0, -1.0, np.inf, 3.0]
    places = place(detections([[0, 0, 9, 9]] * 6, depths), PLAIN)
    assert places.index.tolist() == [1, 5]
    assert places.centres[:, 2].tolist() == [2.0, 3.0]


@pytest.mark.parametrize("intrinsics", [PLAIN, BENT], ids=["plain", "bent"])
def test_the_centre_is_seen_in_the_middle_of_the_box(intrinsics):
    boxes = np.array([[20, 30, 80, 90], [500, 100, 560, 300], [300, 400, 360, 470]], np.float32)
    places = place(detections(boxes, [1.0, 5.0, 20.0]), intrinsics)
    distortion = np.array(intrinsics.distortion) if intrinsics.distortion else None
    seen, _ = cv2.projectPoints(
        places.centres, np.zeros(3), np.zeros(3), np.reshape(K, (3, 3)), distortion
    )
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2 - 0.5
    np.testing.assert_allclose(seen[:, 0], middle, atol=0.05)


def test_boxes_at_the_edge_of_a_bent_picture_are_in_their_places():
    kitti = (959.791, 0.0, 696.0217, 0.0, 956.9251, 224.1806, 0.0, 0.0, 1.0)
    lens = Intrinsics(kitti, (-0.3691481, 0.1968681, 0.001353473, 0.0005677587, -0.06770705))
    places = place(detections([[0, 0, 10, 10], [1380, 500, 1392, 512]], [1.0, 20.0]), lens)
    seen = lens.pixels(places.centres[:, :2] / places.centres[:, 2:])
    np.testing.assert_allclose(seen, [[4.5, 4.5], [1385.5, 505.5]], atol=0.01)


@pytest.mark.parametrize("intrinsics", [PLAIN, BENT], ids=["plain", "bent"])
def test_the_size_is_that_of_the_thing(intrinsics):
    """A board of 0.6 m by 0.4 m across the optical axis, as the camera sees it."""
    distortion = np.array(intrinsics.distortion) if intrinsics.distortion else None
    ends = np.array([[-0.3, 0, 2], [0.3, 0, 2], [0, -0.2, 2], [0, 0.2, 2]])
    seen, _ = cv2.projectPoints(ends, np.zeros(3), np.zeros(3), np.reshape(K, (3, 3)), distortion)
    x, y = seen[:, 0].T + 0.5
    places = place(detections([[x[0], y[2], x[1], y[3]]], [2.0]), intrinsics)
    np.testing.assert_allclose(places.sizes, [[0.6, 0.4, 0.0]], atol=2e-3)


def test_nothing_found():
    for intrinsics in (PLAIN, BENT):
        places = place(detections([], []), intrinsics)
        assert places.centres.shape == places.sizes.shape == (0, 3)


def info(**changes) -> SimpleNamespace:
    fields = {"height": 480, "width": 640, "k": K, "d": [], "distortion_model": "plumb_bob"}
    return SimpleNamespace(**{**fields, **changes})


@pytest.mark.parametrize("count", [0, 4, 5, 8, 12, 14])
def test_all_lengths_that_intrinsics_take_place_something(count):
    distortion = tuple(0.001 / (n + 1) for n in range(count))
    told = Intrinsics.told_by(info(d=list(distortion)), (480, 640))
    assert told == Intrinsics(K, distortion)
    places = place(detections([[20, 30, 80, 90]], [2.0]), told)
    assert np.isfinite(places.centres).all()


@pytest.mark.parametrize(
    ("matrix", "distortion", "named"),
    [
        (K, (0.1, 0.0, 0.0), "3 of distortion; expected 9, and one of [0, 4, 5, 8, 12, 14]"),
        (K[:8], (), "8 numbers of a camera matrix"),
        (K, (math.nan, 0.0, 0.0, 0.0), "must be finite"),
    ],
)
def test_what_are_no_intrinsics(matrix, distortion, named):
    with pytest.raises(ValueError, match=re.escape(named)):
        Intrinsics(matrix, distortion)


def test_what_a_camera_says_of_itself():
    bent = info(d=[-0.3, 0.1, 0.0, 0.0, 0.0])
    assert Intrinsics.told_by(bent, (480, 640)) == Intrinsics(K, (-0.3, 0.1, 0.0, 0.0, 0.0))
    assert Intrinsics.told_by(info(distortion_model=""), (480, 640)) == PLAIN


@pytest.mark.parametrize(
    "useless",
    [
        info(height=240),
        info(k=(0.0,) * 9),
        info(d=[0.1, 0.0, 0.0, 0.0], distortion_model="equidistant"),
        *(info(d=[0.1] * count) for count in (1, 3, 6, 15)),
        info(d=[0.0] * 3),
        info(d=[0.1, math.nan, 0.0, 0.0, 0.0]),
        info(d=[0.1, math.inf, 0.0, 0.0, 0.0]),
        info(k=(*K[:2], math.nan, *K[3:])),
        info(k=(math.inf, *K[1:])),
    ],
)
def test_what_cannot_be_used_is_no_answer(useless):
    assert Intrinsics.told_by(useless, (480, 640)) is None
