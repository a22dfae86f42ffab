"""The drawing shows what it should where it should, and leaves its input alone."""

from __future__ import annotations

import numpy as np
import pytest

from mmfusion_ros.core.detections import Detections
from mmfusion_ros.core.overlay import class_colour, draw_overlay, draw_truth, label_of

GREY = np.full((120, 160, 3), 100, np.uint8)
NAMES = ("person", "car")
NO_BOXES = np.zeros((0, 4), np.float32)


def detections(*boxes, classes=None) -> Detections:
    count = len(boxes)
    return Detections(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.linspace(0.9, 0.5, count, dtype=np.float32),
        classes=np.array(classes or [0] * count, np.int32),
        depths=np.full(count, np.nan, np.float32),
    )


def test_with_nothing_to_say_it_is_a_copy_of_the_picture():
    for saliency in (None, np.zeros(GREY.shape[:2], np.uint8)):
        drawn = draw_overlay(GREY, saliency, detections(), NAMES)
        np.testing.assert_array_equal(drawn, GREY)
        assert not np.shares_memory(drawn, GREY)


def test_the_tint_grows_with_the_saliency():
    saliency = np.zeros(GREY.shape[:2], np.uint8)
    saliency[:, 40:80], saliency[:, 80:] = 128, 255
    drawn = draw_overlay(GREY, saliency, None, NAMES)
    red, blue = drawn[0, [0, 60, 120], 0].astype(int), drawn[0, [0, 60, 120], 2].astype(int)
    assert red[0] == blue[0] == 100
    assert red[0] < red[1] < red[2]
    assert blue[0] > blue[1] > blue[2]


def test_a_box_is_framed_by_its_outermost_pixels():
    drawn = draw_overlay(GREY, None, detections([30, 40, 90, 100]), NAMES)
    colour = list(class_colour(0))
    assert drawn[60, 30].tolist() == drawn[60, 89].tolist() == colour
    assert drawn[99, 60].tolist() == colour
    np.testing.assert_array_equal(drawn[45:95, 35:85], GREY[45:95, 35:85])
    np.testing.assert_array_equal(drawn[:, 140:], GREY[:, 140:])


@pytest.mark.parametrize(
    "box", [[0, 0, 160, 120], [-5, -5, 3, 3], [150, 110, 170, 130], [0.2, 0.2, 0.4, 0.4]]
)
def test_boxes_at_the_border(box):
    drawn = draw_overlay(GREY, None, detections(box), NAMES)
    assert drawn.shape == GREY.shape
    assert (drawn != GREY).any()


def test_the_best_is_on_top():
    same = [30, 40, 90, 100]
    drawn = draw_overlay(GREY, None, detections(same, same, classes=[1, 0]), NAMES)
    assert drawn[60, 30].tolist() == list(class_colour(1))


def test_classes_have_colours_of_their_own():
    colours = [class_colour(index) for index in range(10)]
    assert len(set(colours)) == 10
    assert colours == [class_colour(index) for index in range(10)]


def test_labels():
    assert label_of("person", 0.8749, 3.21) == "person 0.87 3.2 m"
    assert label_of("car", 0.5, float("nan")) == "car 0.50"


def test_truth_is_white_and_dashed():
    picture = GREY.copy()
    draw_truth(picture, None, np.array([[30, 40, 90, 100]], np.float32))
    edge = (picture[40, 30:90] == 255).all(axis=1)
    assert 0.3 < edge.mean() < 0.7
    np.testing.assert_array_equal(picture[45:95, 35:85], GREY[45:95, 35:85])


def test_the_outline_of_a_truth_mask_is_dashed_too():
    mask = np.zeros(GREY.shape[:2], np.uint8)
    mask[40:100, 30:90] = 255
    picture = GREY.copy()
    draw_truth(picture, mask, NO_BOXES)
    edge = (picture[40, 30:90] == 255).all(axis=1)
    assert 0.3 < edge.mean() < 0.7
    np.testing.assert_array_equal(picture[45:95, 35:85], GREY[45:95, 35:85])
    draw_truth(picture, np.zeros_like(mask), NO_BOXES)
