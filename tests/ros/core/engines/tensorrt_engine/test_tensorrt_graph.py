"""The graph that TensorRT gets computes what the artifact's does, with bytes at its edges only."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from artifacts import write_artifact
from onnx import TensorProto, helper, numpy_helper, shape_inference

from mmfusion_ros.core.artifact import open_artifact
from mmfusion_ros.core.engines.tensorrt.byte_edges import bytes_at_the_edges
from mmfusion_ros.core.engines.tensorrt.graph import has_scan, parsable_graph
from mmfusion_ros.core.errors import EngineError

ROOT = Path(__file__).resolve().parents[5]
BYTES = TensorProto.UINT8


def run(graph: bytes, inputs):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


def byte_values(model: onnx.ModelProto) -> set[str]:
    graph = shape_inference.infer_shapes(model).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    found = {v.name for v in values if v.type.tensor_type.elem_type == BYTES}
    return found | {each.name for each in graph.initializer if each.data_type == BYTES}


@pytest.mark.parametrize("folder", sorted(ROOT.glob("artifacts/*")), ids=lambda path: path.name)
def test_bundled_graphs_give_the_same(folder):
    artifact = open_artifact(folder)
    random = np.random.default_rng(0)
    inputs = {
        name: random.integers(0, 256, spec.shape).astype(spec.dtype)
        for name, spec in artifact.inputs.items()
    }
    inputs["thermal_range"] = np.array([0, 65535], np.float32)
    inputs["present"] = np.ones(3, np.float32)
    graph = parsable_graph(artifact.read_graph("fp32"), folder)
    model = onnx.load_from_string(graph)
    assert not model.functions
    edges = {value.name for value in (*model.graph.input, *model.graph.output)}
    assert byte_values(model) <= edges
    used = {v.name for v in onnx.load(artifact.graph_path).graph.input}
    expected = run(artifact.graph_path.read_bytes(), {name: inputs[name] for name in used})
    for name, array in run(graph, {name: inputs[name] for name in used}).items():
        assert array.dtype == expected[name].dtype
        if array.dtype == np.uint8:
            # Other fusions round differently in the last place.
            assert np.abs(array.astype(int) - expected[name]).max() <= 1, name
        elif name == "thermal_range_next":
            np.testing.assert_allclose(array, expected[name], rtol=1e-5)
            assert not np.array_equal(array, inputs["thermal_range"])


def test_weights_stored_in_half_are_float32_to_the_parser():
    values = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float16)
    nodes = [
        helper.make_node("Cast", ["kernel_half"], ["kernel"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["x", "kernel"], ["seen"]),
        helper.make_node("Cast", ["seen"], ["short"], to=TensorProto.FLOAT16),
        helper.make_node("Mul", ["short", "gain"], ["louder"]),
        helper.make_node("Cast", ["louder"], ["y"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["gain"], ["whole"], to=TensorProto.INT32),
    ]
    graph = helper.make_graph(
        nodes,
        "half",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 6, 6]),
            helper.make_tensor_value_info("whole", TensorProto.INT32, []),
        ],
        [
            numpy_helper.from_array(values, "kernel_half"),
            numpy_helper.from_array(np.float16(2), "gain"),
        ],
    )
    opset = helper.make_opsetid("", 20)
    given = helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()
    made = parsable_graph(given, Path("half"))
    parsed = onnx.load_from_string(made).graph
    constants = {each.name: numpy_helper.to_array(each) for each in parsed.initializer}
    (kernel,) = (node.input[1] for node in parsed.node if node.op_type == "Conv")
    np.testing.assert_array_equal(constants[kernel], values.astype(np.float32), strict=True)
    assert constants["gain"].dtype == np.float16  # of a graph that computes in half
    x = np.random.default_rng(1).normal(size=(1, 3, 8, 8)).astype(np.float32)
    for name, expected in run(given, {"x": x}).items():
        np.testing.assert_array_equal(run(made, {"x": x})[name], expected, strict=True)


def of_one_half(*readers: onnx.NodeProto) -> bytes:
    """A graph from x to y, both (2, 2) float32, with the float16 constant ``half``."""
    constant = numpy_helper.from_array(np.array([[1, 2], [3, 4]], np.float16), "half")
    graph = helper.make_graph(
        readers,
        "half",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 2])],
        [constant],
    )
    opset = helper.make_opsetid("", 20)
    return helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()


def widened(name: str, of: str = "half") -> onnx.NodeProto:
    return helper.make_node("Cast", [of], [name], to=TensorProto.FLOAT)


def read_twice() -> bytes:
    return of_one_half(
        widened("first"),
        widened("second"),
        helper.make_node("MatMul", ["x", "first"], ["product"]),
        helper.make_node("MatMul", ["product", "second"], ["y"]),
    )


def also_read_in_half() -> bytes:
    return of_one_half(
        widened("weight"),
        helper.make_node("MatMul", ["x", "weight"], ["product"]),
        helper.make_node("Cast", ["product"], ["short"], to=TensorProto.FLOAT16),
        helper.make_node("Mul", ["short", "half"], ["louder"]),
        widened("y", of="louder"),
    )


def also_read_in_a_body() -> bytes:
    put_out = helper.make_tensor_value_info("doubled", TensorProto.FLOAT16, [2, 2])
    body = helper.make_graph(
        [helper.make_node("Add", ["half", "half"], ["doubled"])], "body", [], [put_out]
    )
    return of_one_half(
        widened("weight"),
        helper.make_node("MatMul", ["x", "weight"], ["product"]),
        helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True))),
        helper.make_node("If", ["yes"], ["chosen"], then_branch=body, else_branch=body),
        widened("louder", of="chosen"),
        helper.make_node("Mul", ["product", "louder"], ["y"]),
    )


@pytest.mark.parametrize("graph", [read_twice, also_read_in_half, also_read_in_a_body])
def test_a_constant_in_half_may_have_several_readers(graph):
    given = graph()
    made = parsable_graph(given, Path("half"))
    assert "weight" not in {
        name for node in onnx.load_from_string(made).graph.node for name in node.output
    }
    x = np.arange(4, dtype=np.float32).reshape(2, 2)
    expected = run(given, {"x": x})["y"]
    np.testing.assert_array_equal(run(made, {"x": x})["y"], expected, strict=True)


def test_bytes_of_every_origin_are_floats_within():
    nodes = [
        helper.make_node("Gather", ["x", "first"], ["row"], axis=0),
        helper.make_node("Cast", ["half"], ["cut"], to=BYTES),
        helper.make_node(
            "Constant", [], ["made"], value=numpy_helper.from_array(np.array([9, 250], np.uint8))
        ),
        helper.make_node(
            "ConstantOfShape",
            ["one"],
            ["filled"],
            value=helper.make_tensor("v", BYTES, [1], [77]),
        ),
        helper.make_node("Concat", ["row", "cut", "made", "filled", "kept"], ["y"], axis=0),
        helper.make_node("Cast", ["row"], ["z"], to=TensorProto.INT32),
    ]
    value = helper.make_tensor_value_info
    constants = {
        "first": np.array(1),
        "half": np.array([3.99, 254.5], np.float32),
        "one": np.array([1]),
        "kept": np.array([1, 255], np.uint8),
    }
    graph = helper.make_graph(
        nodes,
        "bytes",
        [value("x", BYTES, [2, 3])],
        [value("y", BYTES, [10]), value("z", TensorProto.INT32, [3])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opset = helper.make_opsetid("", 20)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=9)
    inputs = {"x": np.arange(250, 256, dtype=np.uint8).reshape(2, 3)}
    expected = run(model.SerializeToString(), inputs)
    bytes_at_the_edges(model)
    assert byte_values(model) == {"x", "y"}
    given = run(model.SerializeToString(), inputs)
    assert given["y"].tolist() == expected["y"].tolist()
    assert given["y"].tolist() == [253, 254, 255, 3, 254, 9, 250, 77, 1, 255]
    assert given["z"].tolist() == [253, 254, 255]


def test_bodies_see_the_renamed_values():
    def branch(name, index):
        node = helper.make_node("Gather", ["x", index], [name])
        return helper.make_graph([node], name, [], [helper.make_empty_tensor_value_info(name)])

    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node(
                "If",
                ["c"],
                ["y"],
                then_branch=branch("yes", "zero"),
                else_branch=branch("no", "one"),
            )
        ],
        "bodies",
        [value("x", BYTES, [2]), value("c", TensorProto.BOOL, [])],
        [value("y", BYTES, [])],
        [numpy_helper.from_array(np.array(i), name) for i, name in enumerate(("zero", "one"))],
    )
    opset = helper.make_opsetid("", 20)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=9)
    bytes_at_the_edges(model)
    inputs = {"x": np.array([5, 6], np.uint8), "c": np.array(False)}
    assert run(model.SerializeToString(), inputs)["y"] == 6


@pytest.mark.parametrize("folder", sorted(ROOT.glob("artifacts/*")), ids=lambda path: path.name)
def test_a_scan_is_found_where_there_is_one(folder):
    path = folder / "graph.onnx"
    nodes = onnx.load(path).graph.node
    assert has_scan(path.read_bytes()) == any(n.op_type == "SelectiveScan" for n in nodes)


def test_with_a_plugin_a_scan_is_three_nodes():
    path = ROOT / "artifacts" / "s4fusion_tiny_640x480" / "graph.onnx"
    model = onnx.load_from_string(parsable_graph(path.read_bytes(), path, scan_is_plugin=True))
    before = [node.op_type for node in onnx.load(path).graph.node].count("SelectiveScan")
    after = [node.op_type for node in model.graph.node if node.domain == "mmfusion"]
    assert before
    assert after == ["SelectiveScanStates", "SelectiveScanCarry", "SelectiveScanEmit"] * before
    assert not model.functions


def test_a_name_makes_no_scan():
    node = helper.make_node("Relu", ["SelectiveScan"], ["y"], name="SelectiveScan")
    assert not has_scan(node.SerializeToString())
    node.op_type = "SelectiveScan"
    assert has_scan(node.SerializeToString())


def test_without_onnx_it_says_what_to_install(tmp_path, monkeypatch):
    path = write_artifact(tmp_path / "small") / "graph.onnx"
    monkeypatch.setitem(sys.modules, "onnx.inliner", None)
    with pytest.raises(EngineError, match=r"cannot be prepared without onnx .*pip install"):
        parsable_graph(path.read_bytes(), path)
