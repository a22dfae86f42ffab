"""Bags that are damaged, and pictures in them."""

from __future__ import annotations

import dataclasses

import pytest
from artifacts import write_artifact
from bags import TOPICS, cameras, write_bag
from replays import fails, metrics_of, run

pytest.importorskip("mmfusion.metrics", reason="the networks' package is not installed")


def test_damaged_images_are_counted_by_reason(artifact, tmp_path):
    messages = cameras(4)
    topic, kind, log, message = messages[5]
    assert topic == TOPICS["thermal"]
    short = dataclasses.replace(message, data=message.data[:-10])
    messages[5] = (topic, kind, log, short)
    run(write_bag(tmp_path / "bag", messages), artifact, tmp_path / "out")
    metrics = metrics_of(tmp_path / "out")
    ((reason, count),) = metrics["damaged_images"].items()
    assert reason.startswith("thermal image: truncated")
    assert count == 1
    assert metrics["modalities"]["rgb+depth"]["sets"] == 1


def test_a_cut_bag_is_replayed_up_to_there(artifact, tmp_path, capsys):
    artifact = write_artifact(
        tmp_path / "big", rgb=(600, 800), depth=(600, 800), thermal=(600, 800)
    )
    file = write_bag(tmp_path / "bag", cameras(4, size=(600, 800))) / "bag.mcap"
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    out = tmp_path / "out"
    assert run(file, artifact, out, "--no-report", "--metrics-stride", "0") == 0
    assert "ends early" in capsys.readouterr().out
    metrics = metrics_of(out)
    assert metrics["complete"] is False
    assert 0 < metrics["sets"] < 4


def test_what_is_damaged_is_in_the_report(artifact, tmp_path, capsys):
    """A folder with one bad file of two."""
    bag = write_bag(tmp_path / "bag", cameras(4))
    (bag / "metadata.yaml").unlink()
    (bag / "later.mcap").write_bytes(b"")
    out = tmp_path / "out"
    assert run(bag, artifact, out, "--metrics-stride", "0") == 0
    assert "later.mcap is empty; left out" in capsys.readouterr().out
    metrics = metrics_of(out)
    assert (metrics["complete"], metrics["sets"]) == (False, 4)
    assert "later.mcap is empty; left out" in (out / "report.html").read_text()


def test_no_usable_picture_at_all(artifact, tmp_path, capsys):
    topic, kind, log, message = cameras(1)[0]
    short = dataclasses.replace(message, data=message.data[:-10])
    bag = write_bag(tmp_path / "bag", [(topic, kind, log, short)])
    options = ("--without", "depth", "--without", "thermal")
    message = fails(capsys, bag, artifact, tmp_path / "out", *options)
    assert "no RGB image of the bag could be used: 1 x rgb image: truncated" in message


def test_malformed_recording(artifact, tmp_path, capsys, shared_dir):
    bag = shared_dir / "data" / "bags" / "geocam_all_types_mcap"
    options = ("--rgb-topic", "/test/sensor_msgs/image")
    options += ("--without", "depth", "--without", "thermal")
    message = fails(capsys, bag, artifact, tmp_path / "out", *options)
    assert "no RGB image of the bag could be used: 2 x rgb image: truncated" in message
