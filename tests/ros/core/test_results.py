"""Results are checked when they are made."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mmfusion_ros.core.frames import Absence, Companion, Frame, FrameSet, Modality, SourceImage
from mmfusion_ros.core.results import Results

FUSED = np.zeros((4, 6, 3), np.uint8)
THERMAL = np.ones((4, 6), np.uint8)


def results(**changes: Any) -> Results:
    rgb = Frame(Modality.RGB, 5, "camera", SourceImage(bytes(72), 4, 6, "rgb8", 18))
    nothing = Companion(None, Absence.ABSENT, None)
    fields: dict[str, Any] = {
        "frames": FrameSet(rgb, nothing, nothing),
        "fused": FUSED,
        "registered_thermal": None,
        "thermal_range": (0.0, 1.0),
        "present": frozenset({Modality.RGB}),
        "stages": {},
        "problems": {},
    }
    return Results(**{**fields, **changes})


def test_images_are_those_that_are_there():
    only = results().images
    assert list(only) == ["fused"]
    assert only["fused"] is FUSED
    both = results(registered_thermal=THERMAL).images
    assert list(both) == ["fused", "registered_thermal"]
    assert both["registered_thermal"] is THERMAL
    assert list(results(saliency=THERMAL).images) == ["fused", "saliency"]


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("fused", FUSED.astype(np.float32), "fused is float32 with 3 dimensions, expected uint8"),
        ("fused", FUSED[None], "fused is uint8 with 4 dimensions, expected uint8 with 3"),
        ("fused", THERMAL, "fused is uint8 with 2 dimensions"),
        ("registered_thermal", FUSED, "registered_thermal is uint8 with 3 dimensions, .* with 2"),
        ("registered_thermal", THERMAL.astype(bool), "registered_thermal is bool"),
        ("saliency", FUSED, "saliency is uint8 with 3 dimensions, expected uint8 with 2"),
        ("saliency", THERMAL.astype(np.float32), "saliency is float32"),
    ],
)
def test_outputs_that_are_no_pictures_are_refused(name, array, message):
    with pytest.raises(ValueError, match=message):
        results(**{name: array})


def test_results_cannot_be_changed():
    with pytest.raises(AttributeError):
        results().fused = THERMAL
