"""OpenVINO gives what ONNX Runtime gives, on the processor's precisions alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from artifacts import add_reduced_graph, write_artifact
from onnx import TensorProto, helper

from mmfusion_ros.core.artifact import open_artifact
from mmfusion_ros.core.engines import EngineOptions, open_engine
from mmfusion_ros.core.engines.openvino_graph import readable_graph
from mmfusion_ros.core.engines.sample_frames import SampleFrames, write_sample_frames
from mmfusion_ros.core.errors import EngineError

openvino = pytest.importorskip("openvino")
onnxruntime = pytest.importorskip("onnxruntime")

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


@pytest.mark.parametrize("precision", CAPABILITIES)
def test_what_the_processor_lacks_is_refused(artifact, precision):
    there = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if CAPABILITIES[precision] in there:
        pytest.skip(f"this processor computes in {precision}")
    with pytest.raises(EngineError, match=rf"nothing in {precision} on this .*, only in fp32 and"):
        open_engine(artifact, EngineOptions("openvino", precision=precision))


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


def scanning(captured: int) -> onnx.ModelProto:
    """Sums the rows of x, each plus values from around the body, by a Scan in a function."""
    names = [f"around{number}" for number in range(captured)]
    float_, shape = TensorProto.FLOAT, (3,)
    body = helper.make_graph(
        [
            helper.make_node("Sum", ["state", "row", *names], ["next"]),
            helper.make_node("Identity", ["next"], ["seen"]),
        ],
        "body",
        [helper.make_tensor_value_info(name, float_, shape) for name in ("state", "row")],
        [helper.make_tensor_value_info(name, float_, shape) for name in ("next", "seen")],
    )
    one = helper.make_tensor("one", float_, shape, [1.0, 2.0, 3.0])
    function = helper.make_function(
        "test",
        "Rows",
        ["start", "x"],
        ["last", "rows"],
        [
            *(
                node
                for number, name in enumerate(names)
                for node in (
                    helper.make_node("Constant", [], [f"{name}_constant"], value=one),
                    helper.make_node("Sum", [f"{name}_constant"] * (number + 1), [name]),
                )
            ),
            helper.make_node(
                "Scan", ["start", "x"], ["last", "rows"], body=body, num_scan_inputs=1
            ),
        ],
        [helper.make_opsetid("", 20)],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Rows", ["start", "x"], ["middle", "rows"], domain="test"),
            helper.make_node("Rows", ["middle", "x"], ["last", "more_rows"], domain="test"),
        ],
        "test",
        [
            helper.make_tensor_value_info("start", float_, shape),
            helper.make_tensor_value_info("x", float_, (4, 3)),
        ],
        [
            helper.make_tensor_value_info("last", float_, shape),
            helper.make_tensor_value_info("more_rows", float_, (4, 3)),
        ],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("test", 1)]
    return helper.make_model(graph, functions=[function], opset_imports=opsets, ir_version=9)


@pytest.mark.parametrize("captured", [0, 1, 2])
def test_what_a_scan_takes_from_around_it_is_handed_in(tmp_path, captured):
    path = tmp_path / "graph.onnx"
    onnx.save(scanning(captured), path)
    rng = np.random.default_rng(0)
    inputs = {"start": rng.random(3, np.float32), "x": rng.random((4, 3), np.float32)}
    expected = onnxruntime.InferenceSession(path).run(["last", "more_rows"], inputs)
    rewritten = readable_graph(path)
    onnx.checker.check_model(onnx.load_from_string(rewritten))
    given = openvino.Core().compile_model(openvino.Core().read_model(rewritten), "CPU")(inputs)
    for name, array in zip(("last", "more_rows"), expected, strict=True):
        np.testing.assert_allclose(given[name], array, rtol=1e-6)
    again = onnxruntime.InferenceSession(rewritten).run(["last", "more_rows"], inputs)
    for one, other in zip(expected, again, strict=True):
        np.testing.assert_array_equal(one, other)
