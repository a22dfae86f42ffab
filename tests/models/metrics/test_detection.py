"""Average precision is COCO's, on figures that other implementations agree on."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest

pytest.importorskip("faster_coco_eval", reason="mmfusion[eval] is not installed")

from mmfusion.metrics import JudgedBoxes, MetricError, average_precision

NAMES = ("one", "two", "three")
ALL = frozenset(range(3))


def reference_set() -> list[JudgedBoxes]:
    """Made of integers alone; pycocotools, faster-coco-eval and supervision give the same."""
    pictures = []
    for img in range(1, 5):
        truths, detections = [], []
        for k in range(6):
            x, y = (37 * img + 53 * k) % 240, (29 * img + 41 * k) % 170
            w, h = 10 + (17 * k + 11 * img) % 70, 8 + (13 * k + 7 * img) % 60
            c = 1 + (k + img) % 3
            truths.append((x, y, w, h, c))
            n = 6 * (img - 1) + k
            if n % 7 != 6:
                shifted = x + 5 * n % 9 - 3, y + 7 * n % 8 - 3, w + 3 * n % 9 - 4, h + 4 * n % 7 - 2
                kind = c if n % 5 else 1 + c % 3
                detections.append((*shifted, kind, 0.95 - 0.03 * n))
        detections.append((200, 10 * img, 40, 30, 1 + img % 3, 0.505 + 0.05 * img))
        truth, found = np.array(truths, float), np.array(detections, float)
        pictures.append(
            JudgedBoxes(
                boxes=corners(found),
                scores=found[:, 5],
                classes=found[:, 4].astype(int) - 1,
                truth_boxes=corners(truth),
                truth_classes=truth[:, 4].astype(int) - 1,
                crowd=np.zeros(6, bool),
                labelled=ALL,
            )
        )
    return pictures


def corners(rows: np.ndarray) -> np.ndarray:
    return np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1)


def picture(boxes=(), truths=(), *, crowd=(), labelled=ALL) -> JudgedBoxes:
    """Boxes as (left, class, score), truths as (left, class); all 20 x 20."""

    def squares(lefts) -> np.ndarray:
        return np.array([(x, 10, x + 20, 30) for x in lefts], np.float32).reshape(-1, 4)

    return JudgedBoxes(
        boxes=squares([b[0] for b in boxes]),
        scores=np.array([b[2] for b in boxes], np.float32),
        classes=np.array([b[1] for b in boxes], np.int32),
        truth_boxes=squares([t[0] for t in truths]),
        truth_classes=np.array([t[1] for t in truths], np.int32),
        crowd=np.array(crowd or [False] * len(truths), bool),
        labelled=labelled,
    )


def test_reference_figures():
    figures = average_precision(reference_set(), NAMES)
    mean = figures.mean
    assert (mean.ap, mean.ap50, mean.ap75) == pytest.approx(
        (0.275734, 0.480548, 0.274127), abs=1e-6
    )
    assert mean.truths == 24
    assert [figures.classes[name].ap for name in NAMES] == pytest.approx(
        [0.281188, 0.276598, 0.269417], abs=1e-6
    )
    assert [figures.classes[name].ap50 for name in NAMES] == pytest.approx(
        [0.455446, 0.484548, 0.501650], abs=1e-6
    )


def test_what_was_not_there_is_not_averaged():
    figures = average_precision([picture([(0, 0, 0.9), (50, 1, 0.8)], [(0, 0)])], NAMES)
    assert figures.mean.ap == figures.classes["one"].ap == pytest.approx(1.0)
    assert figures.classes["two"].ap is None
    assert figures.classes["two"].truths == 0


def test_nothing_found_and_nothing_to_find():
    assert average_precision([picture(truths=[(0, 0)])], NAMES).mean.ap == 0.0
    assert average_precision([picture()], NAMES).mean == dataclasses.replace(
        average_precision([picture([(0, 0, 0.5)])], NAMES).mean, truths=0
    )
    assert average_precision([picture()], NAMES).mean.ap is None


def test_detections_in_a_crowd_do_not_count_against():
    found = [(100, 0, 0.9), (0, 0, 0.8)]
    truths = [(0, 0), (100, 0)]
    with_crowd = average_precision([picture(found, truths, crowd=(False, True))], NAMES)
    assert with_crowd.mean.ap == pytest.approx(1.0)
    assert with_crowd.mean.truths == 1
    assert average_precision([picture(found, truths[:1])], NAMES).mean.ap == pytest.approx(0.5)


def test_classes_that_were_not_looked_for_in_a_picture_are_left_out_of_it():
    one = picture([(0, 0, 0.9), (100, 1, 0.95)], [(0, 0)], labelled=frozenset({0}))
    other = picture([(0, 1, 0.9)], [(0, 1)])
    assert average_precision([one, other], NAMES).mean.ap == pytest.approx(1.0)
    everything = dataclasses.replace(one, labelled=ALL)
    assert average_precision([everything, other], NAMES).mean.ap == pytest.approx(0.75)


def test_arrays_that_do_not_belong_together():
    with pytest.raises(MetricError, match="expected one number for each box"):
        dataclasses.replace(picture([(0, 0, 0.5)]), scores=np.zeros(2))
    with pytest.raises(MetricError, match=r"expected \(n, 4\)"):
        dataclasses.replace(picture(), boxes=np.zeros((0, 5)))
    with pytest.raises(MetricError, match="at least one"):
        average_precision([], NAMES)


def test_without_the_package_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(MetricError, match=r"pip install 'mmfusion\[eval\]'"):
        average_precision([picture()], NAMES)
