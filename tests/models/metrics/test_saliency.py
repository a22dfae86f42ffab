"""Saliency is measured as published, on figures worked out beside the package."""

from __future__ import annotations

import sys
import zlib

import numpy as np
import pytest
from reference_images import waves

pytest.importorskip("py_sod_metrics", reason="mmfusion[eval] is not installed")

from mmfusion.metrics import (
    MetricError,
    compare_saliency,
    structure_and_error,
    summarise_saliency,
)

HEIGHT, WIDTH = 240, 320
NAMES = ("MAE", "S", "E_max", "E_mean", "E_adaptive", "F_max", "F_mean", "F_adaptive", "F_weighted")


@pytest.fixture(scope="module")
def maps() -> dict[str, np.ndarray]:
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
    noise = waves("saliency", 1, HEIGHT, WIDTH)[0].astype(np.float64)
    ellipse = ((x - 180) / 75) ** 2 + ((y - 115) / 55) ** 2 <= 1
    pred = np.rint(255 * np.clip(0.7 * ellipse + 0.3 * noise, 0, 1)).astype(np.uint8)
    gt = 255 * (((x - 170) / 70) ** 2 + ((y - 110) / 50) ** 2 <= 1).astype(np.uint8)
    assert zlib.crc32(gt.tobytes()) == 0xCF74A0C7
    assert zlib.crc32(pred.tobytes()) == 0xE6DAF918
    return {
        "pred": pred,
        "noise": np.rint(255 * noise).astype(np.uint8),
        "gt": gt,
        "empty": np.zeros_like(gt),
        "full": np.full_like(gt, 255),
    }


# Map, mask and figures in the order of NAMES.
TABLE = """
pred  gt    0.176375 0.783157 0.957405 0.720555 0.955293 0.841686 0.629613 0.841686 0.436611
noise gt    0.500026 0.329720 0.789350 0.359663 0.310436 0.178107 0.156215 0.034702 0.145736
pred  empty 0.267882 0.732118 0.998177 0.729268 0.831508 0        0        0        0
pred  full  0.732118 0.267882 1.000013 0.270745 0.168505 1        0.512085 0.467561 0.452103
gt    gt    0        1        1.000013 0.997083 1.000013 1        0.996789 1        1
empty gt    0.142878 0.428561 0.250003 0.250003 0.250003 0.178107 0.000696 0.178107 0
"""
ROWS = [line.split() for line in TABLE.strip().splitlines()]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join(row[:2]))
def test_reference_figures(maps, row):
    saliency, truth = (maps[name] for name in row[:2])
    summary = summarise_saliency([compare_saliency(saliency, truth)])
    expected = [float(value) for value in row[2:]]
    assert [summary[name] for name in NAMES] == pytest.approx(expected, abs=2e-6)
    structure, error = structure_and_error(saliency, truth)
    assert (structure, error) == (summary["S"], summary["MAE"])


def test_the_best_of_a_set_is_that_of_its_mean_curve(maps):
    summary = summarise_saliency(
        [compare_saliency(maps[name], maps["gt"]) for name in ("pred", "noise")]
    )
    expected = (0.338200, 0.556438, 0.841017, 0.540109, 0.632864)  # and F
    expected += (0.508442, 0.392914, 0.438194, 0.291174)
    assert [summary[name] for name in NAMES] == pytest.approx(expected, abs=2e-6)


def test_pictures_are_not_changed(maps):
    before = {name: picture.copy() for name, picture in maps.items()}
    compare_saliency(maps["pred"], maps["gt"])
    for name, picture in maps.items():
        np.testing.assert_array_equal(picture, before[name])


def test_what_cannot_be_measured(maps):
    with pytest.raises(MetricError, match="320x240 but its truth 320x239"):
        compare_saliency(maps["pred"], maps["gt"][1:])
    with pytest.raises(MetricError, match="320x240 but its truth 320x239"):
        structure_and_error(maps["pred"], maps["gt"][1:])
    with pytest.raises(MetricError, match="truth is float64"):
        compare_saliency(maps["pred"], maps["gt"] / 255)
    with pytest.raises(MetricError, match="at least one"):
        summarise_saliency([])


def test_without_the_package_it_is_said_what_to_install(maps, monkeypatch):
    monkeypatch.setitem(sys.modules, "py_sod_metrics", None)
    with pytest.raises(MetricError, match=r"pip install 'mmfusion\[eval\]'"):
        compare_saliency(maps["pred"], maps["gt"])
