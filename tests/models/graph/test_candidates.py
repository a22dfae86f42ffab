"""From a detector's raw output to what the graph puts out."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from hypothesis import given, settings
from hypothesis import strategies as st

from mmfusion.efficientmfd.post_processing import CANDIDATES
from mmfusion.graph.detections import best, box_depth, fuse_colour

pytestmark = pytest.mark.torch
SIZE = (48, 64)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 200), st.integers(1, 7), st.integers(0, 2**32 - 1))
def test_the_best_pairs_of_proposal_and_class_come_by_falling_score(proposals, classes, seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(proposals, classes)).astype(np.float32)
    boxes = rng.uniform(0, 40, (proposals, 4)).astype(np.float32)
    found = best(torch.from_numpy(logits), torch.from_numpy(boxes))
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    expected = np.sort(probabilities, axis=None)[::-1][:CANDIDATES]
    np.testing.assert_allclose(found.scores.numpy(), expected, rtol=1e-5)
    assert (np.diff(found.scores.numpy()) <= 0).all()
    assert found.classes.dtype == torch.int32
    # Equal scores may come in any order, so each is looked up by its box.
    numbers = {tuple(box): number for number, box in enumerate(boxes)}
    pairs = [
        (numbers[tuple(box)], int(label))
        for box, label in zip(found.boxes.numpy(), found.classes.numpy(), strict=True)
    ]
    assert len(set(pairs)) == len(pairs)
    own = [probabilities[pair] for pair in pairs]
    np.testing.assert_allclose(found.scores.numpy(), own, rtol=1e-5)


def test_boxes_that_are_not_finite_score_nothing():
    boxes = torch.tensor([[1.0, 2, 3, float("nan")], [-9, 0, 9, 9], [0, 0, float("inf"), 9]])
    found = best(torch.tensor([[3.0], [1.0], [2.0]]), boxes)
    assert found.boxes.tolist() == [[-9, 0, 9, 9], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert found.scores.tolist() == [pytest.approx(0.7310586), 0, 0]
    assert np.isfinite(depth_of(found.boxes.tolist(), np.full(SIZE, 2.0))).all()


def test_colours_keep_hue_and_saturation():
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (*SIZE, 3), np.uint8)
    rgb[0, 0] = 0
    infrared = rng.random(SIZE).astype(np.float32)
    weights = rng.random((2, *SIZE)).astype(np.float32)
    fused = fuse_colour(
        torch.from_numpy(rgb).permute(2, 0, 1)[None] / 255,
        torch.from_numpy(infrared)[None, None],
        torch.from_numpy(weights)[None],
    )[0]
    value = np.clip(weights[0] * infrared + weights[1] * rgb.max(-1) / 255, 0, 1)
    np.testing.assert_allclose(fused.amax(0).numpy(), value, atol=1e-6)
    hsv = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    hsv[..., 2] = value
    expected = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    np.testing.assert_allclose(fused.permute(1, 2, 0).numpy(), expected, atol=1e-4)


def depth_of(boxes, metres, valid=None, size=SIZE):
    metres = torch.as_tensor(metres, dtype=torch.float32)[None, None]
    valid = torch.ones_like(metres) if valid is None else torch.as_tensor(valid)[None, None]
    return box_depth(torch.tensor(boxes, dtype=torch.float32), metres, valid.float(), size).numpy()


def test_a_box_has_the_median_depth_of_its_middle():
    metres = np.full(SIZE, 9.0)
    metres[10:30, 20:40] = 3  # the object; 9 m behind it
    found = depth_of([[20.0, 10, 40, 30], [15.0, 5, 45, 35], [0, 0, 10, 10]], metres)
    assert found.tolist() == [3, 3, 9]
    # Of a box beyond the edge, what lies in the picture counts.
    assert depth_of([[-200.0, 0, 10, 10], [20, -90, 40, 50]], metres).tolist() == [9, 3]


def test_a_few_wrong_depths_do_not_count():
    metres = np.full(SIZE, 3.0)
    metres[18:22, 20:40] = 0.01
    assert depth_of([[20.0, 10, 40, 30]], metres).tolist() == [3]


def test_holes_are_left_out_and_too_many_leave_no_depth():
    metres, valid = np.full(SIZE, 5.0), np.ones(SIZE)
    valid[:, 30:] = 0
    metres[:, 30:] = 0
    found = depth_of([[20.0, 10, 40, 30], [30, 10, 50, 30], [40, 20, 40, 20]], metres, valid)
    assert found[0] == 5
    assert np.isnan(found[1:]).all()


def test_depth_of_another_resolution_is_looked_up_where_it_is():
    metres = np.full((24, 32), 9.0)
    metres[5:15, 10:20] = 3
    assert depth_of([[20.0, 10, 40, 30], [50, 40, 60, 46]], metres).tolist() == [3, 9]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_depth_is_one_of_those_in_the_box(seed):
    rng = np.random.default_rng(seed)
    metres = rng.uniform(0.5, 9, SIZE).astype(np.float32)
    valid = rng.random(SIZE) < 0.5
    x, y = np.sort(rng.uniform(0, 64, 2)), np.sort(rng.uniform(0, 48, 2))
    depth = depth_of([[x[0], y[0], x[1], y[1]]], metres, valid.astype(np.float32))[0]
    rows, columns = (slice(int(a), int(b) + 1) for a, b in (y, x))
    inside = metres[rows, columns][valid[rows, columns]]
    assert np.isnan(depth) or depth in inside
