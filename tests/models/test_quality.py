"""From figures to the manifest's entries."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")

from mmfusion.manifest import evaluation_validator
from mmfusion.quality import describe_data, quality_entries, write_evaluation

pytestmark = pytest.mark.torch

FIGURES = {
    "rgb+thermal": {"VIF": 0.12345, "SCD": 1.0, "SSIM": math.nan},
    "thermal": {"VIF": 0.1, "SCD": 2.0, "SSIM": 0.9996},
}


def test_each_set_is_stated_with_and_without_what_is_not_read():
    entries = quality_entries(FIGURES, ("VIF", "SSIM"), "depth", "3 pairs")
    unread = "3 pairs; depth is not read"
    assert entries == [
        {"modalities": ["rgb", "thermal"], "data": "3 pairs", "metrics": {"VIF": 0.123}},
        {"modalities": ["rgb", "depth", "thermal"], "data": unread, "metrics": {"VIF": 0.123}},
        {"modalities": ["thermal"], "data": "3 pairs", "metrics": {"VIF": 0.1, "SSIM": 1.0}},
        {"modalities": ["depth", "thermal"], "data": unread, "metrics": {"VIF": 0.1, "SSIM": 1.0}},
    ]


def test_they_are_what_a_manifest_takes(tmp_path):
    record = {
        "checkpoint_sha256": "0" * 64,
        "means": FIGURES,
        "quality": quality_entries(FIGURES, ("VIF", "SSIM"), "depth", "3 pairs"),
    }
    write_evaluation(tmp_path / "new" / "evaluation.json", record)
    read = json.loads(
        (tmp_path / "new" / "evaluation.json").read_text(), parse_constant=pytest.fail
    )
    assert read["quality"] == record["quality"]
    assert read["means"]["rgb+thermal"] == {"VIF": 0.12345, "SCD": 1.0, "SSIM": None}
    assert evaluation_validator().is_valid(read)
    assert not evaluation_validator().is_valid(read | {"checkpoint_sha256": "0"})
    assert not evaluation_validator().is_valid(read | {"quality": [{"modalities": ["radar"]}]})


@pytest.mark.parametrize(
    ("count", "folders", "text"),
    [
        (1, ["a"], "1 pair of a"),
        (45, ["x/a", "y/b", "c", "y/b"], "45 pairs of a, b and c"),
    ],
)
def test_data_are_described_by_their_folders(count, folders, text):
    assert describe_data(count, "pair", [Path(folder) for folder in folders]) == text


def test_a_folder_has_its_name_from_within(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert describe_data(2, "scene", [Path()]) == f"2 scenes of {tmp_path.name}"
