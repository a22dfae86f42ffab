"""Candidates become detections as a plain loop over pairs of boxes would have it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mmfusion_ros.core.detections import Detections, overlaps, suppress

ODD = [float("nan"), float("inf"), -float("inf")]
SIZE = (9, 10)  # of the picture: height, width
LARGE = (10**6, 10**6)  # all boxes with corners above 0 are inside
SCORES = [0.0, 0.25, 0.5, 0.75, 1.0]


LENIENT = {"min_score": 0.0, "limit": 9, "size": LARGE}


@st.composite
def candidates(draw):
    """Up to 12 in a small space, so that boxes coincide, touch and scores tie.

    Some reach beyond the picture or are all outside, some are empty or turned inside out, and up
    to two numbers are none.
    """
    k = draw(st.integers(0, 12))
    corners = draw(hnp.arrays(np.int8, (k, 2), elements=st.integers(-6, 12), fill=st.nothing()))
    sides = draw(hnp.arrays(np.int8, (k, 2), elements=st.integers(-1, 8), fill=st.nothing()))
    boxes = np.concatenate([corners, corners + sides], axis=1).astype(np.float32)
    scores = np.array(draw(st.lists(st.sampled_from(SCORES), min_size=k, max_size=k)), np.float32)
    kinds = draw(st.lists(st.integers(0, 2), min_size=k, max_size=k))
    for _ in range(draw(st.integers(0, 2)) if k else 0):
        place, odd = draw(st.integers(0, k - 1)), draw(st.sampled_from(ODD))
        if draw(st.booleans()):
            boxes[place, draw(st.integers(0, 3))] = odd
        else:
            scores[place] = odd
    # Depths tell the candidates apart.
    return boxes, scores, np.array(kinds, np.int32), np.arange(k, dtype=np.float32)


def overlap(first, second) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(width, 0.0) * max(height, 0.0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return shared / (sum(areas) - shared)


def cut(box) -> list[float]:
    return [min(max(value, 0), SIZE[1 - axis % 2]) for axis, value in enumerate(box)]


def plainly(boxes, scores, classes, *, min_score, iou, limit) -> list[int]:
    """Greedy suppression, box by box; then away with what is outside and with surplus."""
    usable = [
        place
        for place, (box, score) in enumerate(zip(boxes.tolist(), scores.tolist(), strict=True))
        if all(np.isfinite([*box, score]))
        and score >= min_score
        and box[2] > box[0]
        and box[3] > box[1]
    ]
    kept: list[int] = []
    for place in sorted(usable, key=lambda place: -scores[place]):  # stable
        rivals = [other for other in kept if classes[other] == classes[place]]
        if all(overlap(boxes[other], boxes[place]) <= iou for other in rivals):
            kept.append(place)
    counts: Counter[int] = Counter()
    result = []
    for place in kept:
        left, top, right, bottom = cut(boxes[place])
        if right > left and bottom > top and counts[classes[place]] < limit:
            counts[classes[place]] += 1
            result.append(place)
    return result


def chosen(found: Detections) -> list[int]:
    return found.depths.astype(int).tolist()


@given(
    candidates(),
    st.sampled_from([0.0, 0.25, 0.6]),
    st.sampled_from([0.1234, 0.3456, 0.7123]),  # not the overlap of any two such boxes
    st.integers(0, 12),
)
def test_the_same_as_box_by_box(given_candidates, min_score, iou, limit):
    boxes, scores, classes, depths = given_candidates
    settings = {"min_score": min_score, "iou": iou, "limit": limit}
    found = suppress(boxes, scores, classes, depths, **settings, size=SIZE)
    expected = plainly(boxes, scores, classes, **settings)
    assert chosen(found) == expected
    inside = np.array([cut(boxes[place]) for place in expected]).reshape(-1, 4)
    np.testing.assert_array_equal(found.boxes, inside)
    np.testing.assert_array_equal(found.scores, scores[expected])
    np.testing.assert_array_equal(found.classes, classes[expected])


@given(candidates(), st.sampled_from([0.25, 0.5, 0.6]), st.integers(1, 12))
def test_a_threshold_before_is_as_good_as_one_after(given_candidates, min_score, limit):
    settings = {"iou": 0.4, "limit": limit, "size": SIZE}
    before = suppress(*given_candidates, min_score=min_score, **settings)
    after = suppress(*given_candidates, min_score=0.0, **settings).above(min_score)
    assert chosen(before) == chosen(after)


@given(candidates(), st.randoms(use_true_random=False))
def test_the_order_of_the_candidates_does_not_matter_where_scores_differ(given_candidates, random):
    boxes, scores, classes, depths = given_candidates
    scores = np.linspace(1, 0.5, len(scores), dtype=np.float32)
    order = list(range(len(scores)))
    random.shuffle(order)
    shuffled = (array[order] for array in (boxes, scores, classes, depths))
    settings = {"min_score": 0.0, "iou": 0.4, "limit": 100, "size": SIZE}
    first = suppress(boxes, scores, classes, depths, **settings)
    assert chosen(first) == chosen(suppress(*shuffled, **settings))


@pytest.mark.torch
@pytest.mark.parametrize("seed", range(5))
def test_the_same_as_torchvision(seed):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    ops = pytest.importorskip("torchvision.ops", reason="torchvision is not installed")
    rng = np.random.default_rng(seed)
    corner, side = rng.integers(0, 80, (400, 2)), rng.integers(5, 60, (400, 2))
    boxes = np.concatenate([corner, corner + side], axis=1).astype(np.float32)
    scores = rng.permutation(400).astype(np.float32) / 400
    classes = rng.integers(0, 3, 400).astype(np.int32)
    kept = ops.batched_nms(*map(torch.from_numpy, (boxes, scores, classes.astype(np.int64))), 0.47)
    depths = np.arange(400, dtype=np.float32)
    settings = {"min_score": 0.0, "iou": 0.47, "limit": 400, "size": LARGE}
    found = suppress(boxes, scores, classes, depths, **settings)
    assert chosen(found) == kept.tolist()
    assert 20 < len(found) < 380


def test_classes_do_not_suppress_each_other():
    boxes = np.array([[0, 0, 10, 10]] * 3, np.float32)
    scores, classes = np.array([0.5, 0.9, 0.7], np.float32), np.array([0, 1, 1], np.int32)
    found = suppress(boxes, scores, classes, None, **LENIENT, iou=0.5)
    assert found.classes.tolist() == [1, 0]
    assert np.isnan(found.depths).all()


def test_an_overlap_of_just_the_limit_is_allowed():
    boxes = np.array([[0, 0, 2, 1], [0, 0, 1, 1]], np.float32)
    same = np.zeros(2, np.int32)
    for iou, count in ((0.5, 2), (0.49, 1)):
        found = suppress(boxes, np.ones(2, np.float32), same, None, **LENIENT, iou=iou)
        assert len(found) == count


def test_a_row_of_boxes_that_each_overlap_the_next():
    """Only kept boxes suppress: the third stays though the second would take it along."""
    boxes = np.array([[x, 0, x + 10, 10] for x in (0, 4, 8)], np.float32)
    scores = np.array([0.9, 0.8, 0.7], np.float32)
    found = suppress(boxes, scores, np.zeros(3, np.int32), None, **LENIENT, iou=0.4)
    assert found.boxes[:, 0].tolist() == [0, 8]


def test_boxes_are_told_apart_beyond_the_edge():
    """Cut to the picture, the two would be one: they are suppressed as they come, cut then."""
    boxes = np.array([[-90, 2, 10, 12], [-5, 2, 10, 12], [-9, 2, 0, 12]], np.float32)
    scores = np.array([0.9, 0.8, 0.7], np.float32)
    settings = {"min_score": 0.0, "iou": 0.4, "limit": 9, "size": (10, 20)}
    found = suppress(boxes, scores, np.array([0, 0, 1], np.int32), None, **settings)
    np.testing.assert_array_equal(found.boxes, [[0, 2, 10, 10]] * 2)
    assert boxes[0, 0] == -90  # what came is as it was


def test_each_class_has_a_limit_of_its_own_and_what_is_outside_does_not_count():
    left = np.arange(8) * 20 - 20
    boxes = np.column_stack([left, left * 0, left + 10, left * 0 + 10]).astype(np.float32)
    scores = np.linspace(0.9, 0.2, 8, dtype=np.float32)
    classes = np.array([0, 0, 0, 0, 0, 1, 1, 1], np.int32)
    settings = {"min_score": 0.0, "iou": 0.4, "limit": 2, "size": LARGE}
    found = suppress(boxes, scores, classes, np.arange(8, dtype=np.float32), **settings)
    assert chosen(found) == [1, 2, 5, 6]


def test_boxes_too_large_for_an_area():
    boxes = np.array([[-3e38, -3e38, 3e38, 3e38], [1, 1, 3, 3]], np.float32)
    classes = np.zeros(2, np.int32)
    found = suppress(boxes, np.ones(2, np.float32), classes, None, **LENIENT, iou=0.4)
    assert len(found) == 2


def test_overlaps_of_known_boxes():
    one = np.array([[0, 0, 4, 4]], np.float32)
    others = np.array([[0, 0, 4, 4], [2, 0, 6, 4], [4, 0, 8, 4], [1, 1, 3, 3]], np.float32)
    np.testing.assert_allclose(overlaps(one, others), [[1, 1 / 3, 0, 0.25]], rtol=1e-6)


def fields(count: int = 2, **changes) -> dict[str, np.ndarray]:
    return {
        "boxes": np.tile(np.array([0, 0, 1, 1], np.float32), (count, 1)),
        "scores": np.linspace(0.9, 0.1, count, dtype=np.float32),
        "classes": np.zeros(count, np.int32),
        "depths": np.full(count, np.nan, np.float32),
        **changes,
    }


class TestDetections:
    def test_none(self):
        none = Detections(**fields(0))
        assert len(none) == 0
        assert len(none.above(0.0)) == 0

    def test_above(self):
        found = Detections(**fields(5))
        assert found.above(0.5).scores.tolist() == found.scores[:3].tolist()
        assert len(found.above(1.0)) == 0

    def test_arrays_cannot_be_changed(self):
        found = Detections(**fields())
        with pytest.raises(ValueError, match="read-only"):
            found.boxes[0, 0] = 7

    def test_what_the_caller_has_can_still_be_changed(self):
        given = fields()
        Detections(**given)
        for array in given.values():
            array[:1] = 0

    @pytest.mark.parametrize(
        ("changes", "named"),
        [
            ({"boxes": np.zeros((2, 5), np.float32)}, r"boxes of detections are float32 \[2, 5\]"),
            ({"boxes": np.zeros((2, 4))}, "boxes of detections are float64"),
            ({"classes": np.zeros(2, np.int64)}, "classes of detections are int64"),
            ({"depths": np.zeros(3, np.float32)}, r"depths of detections are float32 \[3\]"),
            ({"boxes": np.full((2, 4), np.nan, np.float32)}, "must be finite"),
            ({"scores": np.array([0.1, 0.2], np.float32)}, "sorted by falling score"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, changes, named):
        with pytest.raises(ValueError, match=named):
            Detections(**fields(**changes))
