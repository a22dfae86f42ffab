"""OpenVINO gives what ONNX Runtime gives, on the processor's precisions alone."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import subprocess
import sys

import numpy as np
import onnx
import pytest
from artifacts import add_reduced_graph, write_artifact
from onnx import TensorProto, helper

from mmfusion_ros.core.artifact import open_artifact
from mmfusion_ros.core.engines import EngineOptions, open_engine
from mmfusion_ros.core.engines import openvino as engine_module
from mmfusion_ros.core.engines.openvino import OpenVinoEngine
from mmfusion_ros.core.engines.sample_frames import SampleFrames, write_sample_frames
from mmfusion_ros.core.errors import EngineError

openvino = pytest.importorskip("openvino")
pytest.importorskip("onnxruntime")

CAPABILITIES = {"fp16": "FP16", "bf16": "BF16"}


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifact") / "small"
    return open_artifact(write_artifact(folder, detections=True, saliency=True))


@pytest.mark.parametrize("name", ["s4fusion_tiny", "rgbdt_tiny"])
def test_a_bundled_artifact_gives_the_same_within_a_grey_level(repo_root, name):
    artifact = open_artifact(repo_root / "artifacts" / f"{name}_640x480")
    rng = np.random.default_rng(0)
    inputs = {
        **{
            name: rng.integers(0, 256, artifact.inputs[name].shape, np.uint8)
            for name in ("rgb", "depth", "thermal")
        },
        "thermal_range": np.zeros(2, np.float32),
        "present": np.ones(3, np.float32),
    }
    outputs = {}
    for backend in ("onnxruntime", "openvino"):
        with open_engine(artifact, EngineOptions(backend)) as engine:
            given = engine.run(inputs)
            outputs[backend] = {name: array.astype(np.float64) for name, array in given.items()}
    for name, expected in outputs["onnxruntime"].items():
        np.testing.assert_allclose(outputs["openvino"][name], expected, atol=1, rtol=1e-5)


def test_fp32_is_fp32_whatever_the_processor_prefers(artifact):
    with open_engine(artifact, EngineOptions("openvino")) as engine:
        compiled = engine._request.get_compiled_model()
        assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"


def test_threads_are_as_many_as_asked(artifact):
    with open_engine(artifact, EngineOptions("openvino", threads=1)) as engine:
        assert engine._request.get_compiled_model().get_property("INFERENCE_NUM_THREADS") == 1


def test_nothing_is_copied(artifact):
    inputs = {name: np.zeros(spec.shape, spec.dtype) for name, spec in artifact.inputs.items()}
    inputs["rgb"].flags.writeable = False
    with open_engine(artifact, EngineOptions("openvino")) as engine:
        outputs = engine.run(inputs)
        for name in ("rgb", "thermal"):
            seen = engine._request.get_tensor(name).data
            assert seen.ctypes.data == inputs[name].ctypes.data
        seen = engine._request.get_tensor("fused").data
        assert seen.ctypes.data == outputs["fused"].ctypes.data


def needs(precision):
    """Skip where the processor has no such arithmetic."""
    capabilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if CAPABILITIES[precision] not in capabilities:
        pytest.skip(f"this processor does not compute in {precision}")


def test_bf16_is_computed_in_where_the_processor_can_and_is_compared(tmp_path):
    needs("bf16")
    folder = write_artifact(tmp_path / "small")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["tolerances"] = {"fused": {"psnr_db": 45}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    artifact = open_artifact(folder)
    inputs = {name: np.ones(spec.shape, spec.dtype) for name, spec in artifact.inputs.items()}
    write_sample_frames(tmp_path / "f.npz", artifact, SampleFrames.of([inputs]))
    options = EngineOptions("openvino", precision="bf16", cache=tmp_path)
    with pytest.raises(EngineError, match="openvino in bf16 was not yet compared"):
        open_engine(artifact, options)
    options = dataclasses.replace(options, samples=tmp_path / "f.npz")
    with open_engine(artifact, options) as engine:
        compiled = engine._request.get_compiled_model()
        assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "bf16"
        assert engine.gate.passed


def test_fp16_runs_the_artifacts_fp16_graph_and_leaves_counts_all_their_digits(tmp_path):
    needs("fp16")
    folder = write_artifact(tmp_path / "small")
    with pytest.raises(EngineError, match="has no fp16 graph, only fp32; add one with 'mmfusion"):
        open_engine(open_artifact(folder), EngineOptions("openvino", precision="fp16"))
    add_reduced_graph(folder, "fp16", off_by=1, tolerances={"fused": {"psnr_db": 45}})
    artifact = open_artifact(folder)
    inputs = {name: np.zeros(spec.shape, spec.dtype) for name, spec in artifact.inputs.items()}
    inputs["rgb"][:] = np.arange(64)[:, None]
    inputs["thermal_range"][:] = 26156  # between 26144 and 26160, float16 has no others
    write_sample_frames(tmp_path / "f.npz", artifact, SampleFrames.of([inputs]))
    options = EngineOptions(
        "openvino", precision="fp16", cache=tmp_path, samples=tmp_path / "f.npz"
    )
    with open_engine(artifact, options) as engine:
        outputs = engine.run(inputs)
        np.testing.assert_array_equal(outputs["fused"], inputs["rgb"] + 1)
        np.testing.assert_array_equal(outputs["thermal_range_next"], [26157, 26158])
        assert engine.gate.passed


def half_of_it() -> bytes:
    """x by a matrix, in float16 and in float32."""
    make, value = helper.make_node, helper.make_tensor_value_info
    weight = np.full((4, 4), 1 / 3, np.float32)
    nodes = [
        make("Cast", ["x"], ["x_half"], to=TensorProto.FLOAT16),
        make("MatMul", ["x_half", "weight_half"], ["y_half"], name="half"),
        make("Cast", ["y_half"], ["y"], to=TensorProto.FLOAT),
        make("MatMul", ["x", "weight"], ["z"], name="full"),
    ]
    graph = helper.make_graph(
        nodes,
        "half_of_it",
        [value("x", TensorProto.FLOAT, (2, 4))],
        [value(name, TensorProto.FLOAT, (2, 4)) for name in "yz"],
        [
            onnx.numpy_helper.from_array(weight, "weight"),
            onnx.numpy_helper.from_array(weight.astype(np.float16), "weight_half"),
        ],
    )
    opsets = [helper.make_opsetid("", 20)]
    encoded: bytes = helper.make_model(
        graph, opset_imports=opsets, ir_version=9
    ).SerializeToString()
    return encoded


def test_of_a_graph_in_fp16_each_operation_keeps_its_type():
    needs("fp16")
    core = openvino.Core()
    settings = engine_module._precision_settings(core, "fp16")
    compiled = core.compile_model(core.read_model(half_of_it()), "CPU", settings)
    types = sorted(
        operation.get_rt_info()["runtimePrecision"].astype(str)
        for operation in compiled.get_runtime_model().get_ops()
        if operation.get_rt_info()["layerType"].astype(str) in {"FullyConnected", "MatMul"}
    )
    assert types == ["f16", "f32"]
    x = np.full((2, 4), 1 + 2**-12, np.float32)
    given = compiled({"x": x})
    np.testing.assert_allclose(given["z"], x * 4 / 3, rtol=1e-6)
    np.testing.assert_allclose(given["y"], x * 4 / 3, rtol=2e-3)
    assert (given["y"] != given["z"]).any()


@pytest.mark.parametrize("precision", CAPABILITIES)
def test_what_the_processor_lacks_is_refused(artifact, precision):
    there = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if CAPABILITIES[precision] in there:
        pytest.skip(f"this processor computes in {precision}")
    with pytest.raises(
        EngineError, match=rf"nothing in {precision} on this .*, only in fp32.* and, of int8"
    ):
        open_engine(artifact, EngineOptions("openvino", precision=precision))


REFUSED = """
import sys
from pathlib import Path
from mmfusion_ros.core.artifact import open_artifact
from mmfusion_ros.core.engines import EngineOptions, open_engine

