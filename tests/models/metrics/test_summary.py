"""Frames to one line per measure."""

import math

import pytest

from mmfusion.metrics import aggregate


def test_no_frames():
    assert aggregate([]) == {}


def test_undefined_frames_are_left_out_and_counted():
    frames = [
        {"a": 1.0, "b": math.nan},
        {"a": math.nan},
        {"a": math.inf},
        {"a": 3.0, "b": math.nan},
    ]
    summary = aggregate(frames)
    assert list(summary) == ["a", "b"]
    assert (summary["a"].mean, summary["a"].p50) == (2.0, 2.0)
    assert (summary["a"].count, summary["a"].left_out) == (2, 2)
    assert math.isnan(summary["b"].mean)
    assert math.isnan(summary["b"].p95)
    assert (summary["b"].count, summary["b"].left_out) == (0, 4)


def test_percentiles():
    summary = aggregate({"a": float(i)} for i in range(101))["a"]
    assert (summary.p5, summary.p50, summary.p95) == pytest.approx((5.0, 50.0, 95.0))
    assert summary.mean == pytest.approx(50.0)
