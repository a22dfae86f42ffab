"""Measures of likeness, against values known by hand and another implementation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mmfusion_ros.core.engines.likeness import (
    EQUAL_DB,
    MatchedShare,
    mean_absolute_error,
    psnr_db,
    ssim,
)

SIZE = (48, 64)
BOXES = np.array([[8, 4, 24, 28], [30, 10, 50, 40], [0, 0, 0, 0]], np.float32)
SCORES = np.array([0.9, 0.8, 0.0], np.float32)
CLASSES = np.array([0, 1, 0], np.int32)


def outputs(boxes=BOXES, scores=SCORES, classes=CLASSES):
    return {"boxes": boxes, "scores": scores, "classes": classes}


def share(*pairs):
    counted = MatchedShare(0.5, 100, SIZE)
    for reference, other in pairs:
        counted.add(reference, other)
    return counted.value


def test_psnr_of_one_grey_level():
    picture = np.full((4, 5, 3), 7, np.uint8)
    assert psnr_db(picture, picture + 1) == pytest.approx(10 * math.log10(255**2))
    assert psnr_db(picture + 1, picture) == psnr_db(picture, picture + 1)
    assert psnr_db(picture, picture) == EQUAL_DB


def test_psnr_knows_no_overflow():
    assert psnr_db(np.zeros((2, 2), np.uint8), np.full((2, 2), 255, np.uint8)) == 0


def test_mean_absolute_error():
    assert mean_absolute_error(np.array([0, 255], np.uint8), np.array([3, 250], np.uint8)) == 4


@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 3)])
def test_ssim_is_what_scikit_image_says(shape):
    metrics = pytest.importorskip("skimage.metrics")
    rng = np.random.default_rng(0)
    first = rng.integers(0, 256, shape, np.uint8)
    second = np.clip(first.astype(int) + rng.integers(-30, 30, shape), 0, 255).astype(np.uint8)
    expected = metrics.structural_similarity(
        first,
        second,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
        channel_axis=2 if len(shape) == 3 else None,
    )
    # That one leaves out the margin.
    assert ssim(first, second) == pytest.approx(expected, abs=5e-3)
    assert ssim(first, first) == pytest.approx(1)


def test_the_same_detections_match():
    assert share((outputs(), outputs())) == 1


def test_nothing_found_is_no_figure():
    nothing = outputs(scores=np.zeros(3, np.float32))
    assert math.isnan(share((nothing, nothing)))


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (outputs(boxes=BOXES + np.float32(1)), 1),
        (outputs(boxes=BOXES + np.array([[0], [14], [0]], np.float32)), 0.5),
        (outputs(classes=1 - CLASSES), 0),
        (outputs(scores=np.array([0.9, 0.2, 0], np.float32)), 1),  # slipped below the line
        (outputs(scores=np.array([0.9, 0.1, 0], np.float32)), 2 / 3),  # lost
        (outputs(scores=np.zeros(3, np.float32)), 0),
        (outputs(scores=np.array([0.9, np.nan, 0], np.float32)), 2 / 3),
    ],
)
def test_shares(other, expected):
    assert share((outputs(), other)) == pytest.approx(expected)
    assert share((other, outputs())) == pytest.approx(expected)


def test_what_is_published_by_default_is_asked_for():
    weak, nothing = (outputs(scores=np.float32([score, 0, 0])) for score in (0.31, 0))
    assert share((weak, nothing)) == 0
    assert math.isnan(share((outputs(scores=np.float32([0.29, 0, 0])), nothing)))


def test_frames_are_counted_together():
    lost = outputs(scores=np.array([0.9, 0.1, 0], np.float32))
    assert share((outputs(), outputs()), (outputs(), lost)) == pytest.approx(6 / 7)


def test_a_partner_serves_once():
    """Two boxes of the reference that overlap each other, one of the other engine."""
    near = BOXES[[0, 0, 2]] + np.array([[0, 0, 0, 0], [0, 8, 0, 8], [0, 0, 0, 0]], np.float32)
    both = outputs(boxes=near, classes=np.zeros(3, np.int32))
    one = outputs(scores=np.array([0.9, 0, 0], np.float32))
    assert share((both, one)) == pytest.approx(2 / 3)
