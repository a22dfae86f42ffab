"""Two artifacts on the same bag: the same frames, the differences, both results complete."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from artifacts import write_artifact
from bags import cameras, pictures, write_bag
from replays import differing, metrics_of, read_json, run, run_all

pytest.importorskip("mmfusion.metrics", reason="the networks' package is not installed")

from mmfusion_ros.result_pictures import FUSED, RGB, read_pictures

SIZE = (48, 64)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory) -> tuple[Path, Path]:
    """The second registers thermal by itself, so that its figures differ."""
    folder = tmp_path_factory.mktemp("artifacts")
    first = write_artifact(folder / "plain", registered_thermal=False, saliency=True)
    return first, write_artifact(folder / "tiny", saliency=True)


@pytest.fixture(scope="module")
def out(artifacts, bag, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("compared") / "out"
    assert run(bag, artifacts[0], folder, "--compare", artifacts[1]) == 0
    return folder


def test_both_results_are_those_of_a_replay_alone(artifacts, bag, out, tmp_path):
    assert sorted(path.name for path in out.iterdir()) == [
        *("compare.html", "compare.json", "plain", "tiny")
    ]
    for artifact in artifacts:
        assert run(bag, artifact, tmp_path / artifact.name) == 0
        assert differing(out / artifact.name, tmp_path / artifact.name) == []


def test_differences_are_of_the_same_frames(out):
    document = read_json(out / "compare.json")
    assert [artifact["name"] for artifact in document["artifacts"]] == ["plain", "tiny"]
    both = document["modalities"]["rgb+depth+thermal"]
    assert both["measured"] == 4
    frames = [
        [f for f in metrics_of(out / name)["frames"] if "thermal" in f["modalities"]]
        for name in ("plain", "tiny")
    ]
    for metric, line in both["metrics"].items():
        first, second = (np.array([f["fused"][metric] for f in part]) for part in frames)
        assert line["difference"] == pytest.approx((second - first).mean())
        assert line["first"] == pytest.approx(first.mean())
        assert line["second_wins"] == (second > first).sum()
        assert line["first_wins"] == (second < first).sum()
        assert (
            line["pairs"] == 4 == sum(line[kind] for kind in ("first_wins", "second_wins", "ties"))
        )
    assert both["metrics"]["MI"]["second_wins"] == 4
    alone = document["modalities"]["rgb+depth"]["metrics"]
    assert (alone["SD"]["difference"], alone["SD"]["ties"]) == (0, 2)
    assert document["latency"]["sets"] == 6
    assert document["latency"]["ratio_p50"] > 0


def test_the_page_shows_both(out):
    page = (out / "compare.html").read_text()
    for link in re.findall(r'href="([^"]+)"', page):
        assert (out / link).is_file()
    assert page.count("data:image/jpeg;base64,") >= 4
    assert "http" not in page
    assert ("most ahead" in page) == any(
        part["metrics"].get("Q_ABF", {}).get("difference")
        for part in read_json(out / "compare.json")["modalities"].values()
    )


def test_a_second_run_gives_the_same_but_for_times(artifacts, bag, out, tmp_path, capsys):
    options = ("--compare", artifacts[1], "--jobs", "2", "--no-report")
    assert run(bag, artifacts[0], tmp_path / "out", *options) == 0
    first, second = (read_json(folder / "compare.json") for folder in (out, tmp_path / "out"))
    assert first | {"latency": None} == second | {"latency": None}
    told = capsys.readouterr().out
    assert "tiny against plain:" in told
    assert "better in 4, worse in 0" in told


def test_pictures_of_the_result(out):
    stamps = [frame["stamp_ns"] for frame in metrics_of(out / "plain")["frames"]][:1]
    shown = read_pictures(out / "plain" / "result", stamps)
    np.testing.assert_array_equal(shown[RGB, stamps[0]], pictures(0, SIZE)["rgb"])
    thermal = pictures(0, SIZE)["thermal"][..., None] % 256
    expected = np.minimum(pictures(0, SIZE)["rgb"].astype(int) + thermal, 255)
    np.testing.assert_array_equal(shown[FUSED, stamps[0]], expected)
    assert {stamp for _, stamp in shown} == set(stamps)


def test_pictures_of_a_compressed_recording(artifacts, tmp_path):
    bag = write_bag(tmp_path / "bag", cameras(2, compressed=True))
    assert run(bag, artifacts[0], tmp_path / "out", "--metrics-stride", "0") == 0
    shown = read_pictures(tmp_path / "out" / "result", {1_700_000_000_000_000_000})
    assert shown[RGB, 1_700_000_000_000_000_000].shape == (*SIZE, 3)


def test_ground_truth_is_set_side_by_side(artifacts, bag, tmp_path):
    pytest.importorskip("py_sod_metrics", reason="mmfusion[eval] is not installed")
    (tmp_path / "gt").mkdir()
    for number in range(6):
        mask = np.where(pictures(number, SIZE)["thermal"] > 90, 255, 0).astype(np.uint8)
        cv2.imwrite(str(tmp_path / "gt" / f"{number}.png"), mask)
    options = ("--compare", artifacts[1], "--ground-truth-masks", tmp_path / "gt")
    assert run(bag, artifacts[0], tmp_path / "out", *options) == 0
    saliency = read_json(tmp_path / "out" / "compare.json")["saliency"]
    assert saliency["pictures"] == [6, 6]
    assert saliency["MAE"]["difference"] == 0  # both put out the same map
    assert "Saliency against ground truth" in (tmp_path / "out" / "compare.html").read_text()


def test_several_bags(artifacts, bag, tmp_path):
    other = write_bag(tmp_path / "other", cameras(3))
    out = tmp_path / "out"
    options = ("--compare", artifacts[1], "--no-report")
    assert run_all([bag, other], artifacts[0], out, *options) == 0
    for name in ("drive", "other"):
        assert (out / name / "compare.json").is_file()
        assert (out / name / "tiny" / "metrics.json").is_file()
    names = [entry["name"] for entry in read_json(out / "summary.json")["bags"]]
    assert names == ["drive/plain", "drive/tiny", "other/plain", "other/tiny"]


class TestErrors:
    @staticmethod
    def fails(capsys, *arguments) -> str:
        assert run(*arguments) == 1
        assert not arguments[2].exists()
        return capsys.readouterr().err

    def test_the_same_artifact(self, artifacts, bag, tmp_path, capsys):
        options = ("--compare", artifacts[0] / ".." / artifacts[0].name)
        message = self.fails(capsys, bag, artifacts[0], tmp_path / "out", *options)
        assert "are one and the same artifact (plain, graph " in message

    def test_another_size(self, artifacts, bag, tmp_path, capsys):
        big = write_artifact(tmp_path / "big", rgb=(60, 80), depth=(60, 80), thermal=(60, 80))
        for pair in ((artifacts[0], big), (big, artifacts[0])):
            options = (bag, pair[0], tmp_path / "out", "--compare", pair[1])
            message = self.fails(capsys, *options)
            assert "rgb images are 64x48 pixels, but artifact big was exported for 80x60" in message

    def test_one_that_is_none(self, artifacts, bag, tmp_path, capsys):
        options = (bag, artifacts[0], tmp_path / "out", "--compare", tmp_path)
        assert "is not an artifact" in self.fails(capsys, *options)

    def test_two_of_one_name(self, artifacts, bag, tmp_path):
        other = write_artifact(tmp_path / "plain", saliency=True, detections=True)
        options = ("--compare", other, "--no-report", "--metrics-stride", "0")
        assert run(bag, artifacts[0], tmp_path / "out", *options) == 0
        assert (tmp_path / "out" / "plain_2" / "metrics.json").is_file()

    def test_one_that_fails(self, artifacts, bag, tmp_path, capsys):
        failing = write_artifact(tmp_path / "failing", fails_from=2)
        out = tmp_path / "out"
        assert run(bag, artifacts[0], out, "--compare", failing) == 1
        told = capsys.readouterr()
        assert "onnxruntime failed" in told.err
        assert "not compared, as one of the two replays failed" in told.out
        assert metrics_of(out / "plain")["sets"] == 6
