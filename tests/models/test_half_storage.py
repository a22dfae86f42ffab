"""Weights that are stored in half: a smaller file, which computes nearly the same."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from compositions import drawn_inputs, write_composition
from onnx import TensorProto, helper, numpy_helper

from mmfusion.cli import main
from mmfusion.composition import read_composition
from mmfusion.export import build_graph
from mmfusion.half_storage import store_in_half, widen
from mmfusion.reduce import reduce_artifact

pytestmark = pytest.mark.torch
X = np.random.default_rng(0).normal(size=(1, 8, 16, 16)).astype(np.float32)


def layered(**changes):
    """A convolution, a product with a table, one with weights, and a sum that is no layer."""
    rng = np.random.default_rng(1)
    shapes = {
        "kernel": (16, 8, 3, 3),
        "bias": (16,),
        "columns": (16, 24),
        "weight": (24, 32),
        "grid": (1, 16, 16, 32),
    }
    drawn = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    constants = {name: array.astype(np.float32) for name, array in {**drawn, **changes}.items()}
    nodes = [
        helper.make_node("Conv", ["x", "kernel", "bias"], ["a"], "net.conv/Conv_0", pads=[1] * 4),
        helper.make_node("MatMul", ["a", "columns"], ["b"], "net.resize/MatMul_1"),
        helper.make_node("MatMul", ["b", "weight"], ["c"], "net.linear/MatMul_2"),
        helper.make_node("Add", ["c", "grid"], ["y"], "net/Add_3"),
    ]
    graph = helper.make_graph(
        nodes,
        "layered",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, X.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 4)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def stored(model):
    half = onnx.ModelProto()
    half.CopyFrom(model)
    store_in_half(half, {"columns"})
    onnx.checker.check_model(half, full_check=True)
    return half


def run(model):
    return ort.InferenceSession(model.SerializeToString()).run(None, {"x": X})[0]


def constants(model):
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def test_weights_of_layers_alone_are_stored_in_half():
    types = {name: array.dtype.name for name, array in constants(stored(layered())).items()}
    assert types == {
        "kernel_half": "float16",
        "bias": "float32",
        "columns": "float32",
        "weight_half": "float16",
        "grid": "float32",
    }


def test_the_graph_computes_in_float32_with_rounded_weights():
    values = constants(layered())
    rounded = {name: values[name].astype(np.float16) for name in ("kernel", "weight")}
    given = run(stored(layered()))
    np.testing.assert_array_equal(given, run(layered(**rounded)))
    assert not np.array_equal(given, run(layered()))


@pytest.mark.parametrize("scale", [1e5, 1e-5], ids=["too large", "too small"])
def test_weights_that_do_not_survive_stay(scale):
    model = layered(weight=scale * constants(layered())["weight"])
    given = constants(stored(model))
    np.testing.assert_array_equal(given["weight"], constants(model)["weight"])
    assert "kernel_half" in given


def test_small_weights_stay():
    values = constants(layered())
    narrow = {name: values[name][..., :10] for name in ("weight", "grid")}  # 960 bytes of weights
    assert "weight" in constants(stored(layered(**narrow)))


def test_onnxruntime_folds_the_casts(tmp_path):
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    ort.InferenceSession(stored(layered()).SerializeToString(), options)
    loaded = onnx.load(tmp_path / "loaded.onnx")
    assert {array.dtype.name for array in constants(loaded).values()} == {"float32"}
    assert "Cast" not in {node.op_type for node in loaded.graph.node}


def test_a_cast_tells_the_module_that_it_is_of():
    casts = [node.name for node in stored(layered()).graph.node if node.op_type == "Cast"]
    assert casts == ["net.conv/Cast_kernel", "net.linear/Cast_weight"]


def test_widened_it_is_the_graph_of_before():
    model = layered()
    half = stored(model)
    widen(half)
    assert half.graph.node == model.graph.node
    for (name, wide), (before, array) in zip(
        constants(half).items(), constants(model).items(), strict=True
    ):
        assert (name, wide.dtype) == (before, array.dtype)
        np.testing.assert_allclose(wide, array, atol=2**-11 * np.abs(array).max())


@pytest.fixture(scope="module")
def exported(tmp_path_factory, repo_root):
    """The bundled networks for small pictures: what they compute in PyTorch, and the artifact."""
    folder = tmp_path_factory.mktemp("half")

    def bundled(model, **settings):
        checkpoint = str(repo_root / "weights" / model / "model.safetensors")
        return {"model": model, "checkpoint": checkpoint, **settings}

    composition = write_composition(
        folder,
        weight_storage="float16",
        saliency=bundled("haf_mobilenetv3_small", input_size="128x96", depth_range_m=[0.3, 10]),
        detection=bundled("efficientmfd_lite0"),
    )
    assert main(["export", "--composition", str(composition), "--out", str(folder / "art")]) == 0
    graph, _ = build_graph(read_composition(composition))
    return graph, folder / "art"


@pytest.mark.export
def test_the_file_is_little_more_than_half_of_the_weights(exported):
    graph, artifact = exported
    weights = sum(4 * parameter.numel() for parameter in graph.parameters())
    assert (artifact / "graph.onnx").stat().st_size < 0.56 * weights


@pytest.mark.export
def test_tables_are_stored_as_they_are(exported):
    graph, artifact = exported
    there = constants(onnx.load(artifact / "graph.onnx"))
    tables = {name: t for name, t in graph.named_buffers() if name in there}
    assert {"saliency.map_depth.resize.rows", "saliency.resize.columns"} <= tables.keys()
    for name, table in tables.items():
        np.testing.assert_array_equal(there[name], table.numpy(), err_msg=name)


@pytest.mark.export
def test_pytorch_and_the_rounded_graph_agree(exported):
    graph, artifact = exported
    session = ort.InferenceSession(artifact / "graph.onnx")
    names = [value.name for value in session.get_outputs()]
    for seed in range(2):
        inputs = drawn_inputs(graph, seed) | {"present": np.ones(3, np.float32)}
        feeds = {value.name: inputs[value.name] for value in session.get_inputs()}
        ours = dict(zip(names, session.run(None, feeds), strict=True))
        with torch.inference_mode():
            theirs = graph(**{name: torch.from_numpy(array) for name, array in inputs.items()})
        for name in ("fused", "saliency"):
            difference = np.abs(ours[name].astype(int) - theirs[name].numpy().astype(int))
            assert difference.mean() < 0.2, name
            assert difference.max() <= 8, name  # on the edge of something, in a picture of noise
        scores = np.sort(ours["scores"]), np.sort(theirs["scores"].numpy())
        assert scores[1].max() > 0.1
        np.testing.assert_allclose(*scores, atol=0.02)


@pytest.mark.export
def test_reduced_graphs_are_those_of_a_float32_file(exported, tmp_path):
    graph, artifact = exported
    folder = shutil.copytree(artifact, tmp_path / "small")
    manifest = json.loads((folder / "manifest.json").read_text())
    about = {key: manifest[key] for key in ("encodings", "rig_packing")}
    frame = drawn_inputs(graph) | {"present": np.ones(3, np.float32)}
    stacks = {name: array[None] for name, array in frame.items()}
    samples = tmp_path / "frames.npz"
    np.savez(samples, about=np.array(json.dumps({**about, "artifact": "small"})), **stacks)
    for precision, least in (("fp16", 250), ("int8", 100)):
        reduced = onnx.load(reduce_artifact(folder, precision, samples))
        there = constants(reduced)
        casts = [n.name for n in reduced.graph.node if n.op_type == "Cast" and n.input[0] in there]
        assert not casts
        dtype = {"fp16": "float16", "int8": "int8"}[precision]
        assert sum(array.dtype == dtype and array.nbytes > 512 for array in there.values()) > least
