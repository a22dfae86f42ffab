"""A bag replayed through a small artifact: what comes out."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from artifacts import write_artifact, write_rig
from bags import START, TOPICS, cameras, pictures, write_bag
from replays import fails, metrics_of, run
from rosbags.highlevel import AnyReader

pytest.importorskip("mmfusion.metrics", reason="the networks' package is not installed")

SIZE = (48, 64)


def test_everything_is_written(bag, artifact, tmp_path):
    assert run(bag, artifact, tmp_path / "out") == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "latency.json",
        "metrics.json",
        "pictures",
        "report.html",
        "result",
    ]
    metrics = metrics_of(tmp_path / "out")
    assert metrics["complete"] is True
    assert metrics["sets"] == 6
    both, alone = metrics["modalities"]["rgb+depth+thermal"], metrics["modalities"]["rgb+depth"]
    assert (both["sets"], alone["sets"]) == (4, 2)
    for method in ("fused", "average", "maximum"):
        assert set(both[method]) == {"EN", "SD", "SF", "AG", "MI", "SCD", "VIF", "Q_ABF", "SSIM"}
        assert set(both[method]["VIF"]) == {"mean", "p5", "p50", "p95", "count", "left_out"}
        assert both[method]["VIF"]["count"] == 4
    assert set(alone["fused"]) == {"EN", "SD", "SF", "AG"}
    assert "average" not in alone
    assert metrics["synchronizer"]["received"] == {"rgb": 6, "depth": 6, "thermal": 4}
    assert sum(metrics["synchronizer"]["absences"]["thermal"].values()) == 2
    latency = json.loads((tmp_path / "out" / "latency.json").read_text())
    assert set(latency["stages"]) == {"prepare", "engine", "total"}
    assert latency["stages"]["total"]["p99"] >= latency["stages"]["total"]["p50"] > 0


def test_the_fused_pictures_are_those_of_the_graph(bag, artifact, tmp_path):
    run(bag, artifact, tmp_path / "out", "--no-report", "--metrics-stride", "0")
    with AnyReader([tmp_path / "out" / "result"]) as reader:
        connections = reader.topics["/fused/image"].connections
        fused = [
            (log_time, reader.deserialize(data, connection.msgtype))
            for connection, log_time, data in reader.messages(connections)
        ]
    assert len(fused) == 6
    for number, (log_time, message) in enumerate(fused):
        shown = pictures(number, SIZE)
        # The small graph adds the thermal image's low byte.
        thermal = 0 if number in {2, 3} else shown["thermal"][..., None] % 256
        expected = np.minimum(shown["rgb"].astype(int) + thermal, 255)
        np.testing.assert_array_equal(message.data.reshape(*SIZE, 3), expected)
        assert log_time == START + number * 100_000_000 + 1_000_000


def test_a_frozen_camera_is_left_out_as_by_the_node(artifact, tmp_path):
    messages = cameras(6)
    still = messages[1][3].data  # the depth picture of the first set
    messages = [
        (*m[:3], dataclasses.replace(m[3], data=still)) if m[0] == TOPICS["depth"] else m
        for m in messages
    ]
    bag = write_bag(tmp_path / "bag", messages)
    frozen = {}
    for limit in ("0", "250"):
        out = tmp_path / limit
        options = ("--no-report", "--metrics-stride", "0", "--frozen-after-ms", limit)
        assert run(bag, artifact, out, *options) == 0
        frozen[limit] = metrics_of(out)["synchronizer"]["absences"]["depth"].get("frozen", 0)
        assert metrics_of(out)["settings"]["frozen_after_ms"] == float(limit)
    assert frozen == {"0": 0, "250": 3}


def test_the_summary_agrees_with_the_metrics_of_the_frames(bag, artifact, tmp_path):
    run(bag, artifact, tmp_path / "out")
    metrics = metrics_of(tmp_path / "out")
    frames = [f for f in metrics["frames"] if f["modalities"] == "rgb+depth+thermal"]
    for method in ("fused", "average", "maximum"):
        values = [frame[method]["Q_ABF"] for frame in frames]
        summary = metrics["modalities"]["rgb+depth+thermal"][method]["Q_ABF"]
        assert summary["mean"] == pytest.approx(np.mean(values))
        assert summary["p50"] == pytest.approx(np.median(values))


def test_strides_and_limits(bag, artifact, tmp_path):
    run(bag, artifact, tmp_path / "out", "--stride", "2", "--metrics-stride", "2")
    metrics = metrics_of(tmp_path / "out")
    assert metrics["sets"] == 3
    assert [frame["set"] for frame in metrics["frames"]] == [0, 4]
    run(bag, artifact, tmp_path / "out", "--max-frames", "2", "--metrics-stride", "0")
    metrics = metrics_of(tmp_path / "out")
    assert metrics["sets"] == 2
    assert metrics["frames"] == []


def test_a_part_of_the_bag(bag, artifact, tmp_path, capsys):
    options = ("--start", "0.15", "--end", "2023-11-14T22:13:20.5Z", "--no-report")
    assert run(bag, artifact, tmp_path / "out", *options) == 0
    metrics = metrics_of(tmp_path / "out")
    assert metrics["sets"] == 3
    assert metrics["settings"]["start_s"] == pytest.approx(0.15)
    assert metrics["settings"]["end_s"] == pytest.approx(0.499)
    assert "range: --start 0.15 s from the bag's start" in capsys.readouterr().out
    assert metrics_of(tmp_path / "out")["complete"] is True
    message = fails(capsys, bag, artifact, tmp_path / "none", "--start", "9")
    assert "the bag covers 0.504 s, from 2023-11-14T22:13:20.001Z" in message


def test_a_guess_is_said(artifact, tmp_path, capsys):
    messages = [(m[0].replace("/thermal/image_raw", "/hot"), *m[1:]) for m in cameras(2)]
    bag = write_bag(tmp_path / "bag", messages)
    assert run(bag, artifact, tmp_path / "out", "--no-report", "--metrics-stride", "0") == 0
    assert "thermal is /hot: guessed from its encoding mono16" in capsys.readouterr().out


def test_time_offsets_of_the_rig_are_used(artifact, tmp_path):
    bag = write_bag(tmp_path / "bag", cameras(6, thermal_shift_ns=40_000_000))
    run(bag, artifact, tmp_path / "out", "--no-report")
    assert "rgb+depth+thermal" not in metrics_of(tmp_path / "out")["modalities"]
    rig = write_rig(tmp_path / "rig.yaml", thermal=43.0)
    run(bag, artifact, tmp_path / "out", "--no-report", "--rig", str(rig))
    metrics = metrics_of(tmp_path / "out")
    assert metrics["modalities"]["rgb+depth+thermal"]["sets"] == 6
    assert metrics["rig"] == "test_rig"


def test_a_looped_bag_begins_anew(artifact, tmp_path):
    messages = cameras(30)
    again = [(t, kind, log + 10**10, message) for t, kind, log, message in messages]
    bag = write_bag(tmp_path / "bag", messages + again)
    run(bag, artifact, tmp_path / "out", "--no-report", "--metrics-stride", "0")
    metrics = metrics_of(tmp_path / "out")
    assert metrics["sets"] == 60
    assert metrics["synchronizer"]["time_jumps"] == 1


def test_pictures_without_registered_thermal_are_measured_too(bag, tmp_path):
    artifact = write_artifact(tmp_path / "plain", registered_thermal=False)
    run(bag, artifact, tmp_path / "out")
    both = metrics_of(tmp_path / "out")["modalities"]["rgb+depth+thermal"]
    assert both["average"]["MI"]["count"] == 4


def test_help_needs_no_engine():
    program = (
        "import sys; from mmfusion_ros import replay\n"
        "try: replay.main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'onnxruntime', 'matplotlib', 'rclpy', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)
