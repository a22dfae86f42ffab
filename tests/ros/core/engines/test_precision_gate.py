"""Reduced precision passes only within the tolerances, and what was measured is kept."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
from artifacts import CANDIDATES, add_reduced_graph, write_artifact

from mmfusion_ros.core.artifact import open_artifact
from mmfusion_ros.core.engines import EngineOptions, open_engine
from mmfusion_ros.core.engines.likeness import EQUAL_DB
from mmfusion_ros.core.engines.precision_gate import GateResult, Measure, gate_key, processor
from mmfusion_ros.core.engines.sample_frames import SampleFrames, write_sample_frames
from mmfusion_ros.core.errors import EngineError

pytest.importorskip("onnxruntime")

TOLERANCES = {
    "fused": {"psnr_db": 45},
    "saliency": {"mean_absolute_error": 2},
    "boxes": {"matched_share": 0.95},
}


class Bench:
    """An artifact with a reduced graph, sample frames and a cache."""

    def __init__(self, folder: Path, **reduced) -> None:
        self.folder = folder
        self.artifact_folder = write_artifact(folder / "small", saliency=True, detections=True)
        self.alter(**{"tolerances": TOLERANCES, **reduced})
        self.sample(0)

    def alter(self, **reduced) -> None:
        add_reduced_graph(self.artifact_folder, **reduced)
        self.artifact = open_artifact(self.artifact_folder)

    def sample(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        frames = [
            {
                "rgb": rng.integers(0, 150, (48, 64, 3), np.uint8),
                "depth": np.zeros((48, 64, 2), np.uint8),
                "thermal": rng.integers(0, 100, (48, 64, 2), np.uint8),
                "thermal_range": np.array([number, 5], np.float32),
                "present": np.ones(3, np.float32),
            }
            for number in range(2)
        ]
        self.samples = self.folder / f"frames_{seed}.npz"
        write_sample_frames(self.samples, self.artifact, SampleFrames.of(frames))

    def open(self, *, samples: bool = True, **options):
        given = {"backend": "onnxruntime", "precision": "int8", "threads": 1, **options}
        return open_engine(
            self.artifact,
            EngineOptions(
                **given,
                cache=self.folder / "cache",
                samples=self.samples if samples else None,
            ),
        )

    @property
    def kept(self) -> Path:
        (path,) = (self.folder / "cache").iterdir()
        return path


def test_what_is_close_enough_passes_with_its_figures(tmp_path):
    bench = Bench(tmp_path, off_by=1)
    with bench.open() as engine:
        assert (engine.backend, engine.precision, engine.stands_in) == ("onnxruntime", "int8", "")
        gate = engine.gate
        assert engine.run(inputs())["fused"][0, 0, 0] == 108
    assert gate.passed
    assert gate.frames == 2
    assert gate.measures == (
        Measure("fused", "psnr_db", pytest.approx(48.13, abs=0.01), 45),
        Measure("saliency", "mean_absolute_error", 0, 2),
        Measure("boxes", "matched_share", 1, 0.95),
    )
    assert gate.ssim.keys() == {"fused", "saliency", "registered_thermal"}
    assert 0.9 < gate.ssim["fused"] < 1


def inputs():
    arrays = {"rgb": np.full((48, 64, 3), 100, np.uint8), "depth": np.zeros((48, 64, 2), np.uint8)}
    arrays["thermal"] = np.full((48, 64, 2), 7, np.uint8)
    return arrays | {"thermal_range": np.zeros(2, np.float32), "present": np.ones(3, np.float32)}


def test_what_is_too_far_is_refused_with_every_figure(tmp_path):
    slow = np.array([0.9, 0.1, 0.1, 0.1, 0], np.float32)
    bench = Bench(tmp_path, off_by=3, scores=slow)
    with pytest.raises(EngineError) as refused:
        bench.open()
    told = str(refused.value)
    assert "onnxruntime in int8 is too far from fp32 on 2 sample frames of artifact small" in told
    assert "fused psnr_db 38.59, expected at least 45" in told
    assert "boxes matched_share 0.5, expected at least 0.95" in told
    assert "saliency" not in told
    assert "run it in fp32" in told
    # The next start knows it, without the frames.
    with pytest.raises(EngineError, match=r"psnr_db 38.59"):
        bench.open(samples=False)


def test_the_worst_frame_counts(tmp_path):
    """Only the second has pixels bright enough for the difference not to be cut off."""
    bench = Bench(tmp_path, off_by=9)
    frames = [{**inputs(), "rgb": np.full((48, 64, 3), value, np.uint8)} for value in (255, 0, 255)]
    write_sample_frames(bench.samples, bench.artifact, SampleFrames.of(frames))
    with pytest.raises(EngineError, match=r"psnr_db 29\.05"):
        bench.open()


def test_fp32_is_not_compared(tmp_path):
    bench = Bench(tmp_path)
    with bench.open(precision="fp32", samples=False) as engine:
        assert engine.gate is None
    assert not (tmp_path / "cache").exists()


def test_a_second_start_needs_no_frames_and_no_comparison(tmp_path, monkeypatch):
    bench = Bench(tmp_path)
    with bench.open() as engine:
        first = engine.gate
    monkeypatch.setattr(
        "mmfusion_ros.core.engines.precision_gate.compare",
        lambda *_: pytest.fail("compared again"),
    )
    for samples in (True, False):
        with bench.open(samples=samples) as engine:
            assert engine.gate == first


def test_frames_that_are_gone_are_not_missed_once_they_were_compared(tmp_path, caplog):
    bench = Bench(tmp_path)
    bench.open().close()
    bench.samples.unlink()
    with bench.open() as engine:
        assert engine.gate.passed
    assert [r.message for r in caplog.records if "no sample frames at" in r.message] == [
        f"engine: no sample frames at {bench.samples}; taking what {bench.kept} says"
    ]
    bench.kept.unlink()
    with pytest.raises(EngineError, match=r"no sample frames at .*sample_frames BAG"):
        bench.open()


def test_frames_that_do_not_fit_are_told_all_the_same(tmp_path):
    bench = Bench(tmp_path)
    bench.open().close()
    bench.samples.write_bytes(b"no archive")
    with pytest.raises(EngineError, match="no file of sample frames"):
        bench.open()


@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_is_no_number_in_any_frame_is_not_accepted(tmp_path, place):
    bench = Bench(tmp_path, tolerances={"thermal_range_next": {"mean_absolute_error": 1}})
    frames = [inputs() for _ in range(3)]
    write_sample_frames(bench.samples, bench.artifact, SampleFrames.of(frames))
    bench.open().close()
    frames[place]["thermal_range"][0] = np.nan
    write_sample_frames(bench.samples, bench.artifact, SampleFrames.of(frames))
    for samples in (True, False):
        with pytest.raises(EngineError, match="_range_next mean_absolute_error is no number"):
            bench.open(samples=samples)


X86 = """processor : 0
vendor_id : AuthenticAMD
cpu family : 25
model : 1
model name : AMD EPYC
cpu MHz : 2445.406
flags : fpu sse2 avx2 fma nopl
"""
ARM = """processor : 0
BogoMIPS : 62.50
Features : fp asimd evtstrm asimdhp
CPU implementer : 0x41
CPU part : 0xd42
"""


@pytest.mark.parametrize(
    ("text", "before", "after", "same"),
    [
        (X86, "avx2", "avx2 avx512f", False),
        (X86, "model : 1", "model : 17", False),
        (X86, "nopl", "nopl ibpb", True),
        (X86, "2445", "3000", True),
        (X86, "fma nopl", "nopl fma", True),
        (ARM, "0xd42", "0xd4b", False),
        (ARM, "asimdhp", "asimdhp i8mm", False),
        (ARM, "62.50", "50.00", True),
        (ARM, ARM, ARM + ARM.replace("processor : 0", "processor : 1"), True),
        (ARM, ARM, ARM + ARM.replace("0xd42", "0xd03"), False),
    ],
)
def test_processors_are_told_apart_by_what_they_compute(text, before, after, same):
    assert processor(text)
    assert (processor(text.replace(before, after)) == processor(text)) == same


def test_without_frames_nothing_is_accepted(tmp_path):
    bench = Bench(tmp_path)
    with pytest.raises(EngineError, match=r"not yet compared .* sample_frames BAG .*--engine-samp"):
        bench.open(samples=False)


def test_other_frames_are_compared_anew(tmp_path, caplog):
    bench = Bench(tmp_path)
    with bench.open() as engine:
        before = engine.gate.samples
    bench.sample(1)
    with caplog.at_level(logging.INFO), bench.open() as engine:
        assert engine.gate.samples != before
    assert "is of other sample frames; comparing anew" in caplog.text


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"schema_version": 1}', '{"schema_version": 99}', "\udcff"]
)
def test_a_damaged_record_is_measured_anew(tmp_path, caplog, content):
    bench = Bench(tmp_path)
    bench.open().close()
    good = bench.kept.read_text()
    bench.kept.write_bytes(content.encode(errors="surrogateescape"))
    with bench.open() as engine:
        assert engine.gate.passed
    assert bench.kept.read_text() == good
    assert caplog.text.count("cannot be used") == 1
    assert "comparing anew" in caplog.text


def test_a_record_of_fewer_detections_does_not_count(tmp_path, caplog):
    """It is of a time when those that scored less than 0.5 were not asked for."""
    bench = Bench(tmp_path)
    bench.open().close()
    record = json.loads(bench.kept.read_text())
    bench.kept.write_text(json.dumps(record | {"schema_version": 1}))
    with pytest.raises(EngineError, match="no sample frames"):
        bench.open(samples=False)
    assert "version 1, expected 2" in caplog.text


def test_a_record_that_was_cut_is_measured_anew(tmp_path):
    bench = Bench(tmp_path)
    bench.open().close()
    bench.kept.write_text(bench.kept.read_text()[:-30])
    with pytest.raises(EngineError, match="no sample frames"):
        bench.open(samples=False)
    assert bench.open().gate.passed


def test_stricter_tolerances_hold_for_what_was_measured(tmp_path):
    bench = Bench(tmp_path, off_by=1)
    bench.open().close()
    bench.alter(off_by=1, tolerances={**TOLERANCES, "fused": {"psnr_db": 50}})
    with pytest.raises(EngineError, match=r"psnr_db 48.13, expected at least 50"):
        bench.open(samples=False)


def test_other_measures_are_measured_anew(tmp_path, caplog):
    bench = Bench(tmp_path)
    bench.open().close()
    bench.alter(tolerances={"fused": {"mean_absolute_error": 1}})
    with caplog.at_level(logging.INFO), bench.open() as engine:
        assert [measure.name for measure in engine.gate.measures] == ["mean_absolute_error"]
    assert "is of other tolerances" in caplog.text


@pytest.mark.parametrize(
    ("tolerances", "words"),
    [
        ({}, "small has none"),
        ({"heat": {"psnr_db": 40}}, "tolerances for 'heat', which it does not put out"),
    ],
)
def test_without_tolerances_nothing_is_accepted(tmp_path, tolerances, words):
    bench = Bench(tmp_path, tolerances=tolerances)
    with pytest.raises(EngineError, match=words):
        bench.open()


def test_where_nothing_is_detected_detections_are_not_accepted(tmp_path):
    nothing = {**CANDIDATES, "scores": np.zeros(5, np.float32)}
    bench = Bench(tmp_path)
    write_artifact(bench.artifact_folder, saliency=True, detections=True, candidates=nothing)
    bench.alter(tolerances=TOLERANCES)
    with pytest.raises(EngineError, match="boxes: nothing found in any frame"):
        bench.open()
    # And the record says so too.
    with pytest.raises(EngineError, match="boxes: nothing found in any frame"):
        bench.open(samples=False)


def test_an_artifact_without_the_graph_says_how_to_get_it(tmp_path):
    bench = Bench(tmp_path)
    with pytest.raises(EngineError, match=r"no fp16 graph, only fp32, int8; .*--precision fp16',"):
        bench.open(precision="fp16")


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_a_damaged_reduced_graph_costs_only_those_who_use_it(tmp_path, damage):
    bench = Bench(tmp_path)
    graph = bench.artifact_folder / "graph.int8.onnx"
    if damage == "changed":
        graph.write_bytes(graph.read_bytes()[:-1])
    else:
        graph.unlink()
    artifact = open_artifact(bench.artifact_folder)
    open_engine(artifact, EngineOptions("onnxruntime")).close()
    with pytest.raises(EngineError, match=r"graph.int8.onnx (is not the graph|cannot be read)"):
        bench.open()


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path, caplog):
    bench = Bench(tmp_path)
    (tmp_path / "cache").write_text("a file")
    with bench.open() as engine:
        assert engine.gate.passed
    assert "cannot be written" in caplog.text


def test_the_key_is_of_all_that_matters(tmp_path):
    bench = Bench(tmp_path)
    keys = {
        gate_key(bench.artifact, precision, runs_with)
        for precision in ("int8", "fp16")
        for runs_with in ("onnxruntime 1.20", "onnxruntime 1.21", "openvino 2026.4")
    }
    before = gate_key(bench.artifact, "int8", "onnxruntime 1.20")
    bench.alter(off_by=1)
    assert before in keys
    assert len(keys | {gate_key(bench.artifact, "int8", "onnxruntime 1.20")}) == 7
    assert before.startswith("small-onnxruntime-int8-")
    forms = {gate_key(bench.artifact, "int8", "openvino 2026.4", form) for form in range(3)}
    assert len(forms) == 3


def test_a_result_survives_json():
    measures = (
        Measure("fused", "psnr_db", EQUAL_DB, 45.0),
        Measure("boxes", "matched_share", float("nan"), 0.9),
    )
    result = GateResult("int8", "onnxruntime", measures, {"fused": 0.5}, 3, "abc")
    assert not result.passed
    text = json.dumps(result.document(), allow_nan=False)
    assert str(GateResult.from_document(json.loads(text))) == str(result)


def test_progress_is_told_and_may_cancel(tmp_path):
    class Cancelled(Exception):
        pass

    bench = Bench(tmp_path)
    told: list[tuple[str, float]] = []

    def progress(what, share):
        told.append((what, share))
        if share > 0:
            raise Cancelled

    options = EngineOptions(
        "onnxruntime", precision="int8", cache=tmp_path / "cache", samples=bench.samples
    )
    with pytest.raises(Cancelled):
        open_engine(bench.artifact, options, progress)
    assert told == [("comparing int8 with fp32", 0), ("comparing int8 with fp32", 0.5)]
    assert not (tmp_path / "cache").exists()


class TestFallback:
    def test_takes_over_in_fp32_when_tolerances_are_missed(self, tmp_path, caplog):
        bench = Bench(tmp_path, off_by=40)
        with bench.open(fallback="onnxruntime") as engine:
            assert (engine.backend, engine.precision) == ("onnxruntime", "fp32")
            assert engine.stands_in.startswith("instead of onnxruntime int8: ")
            assert "psnr_db" in engine.stands_in
            assert engine.run(inputs())["fused"][0, 0, 0] == 107
        assert "onnxruntime instead of onnxruntime int8" in caplog.text

    def test_takes_over_when_the_library_is_missing(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "openvino", None)
        bench = Bench(tmp_path)
        with bench.open(backend="openvino", precision="fp32", fallback="onnxruntime") as engine:
            assert engine.backend == "onnxruntime"
            assert "openvino cannot be imported" in engine.stands_in

    def test_one_that_cannot_be_opened_either_names_both_reasons(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "openvino", None)
        bench = Bench(tmp_path, off_by=40)
        with pytest.raises(EngineError, match=r"psnr_db .*and the fallback openvino: .*openvino"):
            bench.open(fallback="openvino")

    def test_is_not_taken_without_need(self, tmp_path):
        with Bench(tmp_path).open(fallback="openvino") as engine:
            assert (engine.backend, engine.stands_in) == ("onnxruntime", "")
