"""A composition of small networks with drawn weights, for tests of the whole graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import yaml
from safetensors.torch import save_file

import mmfusion

SIZE = (120, 160)
SALIENCY, DETECTION = "haf_mobilenetv3_small", "efficientmfd_tiny"
FUSION_WEIGHTS = Path(__file__).parents[2] / "weights/s4fusion_tiny/model.safetensors"
CAMERAS = ("rgb", "depth", "thermal")


def write_composition(folder: Path, **changes: object) -> Path:
    """Write checkpoints of drawn weights and a composition file that names them."""
    torch.manual_seed(0)
    for name in (SALIENCY, DETECTION):
        save_file(spread(mmfusion.create_model(name)).state_dict(), folder / f"{name}.safetensors")
    content = {
        "cameras": {"rgb_size": "160x120", "depth_size": "80x60"},
        "fusion": {"model": "s4fusion_tiny", "checkpoint": str(FUSION_WEIGHTS), "scale": 2},
        "saliency": {
            "model": SALIENCY,
            "checkpoint": f"{SALIENCY}.safetensors",
            "input_size": "128x96",
            "depth_range_m": [0.3, 10],
        },
        "detection": {"model": DETECTION, "checkpoint": f"{DETECTION}.safetensors"},
    }
    path = folder / "composition.yaml"
    path.write_text(yaml.safe_dump({**content, **changes}))
    return path


def drawn_inputs(graph, seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs of a graph full of noise, depth with holes."""
    rng = np.random.default_rng(seed)
    inputs = {name: tensor.numpy() for name, tensor in graph.example_inputs().items()}
    inputs["rgb"] = rng.integers(0, 256, inputs["rgb"].shape, np.uint8)
    counts = rng.integers(29000, 31000, inputs["thermal"].shape[:2])
    inputs["thermal"] = as_bytes(counts)
    depth = rng.integers(400, 5000, inputs["depth"].shape[:2])
    depth[rng.random(depth.shape) < 0.2] = 0
    inputs["depth"] = as_bytes(depth)
    return inputs


def as_bytes(values: np.ndarray) -> np.ndarray:
    """16-bit numbers as pairs of bytes, little-endian."""
    array = np.ascontiguousarray(values, "<u2")
    return array.view(np.uint8).reshape(*array.shape, 2)


def flags(*present: str) -> np.ndarray:
    """The ``present`` input for some cameras."""
    return np.array([float(camera in present) for camera in CAMERAS], np.float32)


def spread(network: torch.nn.Module) -> torch.nn.Module:
    """Draw the statistics of batch norms: with those of fresh networks outputs hardly vary."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, 0, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.1, 0.5)
    return network.eval()
