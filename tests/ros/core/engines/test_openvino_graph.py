"""What OpenVINO refuses or gets wrong is rewritten before it sees a graph."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mmfusion_ros.core.engines.openvino_graph import readable_graph

openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")


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
    rewritten = readable_graph(path.read_bytes())
    onnx.checker.check_model(onnx.load_from_string(rewritten))
    given = openvino.Core().compile_model(openvino.Core().read_model(rewritten), "CPU")(inputs)
    for name, array in zip(("last", "more_rows"), expected, strict=True):
        np.testing.assert_allclose(given[name], array, rtol=1e-6)
    again = onnxruntime.InferenceSession(rewritten).run(["last", "more_rows"], inputs)
    for one, other in zip(expected, again, strict=True):
        np.testing.assert_array_equal(one, other)


def joined_in_int8(layer, axis):
    """Two values side by side, one in int8 already, read in int8 by a layer."""
    make = helper.make_node
    channels, columns = (8 if axis == 1 else 4), (16 if axis == 3 else 8)
    rng = np.random.default_rng(0)
    shape = (3, channels, 3, 3) if layer == "Conv" else (columns, 5)
    constants = {
        "weight_int8": rng.integers(-127, 128, shape).astype(np.int8),
        "weight_scale": np.float32(0.01),
        "scale": np.float32(0.05),
        "zero": np.int8(0),
    }
    nodes = [
        make("QuantizeLinear", ["x", "scale", "zero"], ["x_int8"]),
        make("DequantizeLinear", ["x_int8", "scale", "zero"], ["rounded"]),
        make("Sigmoid", ["z"], ["other"]),
        make("Concat", ["rounded", "other"], ["both"], axis=axis),
        make("QuantizeLinear", ["both", "scale", "zero"], ["both_int8"]),
        make("DequantizeLinear", ["both_int8", "scale", "zero"], ["read"]),
        make("DequantizeLinear", ["weight_int8", "weight_scale", "zero"], ["weight"]),
        make(layer, ["read", "weight"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "joined",
        [value(name, TensorProto.FLOAT, (1, 4, 8, 8)) for name in ("x", "z")],
        [value("y", TensorProto.FLOAT, [None] * 4)],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
        value_info=[value("both_int8", TensorProto.INT8, None)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
@pytest.mark.parametrize("layer", ["Conv", "MatMul"])
def test_what_is_read_in_int8_behind_a_concat_is_right(tmp_path, layer, axis):
    path = tmp_path / "graph.onnx"
    onnx.save(joined_in_int8(layer, axis), path)
    rng = np.random.default_rng(1)
    inputs = {name: rng.normal(0, 2, (1, 4, 8, 8)).astype(np.float32) for name in ("x", "z")}
    (expected,) = onnxruntime.InferenceSession(path).run(["y"], inputs)
    rewritten = readable_graph(path.read_bytes())
    onnx.checker.check_model(onnx.load_from_string(rewritten), full_check=True)
    (again,) = onnxruntime.InferenceSession(rewritten).run(["y"], inputs)
    np.testing.assert_allclose(again, expected, rtol=1e-5, atol=1e-5)
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    core = openvino.Core()
    given = core.compile_model(core.read_model(rewritten), "CPU", settings)(inputs)
    np.testing.assert_allclose(given["y"], expected, rtol=1e-4, atol=1e-4)
