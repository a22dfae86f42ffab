"""What keeps a replay from its end, and what is left of it then."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time

import pytest
from artifacts import write_artifact
from bags import TOPICS, cameras, write_bag
from replays import differing, fails, metrics_of, run
from rosbags.highlevel import AnyReader

pytest.importorskip("mmfusion.metrics", reason="the networks' package is not installed")

from mmfusion_ros import replay_session
from mmfusion_ros.core import bag_writer
from mmfusion_ros.core.engines.onnx_runtime import OnnxRuntimeEngine
from mmfusion_ros.core.errors import EngineError


def test_missing_bag(artifact, tmp_path, capsys):
    assert "there is no bag at" in fails(capsys, tmp_path / "no", artifact, tmp_path / "out")


def test_wrong_artifact(bag, tmp_path, capsys):
    assert "is not an artifact" in fails(capsys, bag, tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_rig(bag, artifact, tmp_path, capsys):
    options = ("--rig", str(tmp_path / "no.yaml"))
    assert "no readable rig file" in fails(capsys, bag, artifact, tmp_path / "out", *options)


@pytest.mark.parametrize("modality", ["rgb", "thermal"])
def test_wrong_size(artifact, tmp_path, capsys, modality):
    large = cameras(2, size=(96, 128))
    messages = [
        big if big[0] == TOPICS[modality] else small
        for small, big in zip(cameras(2), large, strict=True)
    ]
    path = write_bag(tmp_path / "bag", messages)
    message = fails(capsys, path, artifact, tmp_path / "out")
    assert f"{modality} images are 128x96 pixels" in message
    assert "exported for 64x48" in message


def test_stamps_that_never_meet(artifact, tmp_path, capsys):
    bag = write_bag(tmp_path / "bag", cameras(4, thermal_shift_ns=3600 * 10**9))
    message = fails(capsys, bag, artifact, tmp_path / "out")
    assert "the stamps of thermal and rgb never meet" in message
    assert "3600.003 s apart" in message


def test_ambiguous_topics(artifact, tmp_path, capsys):
    messages = cameras(2)
    messages.append(("/rear/rgb/image", *messages[-3][1:]))
    bag = write_bag(tmp_path / "bag", messages)
    message = fails(capsys, bag, artifact, tmp_path / "out")
    assert "several topics could be rgb" in message
    assert "--rgb-topic" in message


def test_a_failing_engine(bag, tmp_path, capsys):
    artifact = write_artifact(tmp_path / "failing", fails_from=2)
    out = tmp_path / "out"
    assert "onnxruntime failed" in fails(capsys, bag, artifact, out)


def test_an_engine_that_fails_on_the_way_gives_way(bag, artifact, tmp_path, monkeypatch):
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
    assert engine["stands_in"] == ("instead of onnxruntime fp32: onnxruntime failed: out of steam")
    assert metrics_of(out)["sets"] == metrics_of(tmp_path / "plain")["sets"]
    assert differing(out, tmp_path / "plain") == ["metrics.json"]
    assert runs[0] is not runs[-1]


def test_an_engine_that_is_not_there(bag, artifact, tmp_path, capsys, monkeypatch):
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


def test_a_place_where_nothing_can_be_written(bag, artifact, tmp_path, capsys):
    (tmp_path / "file").touch()
    message = fails(capsys, bag, artifact, tmp_path / "file" / "out")
    assert len(message.strip().splitlines()) == 1
    assert message.startswith("replay: ")
    assert str(tmp_path / "file" / "out") in message


def test_a_full_disk(bag, artifact, tmp_path, capsys, monkeypatch):
    def full(*_) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(bag_writer.Writer, "write", full)
    message = fails(capsys, bag, artifact, tmp_path / "out", "--metrics-stride", "0")
    assert "No space left on device" in message
    assert len(message.strip().splitlines()) == 1


def test_results_are_never_written_over_other_files(bag, artifact, tmp_path, capsys):
    out = tmp_path / "out"
    (out / "result").mkdir(parents=True)
    (out / "result" / "thesis.tex").write_text("years of work")
    assert "is not from a replay" in fails(capsys, bag, artifact, out)
    assert (out / "result" / "thesis.tex").exists()


def test_a_result_replayed_into_its_own_place(bag, artifact, tmp_path, capsys):
    out = tmp_path / "out"
    run(bag, artifact, out, "--no-report")
    message = fails(capsys, out / "result", artifact, out, "--without", "depth")
    assert "lies where the result would go" in message
    assert (out / "result" / "result.mcap").exists()


def test_a_robot_without_the_networks_package(bag, artifact, tmp_path, capsys, monkeypatch):
    # None in sys.modules is how Python marks what cannot be imported.
    monkeypatch.setitem(sys.modules, "mmfusion", None)
    assert "measuring needs mmfusion.metrics" in fails(capsys, bag, artifact, tmp_path / "out")
    assert run(bag, artifact, tmp_path / "out", "--metrics-stride", "0") == 0
    assert metrics_of(tmp_path / "out")["sets"] == 6


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
