"""A panel shows what there is of a set, side by side."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("mmfusion.metrics", reason="the networks' package is not installed")

from mmfusion_ros.core.coco_boxes import TruthBoxes
from mmfusion_ros.core.detections import Detections
from mmfusion_ros.core.frames import Absence, Companion, Frame, FrameSet, Modality, SourceImage
from mmfusion_ros.core.ground_truth import GroundTruth
from mmfusion_ros.core.results import Results
from mmfusion_ros.panels import columns, panel

HEIGHT, WIDTH = 48, 64
ABSENT = Companion(None, Absence.ABSENT, None)
NAMES = ("person",)
FOUND = Detections(
    boxes=np.array([[8, 20, 24, 40]], np.float32),
    scores=np.array([0.9], np.float32),
    classes=np.zeros(1, np.int32),
    depths=np.array([np.nan], np.float32),
)


def results(present=("rgb",), scale: int = 1, **found) -> Results:
    height, width = HEIGHT * scale, WIDTH * scale
    rgb = np.full((height, width, 3), 60, np.uint8)
    image = SourceImage(rgb, height, width, "rgb8", 3 * width)
    return Results(
        frames=FrameSet(Frame(Modality.RGB, 5, "rgb", image), ABSENT, ABSENT),
        fused=np.full_like(rgb, 90),
        registered_thermal=None,
        thermal_range=(0.0, 1.0),
        present=frozenset(map(Modality, present)),
        stages={},
        problems={},
        **found,
    )


def pictures(file: bytes, count: int) -> list[np.ndarray]:
    strip = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    return np.split(strip, count, axis=1)


def test_columns_have_names():
    assert columns(("fused",)) == ["colour", "thermal", "fused"]
    assert columns(("fused", "saliency"))[3:] == ["saliency"]
    assert columns(("fused", "boxes", "scores"))[3:] == ["detections"]
    assert columns(("fused", "boxes", "saliency"))[3:] == ["saliency and detections"]


def test_an_artifact_that_only_fuses():
    colour, thermal, fused = pictures(panel(results(), GroundTruth(), NAMES), 3)
    assert [p.shape for p in (colour, thermal, fused)] == [(HEIGHT, WIDTH, 3)] * 3
    assert {int(p.mean()) for p in (colour, thermal, fused)} == {60, 128, 90}


def test_what_was_found_is_drawn_into_the_last():
    saliency = np.zeros((HEIGHT, WIDTH), np.uint8)
    saliency[:, 32:] = 255
    file = panel(results(saliency=saliency, detections=FOUND), GroundTruth(), NAMES)
    *_, fused, found = pictures(file, 4)
    assert (fused == 90).all()
    assert (found[:, 60] != 90).all(axis=1).all()
    assert (found[30, 8] != 90).any()
    assert (found[45, :30] == 90).all()


def test_truth_is_drawn_where_it_is_known(tmp_path: Path):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[10:40, 40:60] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    truth_boxes = TruthBoxes(
        boxes=np.array([[2, 2, 30, 46]], np.float32),
        classes=np.zeros(1, np.int32),
        crowd=np.zeros(1, bool),
        labelled=frozenset({0}),
        size=None,
    )
    truth = GroundTruth({5: tmp_path / "mask.png"}, {5: truth_boxes})
    step = results(detections=FOUND)
    found = pictures(panel(step, truth, NAMES), 4)[3]
    white = (found == 255).all(axis=2)
    assert white[45, 2:30].any()
    assert white[39, 40:60].any()
    other = dataclasses.replace(
        step,
        frames=dataclasses.replace(
            step.frames, rgb=dataclasses.replace(step.frames.rgb, stamp_ns=6)
        ),
    )
    assert not (pictures(panel(other, truth, NAMES), 4)[3] == 255).all(axis=2).any()


def test_without_colour_nothing_was_found():
    file = panel(results(present=(), detections=FOUND), GroundTruth(), NAMES)
    colour, _, _, found = pictures(file, 4)
    assert (colour == 128).all()
    assert (found == 128).all()


def test_large_pictures_are_made_smaller():
    file = panel(results(scale=20), GroundTruth(), NAMES)
    assert pictures(file, 3)[0].shape == (330, 440, 3)
