"""Graphs of reduced precision: they compute nearly the same, and their manifest says of what."""

from __future__ import annotations

import hashlib
import json
import re
import shutil

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from compositions import FUSION_WEIGHTS, as_bytes, drawn_inputs
from onnx import TensorProto, helper

from mmfusion.cli import main
from mmfusion.composition import Composition, FusionPart, Weights
from mmfusion.errors import ExportError
from mmfusion.export import build_graph, export_artifact
from mmfusion.graph.cameras import CameraSpec
from mmfusion.reduce import reduce_artifact
from mmfusion.reduced_types import reduce_types
from mmfusion_ros.check_graph import check_graph
from mmfusion_ros.core.artifact import open_artifact
from mmfusion_ros.core.engines import EngineOptions
from mmfusion_ros.core.engines.openvino import OpenVinoEngine
from mmfusion_ros.core.engines.precision_gate import compare
from mmfusion_ros.core.engines.sample_frames import read_sample_frames

pytestmark = [pytest.mark.torch, pytest.mark.export]
SIZE = (120, 160)


def write_frames(path, artifact, **stacks):
    """As `sample_frames` of the ROS package does with this artifact."""
    manifest = json.loads((artifact / "manifest.json").read_text())
    about = {key: manifest[key] for key in ("encodings", "rig_packing")}
    about["artifact"] = manifest["name"]
    np.savez(path, **{"about": np.array(json.dumps(about)), **stacks})


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An artifact of the bundled fusion weights, and frames for it."""
    cameras = CameraSpec(SIZE, SIZE, SIZE)
    composition = Composition(cameras, FusionPart(Weights("s4fusion_tiny", FUSION_WEIGHTS), 2))
    folder = tmp_path_factory.mktemp("reduce") / "small"
    export_artifact(composition, folder)
    graph, _ = build_graph(composition)
    frames = [drawn_inputs(graph, seed) for seed in range(2)]
    stacks = {name: np.stack([frame[name] for frame in frames]) for name in frames[0]}
    write_frames(folder.parent / "frames.npz", folder, **stacks)
    return folder


@pytest.fixture
def artifact(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "small")


@pytest.fixture
def frames(exported):
    return exported.parent / "frames.npz"


@pytest.fixture(scope="module")
def quantised(repo_root, tmp_path_factory):
    """The bundled artifact with a graph in int8, made with two frames of the courtyard."""
    folder = tmp_path_factory.mktemp("quantised") / "bundled"
    shutil.copytree(repo_root / "artifacts" / "rgbdt_tiny_640x480", folder)
    scene = repo_root / "data" / "courtyard"
    rgb, depth, thermal = [], [], []
    for path in sorted((scene / "rgb").iterdir())[:40:20]:
        rgb.append(cv2.imread(str(path))[..., ::-1])
        for values, name in ((depth, "depth"), (thermal, "thermal")):
            (other,) = (scene / name).glob(f"{path.stem}.*")
            picture = cv2.imread(str(other), cv2.IMREAD_UNCHANGED)
            values.append(
                as_bytes(cv2.resize(picture, (640, 480), interpolation=cv2.INTER_NEAREST))
            )
    counts = np.stack(thermal).view("<u2")
    write_frames(
        folder.parent / "frames.npz",
        folder,
        rgb=np.stack(rgb),
        depth=np.stack(depth),
        thermal=np.stack(thermal),
        thermal_range=np.float32([[counts.min(), counts.max()]] * len(rgb)),
        present=np.ones((len(rgb), 3), np.float32),
    )
    reduce_artifact(folder, "int8", folder.parent / "frames.npz")
    return folder


def run(graph, frames, output="fused"):
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    with np.load(frames) as file:
        feeds = {value.name: file[value.name][0] for value in session.get_inputs()}
    return session.run([output], feeds)[0].astype(float)


def psnr(one, other):
    return 10 * np.log10(255**2 / max(((one - other) ** 2).mean(), 1e-9))


def types_of(model, operator):
    graph = onnx.shape_inference.infer_shapes(model).graph
    types = {v.name: v.type.tensor_type.elem_type for v in [*graph.value_info, *graph.output]}
    return {types[node.output[0]] for node in graph.node if node.op_type == operator}


def test_half_precision_fuses_nearly_the_same(artifact, frames):
    assert main(["reduce", str(artifact), "--precision", "fp16"]) == 0
    reduced = artifact / "graph.fp16.onnx"
    fused = run(reduced, frames), run(artifact / "graph.onnx", frames)
    assert psnr(*fused) > 50
    assert (fused[0] != fused[1]).any()  # it is not the same graph
    entry = json.loads((artifact / "manifest.json").read_text())["reduced_graphs"]["fp16"]
    assert entry["file"] == reduced.name
    assert entry["sha256"] == hashlib.sha256(reduced.read_bytes()).hexdigest()


def test_int8_keeps_the_tolerances_of_the_bundled_artifact(quantised):
    frames = quantised.parent / "frames.npz"
    graphs = quantised / "graph.int8.onnx", quantised / "graph.onnx"
    saliency = [run(graph, frames, "saliency") for graph in graphs]
    tolerances = json.loads((quantised / "manifest.json").read_text())["tolerances"]
    assert saliency[1].mean() > 2  # there is something to be found
    assert (
        0 < np.abs(saliency[0] - saliency[1]).mean() < tolerances["saliency"]["mean_absolute_error"]
    )
    assert psnr(*(run(graph, frames) for graph in graphs)) > tolerances["fused"]["psnr_db"]


def test_int8_is_near_in_openvino_too(quantised):
    pytest.importorskip("openvino")
    artifact = open_artifact(quantised)
    frames = read_sample_frames(quantised.parent / "frames.npz", artifact)
    with OpenVinoEngine(artifact, EngineOptions(precision="int8", threads=1)) as engine:
        result = compare(engine, artifact, frames, threads=1)
    assert result.passed, [str(measure) for measure in result.measures]


def test_tensorrt_takes_int8(quantised):
    pytest.importorskip("tensorrt_rtx")
    check = check_graph(quantised / "graph.int8.onnx")
    assert not check.problem
    assert check.engine_bytes


def test_the_networks_compute_in_half_and_the_scans_do_not(artifact):
    model = onnx.load(reduce_artifact(artifact, "fp16"))
    assert types_of(model, "Conv") == {TensorProto.FLOAT16}
    assert types_of(model, "SelectiveScan") == {TensorProto.FLOAT}


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_pixels_keep_their_digits_around_a_network(artifact, precision):
    """What shrinks the pictures, enlarges the log-odds and blends by them."""
    around = [
        node
        for node in onnx.load(reduce_artifact(artifact, precision)).graph.node
        if node.name.startswith("fusion/")
    ]
    operators = {node.op_type for node in around}
    assert {"AveragePool", "Resize", "Sigmoid", "Log", "Mul"} <= operators
    for node in around:
        assert not any(name.endswith("_reduced") for name in (*node.input, *node.output))


def test_all_of_a_network_is_reduced_but_its_scans_and_what_they_sum(artifact):
    model = onnx.load(reduce_artifact(artifact, "fp16"))
    own = [node for node in model.graph.node if node.name.startswith("fusion.network")]
    wide = [
        node
        for node in own
        if not any(name.endswith("_reduced") for name in (*node.input, *node.output))
    ]
    # From four sequences of each encoder to one map.
    summed = {"Split", "Gather", "Slice", "Reshape", "Transpose", "Add"}
    assert {node.op_type for node in wide} == {"SelectiveScan", "LayerNormalization", *summed}
    assert len(wide) < len(own) / 4


def test_the_attention_of_a_detector_weighs_in_float32(repo_root, tmp_path):
    """Its first stage has products of queries and keys beyond what float16 reaches."""
    folder = tmp_path / "detector"
    shutil.copytree(repo_root / "artifacts" / "efficientmfd_lite0_640x480", folder)
    model = onnx.load(reduce_artifact(folder, "fp16"))
    given = {name: node for node in model.graph.node for name in node.output}
    attended = [
        given[node.input[0]]
        for node in model.graph.node
        if node.op_type == "Softmax" and given[node.input[0]].op_type == "MatMul"
    ]
    assert len(attended) == 4  # stages of the head
    for product in attended:
        assert not any(name.endswith("_reduced") for name in (*product.input, *product.output))
    assert TensorProto.FLOAT16 in types_of(model, "MatMul")


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_tensorrt_takes_half_precision(artifact, precision):
    pytest.importorskip("tensorrt_rtx")
    check = check_graph(reduce_artifact(artifact, precision))
    assert not check.problem
    assert check.engine_bytes


def test_bfloat16_is_a_graph_that_runtimes_accept(artifact):
    model = onnx.load(reduce_artifact(artifact, "bf16"))
    assert types_of(model, "Conv") == {TensorProto.BFLOAT16}


def test_int8_has_explicit_scales_without_zero_points(quantised):
    model = onnx.load(quantised / "graph.int8.onnx")
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    scaled = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    assert len(scaled) > 100
    assert not any(values[node.input[2]].any() for node in scaled)


def test_int8_leaves_first_and_last_layers_and_what_scans_add_up(quantised):
    model = onnx.load(quantised / "graph.int8.onnx")
    scaled = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    layers = [
        node
        for node in model.graph.node
        if node.op_type in {"Conv", "MatMul"} and node.name.startswith(("fusion.", "saliency."))
    ]
    reduced = [node.name for node in layers if scaled.intersection(node.input)]
    assert not [name for name in reduced if name.startswith("fusion.")]
    kept = [n.name for n in layers if n.name.startswith("saliency.") and n.name not in reduced]
    assert 2 <= len(kept) < len(reduced)


def test_a_graph_with_nothing_to_quantise(artifact, frames):
    with pytest.raises(ExportError, match="nothing in this graph can be quantised"):
        reduce_artifact(artifact, "int8", frames)


def test_several_precisions_stand_beside_each_other(artifact):
    assert main(["reduce", str(artifact), "--precision", "fp16", "bf16"]) == 0
    entries = json.loads((artifact / "manifest.json").read_text())["reduced_graphs"]
    assert sorted(entries) == ["bf16", "fp16"]


def test_int8_without_frames(artifact):
    with pytest.raises(ExportError, match="--samples"):
        reduce_artifact(artifact, "int8")


def test_frames_of_another_artifact(artifact, tmp_path):
    np.savez(tmp_path / "other.npz", rgb=np.zeros((1, 8, 8, 3), np.uint8))
    with pytest.raises(ExportError, match=r"other\.npz has no depth, .*about; record it with"):
        reduce_artifact(artifact, "int8", tmp_path / "other.npz")


def test_frames_of_another_size(artifact, frames, tmp_path):
    with np.load(frames) as file:
        stacks = dict(file)
    np.savez(tmp_path / "other.npz", **{**stacks, "rgb": stacks["rgb"][:, :60]})
    with pytest.raises(ExportError, match=r"rgb: uint8 \[2, 60, 160, 3\]; expected"):
        reduce_artifact(artifact, "int8", tmp_path / "other.npz")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"encodings": {"rgb": "rgb8", "depth": "16UC1", "thermal": "mono8"}}, "'mono8'"),
        ({"rig_packing": ["thermal_from_rgb_h00"]}, "'thermal_from_rgb_h00'"),
    ],
)
def test_frames_that_mean_something_else(artifact, frames, tmp_path, change, told):
    with np.load(frames) as file:
        stacks = dict(file)
    about = {**json.loads(str(stacks["about"])), **change, "artifact": "night"}
    np.savez(tmp_path / "other.npz", **{**stacks, "about": np.array(json.dumps(about))})
    (key,) = change
    message = rf"other\.npz was recorded with artifact night, whose {key} is .*{told}.*; expected"
    with pytest.raises(ExportError, match=message):
        reduce_artifact(artifact, "int8", tmp_path / "other.npz")
    assert not (artifact / "graph.int8.onnx").exists()


@pytest.mark.parametrize(
    ("about", "missing"),
    [
        (None, "about"),
        ({"artifact": "night", "rig_packing": []}, "encodings"),
        ({}, "artifact, encodings, rig_packing"),
    ],
)
def test_frames_that_do_not_tell_what_they_are(artifact, frames, tmp_path, about, missing):
    with np.load(frames) as file:
        stacks = {name: file[name] for name in file.files if name != "about"}
    if about is not None:
        stacks["about"] = np.array(json.dumps(about))
    path = tmp_path / "other.npz"
    np.savez(path, **stacks)
    message = re.escape(f"{path} has no {missing}; record it with this artifact")
    with pytest.raises(ExportError, match=f"^{message}$"):
        reduce_artifact(artifact, "int8", path)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\3\4 cut off", b"\x93NUMPY\1\0"])
def test_what_is_no_file_of_frames(artifact, tmp_path, content):
    (tmp_path / "broken.npz").write_bytes(content)
    with pytest.raises(ExportError, match="not a file of sample frames"):
        reduce_artifact(artifact, "int8", tmp_path / "broken.npz")


def test_what_is_no_artifact(tmp_path):
    with pytest.raises(ExportError, match=r"manifest\.json cannot be read"):
        reduce_artifact(tmp_path, "fp16")


def test_a_graph_that_was_changed(artifact):
    with (artifact / "graph.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ExportError, match="not the graph its manifest describes"):
        reduce_artifact(artifact, "fp16")


def small_model(*nodes, outputs=("y",)):
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "small",
        [value("x", TensorProto.FLOAT, [1, 1, 4, 4])],
        [value(name, TensorProto.FLOAT, [None] * 4) for name in outputs],
        [
            helper.make_tensor("big", TensorProto.FLOAT, [1], [1e9]),
            helper.make_tensor("scales", TensorProto.FLOAT, [4], [1, 1, 2, 2]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    return model


def check_and_run(model, x):
    onnx.checker.check_model(model, full_check=True)
    return ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})


X = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)


def test_casts_stand_once_where_the_types_change():
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="in/1"),
        helper.make_node("Sqrt", ["a"], ["b"], name="in/2"),
        helper.make_node("Add", ["a", "b"], ["c"], name="in/3"),
        helper.make_node("Neg", ["c"], ["y"], name="out"),
    ]
    reduced = reduce_types(small_model(*nodes), TensorProto.FLOAT16, lambda n: n.name[:2] == "in")
    operators = [node.op_type for node in reduced.graph.node]
    assert operators == ["Cast", "Relu", "Sqrt", "Add", "Cast", "Neg"]
    assert np.allclose(check_and_run(reduced, X)[0], -(X + np.sqrt(X)), rtol=2e-3)


def test_constants_beyond_the_range_become_the_largest():
    nodes = [helper.make_node("Min", ["x", "big"], ["y"], name="in")]
    reduced = reduce_types(small_model(*nodes), TensorProto.FLOAT16, lambda n: True)
    assert np.array_equal(check_and_run(reduced, X)[0], X)


def test_scales_of_a_resize_stay_float32():
    nodes = [helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="nearest")]
    reduced = reduce_types(small_model(*nodes), TensorProto.FLOAT16, lambda n: True)
    assert check_and_run(reduced, X)[0].shape == (1, 1, 8, 8)


def test_operators_that_do_not_take_the_type_stay():
    nodes = [
        helper.make_node("Abs", ["x"], ["a"]),
        helper.make_node("AveragePool", ["a"], ["y"], kernel_shape=[2, 2]),
    ]
    reduced = reduce_types(small_model(*nodes), TensorProto.BFLOAT16, lambda n: True)
    onnx.checker.check_model(reduced, full_check=True)
    assert types_of(reduced, "Abs") == {TensorProto.BFLOAT16}
    assert types_of(reduced, "AveragePool") == {TensorProto.FLOAT}