open_engine(open_artifact(Path(sys.argv[1])), EngineOptions("openvino", precision="fp16"))
"""


@pytest.mark.skipif(platform.machine() not in {"x86_64", "AMD64"}, reason="only x86 is limited so")
def test_fp16_is_refused_on_any_x86_processor_that_the_library_takes_for_a_lesser_one(artifact):
    result = subprocess.run(
        [sys.executable, "-c", REFUSED, str(artifact.folder)],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "openvino computes nothing in fp16 on this processor" in result.stderr
    assert "only in fp32" in result.stderr.splitlines()[-1]


def test_what_another_form_of_the_graph_was_measured_at_does_not_count(tmp_path, monkeypatch):
    folder = write_artifact(tmp_path / "small")
    add_reduced_graph(folder, off_by=1, tolerances={"fused": {"psnr_db": 45}})
    artifact = open_artifact(folder)
    options = EngineOptions("openvino", precision="int8", cache=tmp_path)
    inputs = {name: np.zeros(spec.shape, spec.dtype) for name, spec in artifact.inputs.items()}
    inputs["rgb"][:] = np.arange(64)[:, None]
    write_sample_frames(tmp_path / "f.npz", artifact, SampleFrames.of([inputs]))
    open_engine(artifact, dataclasses.replace(options, samples=tmp_path / "f.npz")).close()
    open_engine(artifact, options).close()
    monkeypatch.setattr(OpenVinoEngine, "form", OpenVinoEngine.form + 1)
    with pytest.raises(EngineError, match="was not yet compared"):
        open_engine(artifact, options)


def test_int8_runs_the_artifacts_int8_graph(tmp_path):
    folder = write_artifact(tmp_path / "small")
    add_reduced_graph(folder, off_by=1, tolerances={"fused": {"psnr_db": 45}})
    artifact = open_artifact(folder)
    options = EngineOptions("openvino", precision="int8", cache=tmp_path)
    with pytest.raises(EngineError, match="openvino in int8 was not yet compared"):
        open_engine(artifact, options)
    inputs = {name: np.zeros(spec.shape, spec.dtype) for name, spec in artifact.inputs.items()}
    inputs["rgb"][:] = np.arange(64)[:, None]
    write_sample_frames(tmp_path / "f.npz", artifact, SampleFrames.of([inputs]))
    options = dataclasses.replace(options, samples=tmp_path / "f.npz")
    with open_engine(artifact, options) as engine:
        assert (engine.backend, engine.precision) == ("openvino", "int8")
        np.testing.assert_array_equal(engine.run(inputs)["fused"], inputs["rgb"] + 1)
        (measure,) = engine.gate.measures
        assert measure.value == pytest.approx(48.13, abs=0.01)


def opened_and_run(artifact, **options):
    """The fused picture, and the threads that it was computed with."""
    rng = np.random.default_rng(0)
    inputs = {
        name: rng.integers(0, 100, spec.shape).astype(spec.dtype)
        for name, spec in artifact.inputs.items()
    }
    with open_engine(artifact, EngineOptions("openvino", **options)) as engine:
        compiled = engine._request.get_compiled_model()
        fused = engine.run(inputs)["fused"].copy()
        return fused, compiled.get_property("INFERENCE_NUM_THREADS")


def never(graph):
    raise AssertionError("it was compiled before")


def test_what_was_compiled_is_loaded_at_the_next_start(artifact, tmp_path, monkeypatch):
    first, threads = opened_and_run(artifact, cache=tmp_path, threads=1)
    monkeypatch.setattr(engine_module, "readable_graph", never)
    second, more_threads = opened_and_run(artifact, cache=tmp_path, threads=2)
    np.testing.assert_array_equal(first, second)
    assert first.any()
    assert (threads, more_threads) == (1, 2)


def test_what_is_kept_is_of_the_graph_that_was_verified(tmp_path, monkeypatch):
    """The file may be exchanged between the look at its digest and its use."""
    folder = write_artifact(tmp_path / "small")
    artifact = open_artifact(folder)
    first, _ = opened_and_run(artifact, cache=tmp_path / "one")
    obtain = engine_module.EngineCache.obtain

    def exchanged_before(self, *arguments):
        (folder / "graph.onnx").write_bytes(b"another")
        return obtain(self, *arguments)

    monkeypatch.setattr(engine_module.EngineCache, "obtain", exchanged_before)
    second, _ = opened_and_run(artifact, cache=tmp_path / "two")
    np.testing.assert_array_equal(second, first)


def test_another_form_or_precision_is_compiled_anew(tmp_path, monkeypatch):
    folder = write_artifact(tmp_path / "small")
    add_reduced_graph(folder, off_by=1, tolerances={"fused": {"psnr_db": 45}})
    artifact = open_artifact(folder)

    def kept():
        return len(list((tmp_path / "openvino").glob("*.engine")))

    OpenVinoEngine(artifact, EngineOptions(cache=tmp_path)).close()
    assert kept() == 1
    OpenVinoEngine(artifact, EngineOptions(cache=tmp_path, precision="int8")).close()
    assert kept() == 2
    monkeypatch.setattr(OpenVinoEngine, "form", OpenVinoEngine.form + 1)
    OpenVinoEngine(artifact, EngineOptions(cache=tmp_path)).close()
    assert kept() == 3


@pytest.mark.parametrize(
    ("vouched_for", "reason"),
    [
        (False, "its SHA-256 is not that of its description"),
        (True, "does not load what it compiled"),
    ],
)
def test_a_damaged_entry_is_compiled_anew(artifact, tmp_path, caplog, vouched_for, reason):
    first, _ = opened_and_run(artifact, cache=tmp_path)
    (entry,) = (tmp_path / "openvino").glob("*.engine")
    good = entry.read_bytes()
    damaged = b"\0" * len(good)
    entry.write_bytes(damaged)
    if vouched_for:
        description = entry.with_suffix(".json")
        told = json.loads(description.read_text())
        told["sha256"] = hashlib.sha256(damaged).hexdigest()
        description.write_text(json.dumps(told))
    again, _ = opened_and_run(artifact, cache=tmp_path)
    np.testing.assert_array_equal(again, first)
    (line,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert f"{entry} cannot be used: " in line
    assert reason in line
    assert line.endswith("building it anew")
    assert entry.read_bytes() != damaged


def test_where_nothing_can_be_kept_it_runs_all_the_same(artifact, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file")
    fused, _ = opened_and_run(artifact, cache=tmp_path / "cache")
    assert fused.any()
    assert "cannot be written" in caplog.text


OPENS = """
import logging, sys
from pathlib import Path
from mmfusion_ros.core.artifact import open_artifact
from mmfusion_ros.core.engines import EngineOptions, open_engine

logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
artifact = open_artifact(Path(sys.argv[1]))
open_engine(artifact, EngineOptions("openvino", cache=Path(sys.argv[2]))).close()
print("opened")
"""


def test_of_two_nodes_that_start_together_one_compiles(artifact, tmp_path):
    command = [sys.executable, "-c", OPENS, str(artifact.folder), str(tmp_path)]
    nodes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    said = [node.communicate(timeout=120)[0] for node in nodes]
    assert all(text.endswith("opened\n") for text in said), said
    assert sum("kept as" in text for text in said) == 1
