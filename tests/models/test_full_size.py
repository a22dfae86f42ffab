"""The published network at camera size: minutes, so only on request."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
ort = pytest.importorskip("onnxruntime")

from safetensors.torch import save_file

import mmfusion
from mmfusion.export import build_graph, export_artifact
from mmfusion.graph.camera_graph import CameraSpec

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
    spec = CameraSpec(SIZE, SIZE, SIZE)
    export_artifact("s4fusion", checkpoint, spec, tmp_path / "artifact")
    graph, _ = build_graph("s4fusion", checkpoint, spec)
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
