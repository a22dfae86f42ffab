"""The published networks at camera size: minutes and gigabytes, so only on request."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
ort = pytest.importorskip("onnxruntime")

from compositions import drawn_inputs, flags, spread
from safetensors.torch import save_file

import mmfusion
from mmfusion.composition import Composition, DetectionPart, FusionPart, SaliencyPart, Weights
from mmfusion.export import build_graph, export_artifact
from mmfusion.graph.cameras import CameraSpec

pytestmark = [pytest.mark.torch, pytest.mark.slow]
SIZE = (480, 640)


def test_pytorch_and_onnxruntime_agree_at_camera_size(tmp_path):
    torch.manual_seed(0)
    network = mmfusion.create_model("s4fusion").eval()
    # A fresh tail gives almost nothing; this spreads the output over the range of a picture.
    with torch.no_grad():
        network.tail.expand.weight.mul_(20)
        network.tail.conv.bias.fill_(0.5)
    checkpoint = tmp_path / "model.safetensors"
    save_file(network.state_dict(), checkpoint)
    composition = Composition(
        CameraSpec(SIZE, SIZE, SIZE), FusionPart(Weights("s4fusion", checkpoint))
    )
    export_artifact(composition, tmp_path / "artifact")
    graph, _ = build_graph(composition)
    rng = np.random.default_rng(0)
    feeds = {name: tensor.numpy() for name, tensor in graph.example_inputs().items()}
    feeds["rgb"] = rng.integers(0, 256, (*SIZE, 3), np.uint8)
    feeds["thermal"] = rng.integers(0, 256, (*SIZE, 2), np.uint8)
    session = ort.InferenceSession(tmp_path / "artifact" / "graph.onnx")
    read = {value.name for value in session.get_inputs()}
    ours = session.run(None, {name: feeds[name] for name in read})
    with torch.inference_mode():
        theirs = graph(**{name: torch.from_numpy(array) for name, array in feeds.items()})
    assert theirs["fused"].float().std() > 20
    for array, (name, tensor) in zip(ours, theirs.items(), strict=True):
        difference = np.abs(array.astype(np.float64) - tensor.numpy())
        assert difference.max() <= 1, name
        assert difference.mean() < 0.01, name


def test_all_three_published_systems_run_as_one_graph(tmp_path):
    torch.manual_seed(0)
    for name in ("haf_swin_base", "efficientmfd_r50"):
        network = spread(mmfusion.create_model(name))
        save_file(network.state_dict(), tmp_path / f"{name}.safetensors")
    saliency, detection = (
        Weights(name, tmp_path / f"{name}.safetensors")
        for name in ("haf_swin_base", "efficientmfd_r50")
    )
    composition = Composition(
        CameraSpec(SIZE, SIZE, SIZE), None, SaliencyPart(saliency), DetectionPart(detection)
    )
    export_artifact(composition, tmp_path / "artifact")
    graph, _ = build_graph(composition)
    inputs = drawn_inputs(graph) | {"present": flags("rgb", "depth", "thermal")}
    session = ort.InferenceSession(tmp_path / "artifact" / "graph.onnx")
    read = {value.name for value in session.get_inputs()}
    names = [value.name for value in session.get_outputs()]
    ours = dict(zip(names, session.run(None, {n: inputs[n] for n in read}), strict=True))
    with torch.inference_mode():
        theirs = graph(**{name: torch.from_numpy(array) for name, array in inputs.items()})
    for name in ("fused", "saliency"):
        difference = np.abs(ours[name].astype(int) - theirs[name].numpy().astype(int))
        assert difference.max() <= 1, name
        assert difference.mean() < 0.01, name
    # Six stages of a discontinuous head with drawn weights: most boxes, not all, stay in place.
    difference = np.abs(np.sort(ours["scores"]) - np.sort(theirs["scores"].numpy()))
    assert np.quantile(difference, 0.99) < 5e-3
