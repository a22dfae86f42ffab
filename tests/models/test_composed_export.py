"""Fusion, saliency and detection in one graph: PyTorch and ONNX Runtime agree on it."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from compositions import as_bytes, drawn_inputs, flags, write_composition

from mmfusion.cli import main
from mmfusion.composition import read_composition
from mmfusion.export import build_graph

pytestmark = [pytest.mark.torch, pytest.mark.export]
SETS = [("rgb", "depth", "thermal"), ("rgb", "thermal"), ("rgb", "depth"), ("rgb",), ("thermal",)]
# None of these fits an engine with fixed shapes.
DYNAMIC = {"NonZero", "NonMaxSuppression", "Loop", "If", "Unique", "Compress", "ScatterND", "DFT"}


@pytest.fixture(scope="module", params=["s4fusion", "joint"])
def exported(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    changes = {"fusion": "detection", "extra_outputs": ["registered_thermal"]}
    if request.param == "s4fusion":
        changes = {}
    composition = write_composition(folder, **changes)
    assert main(["export", "--composition", str(composition), "--out", str(folder / "art")]) == 0
    graph, _ = build_graph(read_composition(composition))
    return graph, folder / "art"


def test_the_manifest_tells_of_every_network(exported):
    _, artifact = exported
    manifest = json.loads((artifact / "manifest.json").read_text())
    assert [entry["role"] for entry in manifest["models"]] == [
        "fusion",
        "saliency",
        "detection",
    ] or ([entry["role"] for entry in manifest["models"]] == ["saliency", "fusion", "detection"])
    names = {entry["name"]: entry["shape"] for entry in manifest["outputs"]}
    assert names["saliency"] == [120, 160]
    assert names["boxes"] == [500, 4]
    assert names["scores"] == names["classes"] == names["box_depth"] == [500]
    assert manifest["classes"][:2] == ["People", "Car"]
    assert manifest["detection"] == {"nms_iou": 0.5}
    settings = {entry["role"]: entry["settings"] for entry in manifest["models"]}
    assert settings["saliency"] == {"input_size": [96, 128], "depth_range_m": [0.3, 10]}
    assert settings["detection"] == {"scale": 1, "steps": 1, "noise_seed": 0}
    assert set(manifest["tolerances"]) == {"fused", "saliency", "boxes"}


def test_the_graph_has_fixed_shapes_and_each_backbone_once(exported):
    graph, artifact = exported
    model = onnx.load(artifact / "graph.onnx")
    operators = [node.op_type for node in model.graph.node]
    assert not DYNAMIC & set(operators)
    parameters = sum(p.numel() for p in graph.parameters())
    stored = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)
    assert stored < 1.35 * parameters
    constants = [(t.data_type, tuple(t.dims), t.raw_data) for t in model.graph.initializer]
    assert len(set(constants)) == len(constants)  # nothing is there twice


@pytest.mark.parametrize("present", SETS, ids="+".join)
def test_pytorch_and_onnxruntime_agree_on_drawn_images(exported, present):
    _compare(*exported, drawn_inputs(exported[0]) | {"present": flags(*present)})


def test_pytorch_and_onnxruntime_agree_on_real_images(exported, shared_dir):
    graph, artifact = exported
    folder = shared_dir / "data" / "rgbdt" / "val"
    for stem in ("mm5_071", "mm5_231"):
        inputs = drawn_inputs(graph)
        rgb = cv2.imread(str(folder / "rgb" / f"{stem}.jpg"))[..., ::-1]
        inputs["rgb"] = np.ascontiguousarray(cv2.resize(rgb, (160, 120)))
        thermal = cv2.imread(str(folder / "thermal" / f"{stem}.png"), cv2.IMREAD_UNCHANGED)
        inputs["thermal"] = as_bytes(cv2.resize(thermal, (160, 120)))
        depth = cv2.imread(str(folder / "depth" / f"{stem}.png"), cv2.IMREAD_UNCHANGED)
        inputs["depth"] = as_bytes(depth[::8, ::8])
        _compare(graph, artifact, inputs | {"present": flags("rgb", "depth", "thermal")})


def _compare(graph, artifact, inputs):
    session = ort.InferenceSession(artifact / "graph.onnx")
    read = {value.name for value in session.get_inputs()}
    names = [value.name for value in session.get_outputs()]
    ours = dict(zip(names, session.run(None, {n: inputs[n] for n in read}), strict=True))
    with torch.inference_mode():
        theirs = graph(**{name: torch.from_numpy(array) for name, array in inputs.items()})
    assert list(theirs) == names
    for name in ("fused", "saliency"):
        difference = np.abs(ours[name].astype(int) - theirs[name].numpy().astype(int))
        assert difference.max() <= 1, name
        assert difference.mean() < 0.01, name
    np.testing.assert_allclose(ours["scores"], theirs["scores"].numpy(), atol=1e-5)
    wrong_depths = 0
    # Candidates of almost equal score may change places.
    for index, score in enumerate(ours["scores"]):
        twins = np.flatnonzero(np.abs(theirs["scores"].numpy() - score) < 1e-5)
        boxes = np.abs(theirs["boxes"].numpy()[twins] - ours["boxes"][index]).max(axis=1)
        same = (boxes < 0.2) & (theirs["classes"].numpy()[twins] == ours["classes"][index])
        assert same.any(), index
        depths = theirs["box_depth"].numpy()[twins[same]]
        wrong_depths += not np.isclose(depths, ours["box_depth"][index], equal_nan=True).any()
    # On the border between two pixels, a box may look at either.
    assert wrong_depths <= 0.02 * len(ours["scores"])
    if "registered_thermal" in ours:
        thermal = ours["registered_thermal"].astype(int), theirs["registered_thermal"].numpy()
        assert np.abs(thermal[0] - thermal[1]).max() <= 1
    np.testing.assert_allclose(ours["thermal_range_next"], theirs["thermal_range_next"], rtol=1e-6)
