"""Which boxes count as wrong."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")

from mmfusion.evaluate_detection import count_wrong_boxes
from mmfusion.metrics import JudgedBoxes

pytestmark = pytest.mark.torch

PERSON, CAR, LAMP = 0, 1, 2
HERE, NEAR, THERE = (0, 0, 10, 20), (0, 0, 10, 18), (50, 50, 80, 90)


def judged(found, truths, labelled=(PERSON, CAR)):
    """Found as (class, box, score), truths as (class, box)."""
    return JudgedBoxes(
        np.array([box for _, box, _ in found], np.float32).reshape(-1, 4),
        np.array([score for *_, score in found], np.float32),
        np.array([kind for kind, *_ in found], np.int64),
        np.array([box for _, box in truths], np.float32).reshape(-1, 4),
        np.array([kind for kind, _ in truths], np.int64),
        np.zeros(len(truths), np.bool_),
        frozenset(labelled),
    )


@pytest.mark.parametrize(
    ("found", "truths", "wrong"),
    [
        ([], [], (0, 0)),
        ([], [(PERSON, HERE), (CAR, THERE)], (2, 0)),
        ([(PERSON, HERE, 0.9)], [], (0, 1)),
        ([(PERSON, NEAR, 0.9)], [(PERSON, HERE)], (0, 0)),
        ([(CAR, NEAR, 0.9)], [(PERSON, HERE)], (1, 1)),
        ([(PERSON, THERE, 0.9)], [(PERSON, HERE)], (1, 1)),
        ([(PERSON, HERE, 0.29)], [(PERSON, HERE)], (1, 0)),
        ([(PERSON, (0, 0, 10, 9), 0.9)], [(PERSON, HERE)], (1, 1)),  # IoU 0.45
        ([(PERSON, NEAR, 0.5), (PERSON, HERE, 0.9)], [(PERSON, HERE)], (0, 1)),
        ([(PERSON, HERE, 0.9), (PERSON, HERE, 0.8)], [(PERSON, HERE), (PERSON, NEAR)], (0, 0)),
        ([(LAMP, HERE, 0.9)], [(LAMP, THERE)], (0, 0)),  # nobody looked for them
    ],
)
def test_wrong_boxes_are_missed_or_false(found, truths, wrong):
    assert count_wrong_boxes(judged(found, truths)) == wrong
