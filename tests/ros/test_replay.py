"""A bag replayed through a small artifact: what comes out, and that it comes out again."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from artifacts import write_artifact, write_rig
from bags import START, TOPICS, cameras, pictures, write_bag, write_ros1_bag
from replays import differing, metrics_of, run
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import CompressionMode, StoragePlugin

pytest.importorskip("mmfusion.metrics", reason="the networks' package is not installed")

from mmfusion_ros import replay_session
from mmfusion_ros.core import bag_writer
from mmfusion_ros.core.engines.onnx_runtime import OnnxRuntimeEngine
from mmfusion_ros.core.errors import EngineError

SIZE = (48, 64)
STABLE = ("metrics.json", "result/result.mcap", "result/metadata.yaml")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory) -> Path:
    return write_artifact(tmp_path_factory.mktemp("artifacts") / "tiny")


@pytest.fixture(scope="module")
def bag(tmp_path_factory) -> Path:
    return write_bag(tmp_path_factory.mktemp("bags") / "drive", cameras(6, no_thermal={2, 3}))


def fails(capsys, *arguments) -> str:
    """Run, expecting failure; return its one message."""
    assert run(*arguments) == 1
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message


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


def test_a_second_run_gives_the_same_bytes(bag, artifact, tmp_path):
    for name in ("one", "two"):
        assert run(bag, artifact, tmp_path / name, "--metrics-threads", "2") == 0
    for file in STABLE:
        first, second = ((tmp_path / name / file).read_bytes() for name in ("one", "two"))
        assert first == second, file


def test_the_format_of_the_bag_does_not_matter(artifact, tmp_path):
    """MCAP, SQLite and ROS 1, with and without compression of the storage."""
    messages = cameras(4, compressed=True)
    writers = {
        "mcap": lambda path: write_bag(path, messages),
        "zstd": lambda path: write_bag(path, messages, compression=CompressionMode.MESSAGE),
        "sqlite": lambda path: write_bag(path, messages, StoragePlugin.SQLITE3),
        "ros1": lambda path: write_ros1_bag(path.with_suffix(".bag"), messages),
        "bz2": lambda path: write_ros1_bag(path.with_suffix(".bag"), messages, "BZ2"),
    }
    told = {}
    for name, writer in writers.items():
        bag = writer(tmp_path / name)
        out = tmp_path / f"out_{name}"
        assert run(bag, artifact, out, "--no-report") == 0
        metrics = metrics_of(out)
        del metrics["bag"]["name"]
        told[name] = [metrics, *((out / file).read_bytes() for file in STABLE[1:])]
        assert told[name] == told["mcap"], name


def damaged_cameras(sets: int) -> list:
    """No stamps, and every seventh message is none."""
    return [
        (*message[:3], b"\x00\x01") if number % 7 == 4 else message
        for number, message in enumerate(cameras(sets, stamps=False))
    ]


@pytest.mark.parametrize("options", [(), ("--max-frames", "2"), ("--stride", "3")])
@pytest.mark.parametrize("cut", [False, True])
def test_the_bytes_do_not_depend_on_how_fast_the_bag_is_read(
    artifact, tmp_path, monkeypatch, options, cut
):
    bag = write_bag(tmp_path / "bag", damaged_cameras(20))
    if cut:
        file = bag / "bag.mcap"
        file.write_bytes(file.read_bytes()[:-100])
    deserialize = AnyReader.deserialize

    def slowly(*arguments):
        time.sleep(0.02)
        return deserialize(*arguments)

    for name in ("fast", "slow"):
        if name == "slow":
            monkeypatch.setattr(AnyReader, "deserialize", slowly)
        assert run(bag, artifact, tmp_path / name, "--no-report", *options) == 0
    monkeypatch.undo()
    for file in STABLE:
        first, second = ((tmp_path / name / file).read_bytes() for name in ("fast", "slow"))
        assert first == second, file
    metrics = metrics_of(tmp_path / "fast")
    assert (metrics["bag"]["problem"] is not None) == cut
    assert sum(metrics["bag"]["stamps_from_log_time"].values()) == sum(
        metrics["synchronizer"]["received"].values()
    )


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


def test_a_run_into_the_same_folder_takes_its_place(bag, artifact, tmp_path):
    out = tmp_path / "out"
    run(bag, artifact, out)
    before = (out / "result/result.mcap").read_bytes()
    (out / "notes.txt").write_text("mine")
    assert run(bag, artifact, out) == 0
    assert (out / "result/result.mcap").read_bytes() == before
    assert (out / "notes.txt").read_text() == "mine"


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


class TestDamage:
    def test_damaged_images_are_counted_by_reason(self, artifact, tmp_path):
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

    def test_a_cut_bag_is_replayed_up_to_there(self, artifact, tmp_path, capsys):
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

    def test_what_is_damaged_is_in_the_report(self, artifact, tmp_path, capsys):
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

    def test_no_usable_picture_at_all(self, artifact, tmp_path, capsys):
        topic, kind, log, message = cameras(1)[0]
        short = dataclasses.replace(message, data=message.data[:-10])
        bag = write_bag(tmp_path / "bag", [(topic, kind, log, short)])
        options = ("--without", "depth", "--without", "thermal")
        message = fails(capsys, bag, artifact, tmp_path / "out", *options)
        assert "no RGB image of the bag could be used: 1 x rgb image: truncated" in message

    def test_malformed_recording(self, artifact, tmp_path, capsys, shared_dir):
        bag = shared_dir / "data" / "bags" / "geocam_all_types_mcap"
        options = ("--rgb-topic", "/test/sensor_msgs/image")
        options += ("--without", "depth", "--without", "thermal")
        message = fails(capsys, bag, artifact, tmp_path / "out", *options)
        assert "no RGB image of the bag could be used: 2 x rgb image: truncated" in message


class TestErrors:
    def test_missing_bag(self, artifact, tmp_path, capsys):
        assert "there is no bag at" in fails(capsys, tmp_path / "no", artifact, tmp_path / "out")

    def test_wrong_artifact(self, bag, tmp_path, capsys):
        assert "is not an artifact" in fails(capsys, bag, tmp_path, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_missing_rig(self, bag, artifact, tmp_path, capsys):
        options = ("--rig", str(tmp_path / "no.yaml"))
        assert "no readable rig file" in fails(capsys, bag, artifact, tmp_path / "out", *options)

    @pytest.mark.parametrize("modality", ["rgb", "thermal"])
    def test_wrong_size(self, artifact, tmp_path, capsys, modality):
        large = cameras(2, size=(96, 128))
        messages = [
            big if big[0] == TOPICS[modality] else small
            for small, big in zip(cameras(2), large, strict=True)
        ]
        path = write_bag(tmp_path / "bag", messages)
        message = fails(capsys, path, artifact, tmp_path / "out")
        assert f"{modality} images are 128x96 pixels" in message
        assert "exported for 64x48" in message

    def test_stamps_that_never_meet(self, artifact, tmp_path, capsys):
        bag = write_bag(tmp_path / "bag", cameras(4, thermal_shift_ns=3600 * 10**9))
        message = fails(capsys, bag, artifact, tmp_path / "out")
        assert "the stamps of thermal and rgb never meet" in message
        assert "3600.003 s apart" in message

    def test_ambiguous_topics(self, artifact, tmp_path, capsys):
        messages = cameras(2)
        messages.append(("/rear/rgb/image", *messages[-3][1:]))
        bag = write_bag(tmp_path / "bag", messages)
        message = fails(capsys, bag, artifact, tmp_path / "out")
        assert "several topics could be rgb" in message
        assert "--rgb-topic" in message

    def test_a_failing_engine(self, bag, tmp_path, capsys):
        artifact = write_artifact(tmp_path / "failing", fails_from=2)
        out = tmp_path / "out"
        assert "onnxruntime failed" in fails(capsys, bag, artifact, out)

    def test_an_engine_that_fails_on_the_way_gives_way(self, bag, artifact, tmp_path, monkeypatch):
        """All of the replay is by the fallback then."""
        run_once = OnnxRuntimeEngine.run
        runs = []

        def fail(engine, inputs):
            runs.append(engine)
            if len(runs) == 3:
                raise EngineError("onnxruntime failed: out of steam")
            return run_once(engine, inputs)

        assert run(bag, artifact, tmp_path / "plain") == 0
        monkeypatch.setattr(OnnxRuntimeEngine, "run", fail)
        out = tmp_path / "out"
        assert run(bag, artifact, out, "--engine-fallback", "onnxruntime") == 0
        engine = metrics_of(out)["engine"]
        assert engine["stands_in"] == (
            "instead of onnxruntime fp32: onnxruntime failed: out of steam"
        )
        assert metrics_of(out)["sets"] == metrics_of(tmp_path / "plain")["sets"]
        assert differing(out, tmp_path / "plain") == ["metrics.json"]
        assert runs[0] is not runs[-1]

    def test_an_engine_that_is_not_there(self, bag, artifact, tmp_path, capsys, monkeypatch):
        monkeypatch.setitem(sys.modules, "openvino", None)
        out = tmp_path / "out"
        message = fails(capsys, bag, artifact, out, "--backend", "openvino")
        assert "pip install openvino" in message
        options = ("--backend", "openvino", "--engine-fallback", "onnxruntime")
        assert run(bag, artifact, out, *options) == 0
        engine = metrics_of(out)["engine"]
        assert (engine["backend"], engine["precision"]) == ("onnxruntime", "fp32")
        assert engine["stands_in"].startswith("instead of openvino fp32: ")
        assert "instead of openvino fp32" in (out / "report.html").read_text()

    def test_a_place_where_nothing_can_be_written(self, bag, artifact, tmp_path, capsys):
        (tmp_path / "file").touch()
        message = fails(capsys, bag, artifact, tmp_path / "file" / "out")
        assert len(message.strip().splitlines()) == 1
        assert message.startswith("replay: ")
        assert str(tmp_path / "file" / "out") in message

    def test_a_full_disk(self, bag, artifact, tmp_path, capsys, monkeypatch):
        def full(*_) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(bag_writer.Writer, "write", full)
        message = fails(capsys, bag, artifact, tmp_path / "out", "--metrics-stride", "0")
        assert "No space left on device" in message
        assert len(message.strip().splitlines()) == 1

    def test_results_are_never_written_over_other_files(self, bag, artifact, tmp_path, capsys):
        out = tmp_path / "out"
        (out / "result").mkdir(parents=True)
        (out / "result" / "thesis.tex").write_text("years of work")
        assert "is not from a replay" in fails(capsys, bag, artifact, out)
        assert (out / "result" / "thesis.tex").exists()

    def test_a_result_replayed_into_its_own_place(self, bag, artifact, tmp_path, capsys):
        out = tmp_path / "out"
        run(bag, artifact, out, "--no-report")
        message = fails(capsys, out / "result", artifact, out, "--without", "depth")
        assert "lies where the result would go" in message
        assert (out / "result" / "result.mcap").exists()


def test_interruption_keeps_what_was_done(bag, artifact, tmp_path, monkeypatch, capsys):
    run_pipeline = replay_session.Pipeline.run
    calls = []

    def run_or_interrupt(self, frames):
        calls.append(frames)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return run_pipeline(self, frames)

    monkeypatch.setattr(replay_session.Pipeline, "run", run_or_interrupt)
    out = tmp_path / "out"
    assert run(bag, artifact, out) == 130
    assert "interrupted" in capsys.readouterr().out
    metrics = metrics_of(out)
    assert metrics["sets"] == 3
    assert metrics["complete"] is False
    assert "Interrupted" in (out / "report.html").read_text()
    with AnyReader([out / "result"]) as reader:
        assert reader.topics["/fused/image"].msgcount == 3


@pytest.mark.slow
def test_ctrl_c_from_outside(artifact, tmp_path):
    bag = write_bag(tmp_path / "bag", cameras(2000))
    command = [sys.executable, "-m", "mmfusion_ros.replay", str(bag), "--artifact", str(artifact)]
    command += ["--out", str(tmp_path / "out"), "--metrics-stride", "1"]
    with subprocess.Popen(command, env=os.environ) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "out" / "result").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    assert 0 < metrics_of(tmp_path / "out")["sets"] < 2000


def test_help_needs_no_engine():
    program = (
        "import sys; from mmfusion_ros import replay\n"
        "try: replay.main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'onnxruntime', 'matplotlib', 'rclpy', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


def test_a_robot_without_the_networks_package(bag, artifact, tmp_path, capsys, monkeypatch):
    # None in sys.modules is how Python marks what cannot be imported.
    monkeypatch.setitem(sys.modules, "mmfusion", None)
    assert "measuring needs mmfusion.metrics" in fails(capsys, bag, artifact, tmp_path / "out")
    assert run(bag, artifact, tmp_path / "out", "--metrics-stride", "0") == 0
    assert metrics_of(tmp_path / "out")["sets"] == 6
