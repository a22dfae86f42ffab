"""What is measured is what was fused, from thermal as it was shown."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

metrics = pytest.importorskip("mmfusion.metrics", reason="the networks' package is not installed")

from mmfusion_ros.core.frames import Absence, Companion, Frame, FrameSet, Modality, SourceImage
from mmfusion_ros.core.results import Results
from mmfusion_ros.core.stepper import Step
from mmfusion_ros.evaluation import label, measure, summarise, thermal_picture

ABSENT = Companion(None, Absence.ABSENT, None)


def step(size=(48, 64), thermal_size=None, registered=None, present=("rgb", "thermal")) -> Step:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (*size, 3), np.uint8)
    counts = np.linspace(18_000, 22_000, np.prod(thermal_size or size)).astype(np.uint16)
    height, width = thermal_size or size
    frames = FrameSet(
        Frame(Modality.RGB, 1, "rgb", SourceImage(rgb, *size, "rgb8", 3 * size[1])),
        ABSENT,
        Companion(
            Frame(
                Modality.THERMAL,
                1,
                "thermal",
                SourceImage(counts, height, width, "mono16", 2 * width),
            ),
            None,
            0,
        ),
    )
    results = Results(
        frames=frames,
        fused=rgb[::-1].copy(),
        registered_thermal=registered,
        thermal_range=(19_000.0, 21_000.0),
        present=frozenset(map(Modality, present)),
        stages={},
        problems={},
    )
    return Step(0, 0, results)


def test_labels():
    assert label(frozenset(Modality)) == "rgb+depth+thermal"
    assert label(frozenset()) == "none"


def test_counts_are_shown_in_the_display_range_at_the_size_of_colour():
    shown = thermal_picture(step(thermal_size=(24, 32)).results)
    assert shown.shape == (48, 64)
    assert shown.dtype == np.uint8
    assert (shown[0] == 0).all()
    assert (shown[-1] == 255).all()
    assert 120 < shown[24, 32] < 136


def test_registered_thermal_is_taken_as_it_is():
    registered = np.full((48, 64), 9, np.uint8)
    assert thermal_picture(step(registered=registered).results) is registered


def test_the_values_are_those_of_the_metrics():
    one = step()
    measured = measure(one, "luma", None)
    rgb = one.results.frames.rgb.image.data
    visible, thermal = metrics.luma(rgb), thermal_picture(one.results)
    expected = metrics.fusion_metrics(metrics.luma(one.results.fused), thermal, visible)
    assert measured.values["fused"] == expected
    largest = metrics.fusion_metrics(np.maximum(visible, thermal), thermal, visible)
    assert measured.values["maximum"] == largest
    assert measured.panel is None


@pytest.mark.parametrize("present", [("rgb",), ("thermal",), ()])
def test_without_both_inputs_only_the_picture_itself_is_measured(present):
    measured = measure(step(present=present), "value", b"panel")
    assert {method: set(values) for method, values in measured.values.items()} == {
        "fused": {"EN", "SD", "SF", "AG"}
    }
    assert measured.panel == b"panel"


def test_small_pictures_are_measured_as_far_as_possible():
    measured = measure(step(size=(20, 30)), "luma", None)
    assert "VIF" not in measured.values["fused"]
    assert "SSIM" in measured.values["fused"]


def test_summary_by_modality_set():
    one = measure(step(), "luma", None)
    other = dataclasses.replace(one, modalities="rgb", values={"fused": {"EN": 1.0}})
    summary = summarise([one, other, one])
    assert list(summary) == ["rgb+thermal", "rgb"]
    assert summary["rgb+thermal"]["measured"] == 2
    assert summary["rgb"]["fused"]["EN"]["mean"] == 1.0
    assert "average" not in summary["rgb"]
