"""Small artifacts made by hand, without PyTorch: for tests of everything around the networks."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Size = tuple[int, int]

_TYPES = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT, "int32": TensorProto.INT32}
QUALITY = {
    ("rgb", "depth", "thermal"): {"vif": 0.75},
    ("rgb", "thermal"): {"vif": 0.5},
    ("rgb",): {"vif": 0.25},
}


def write_artifact(
    folder: Path,
    *,
    rgb: Size = (48, 64),
    depth: Size = (48, 64),
    thermal: Size = (48, 64),
    registered_thermal: bool = True,
    fails_from: int | None = None,
) -> Path:
    """Write an artifact whose fused picture is RGB plus the thermal image's low byte, at most 255.

    Without thermal it is the RGB picture. Thermal is cropped or must have the RGB size. The
    range that is carried over counts the frames: (n, n + 1).

    Args:
        folder: created; its name becomes the artifact's.
        rgb, depth, thermal: (height, width).
        registered_thermal: also put out the thermal image's low byte.
        fails_from: the graph fails once this many frames were run; None for never.
    """
    if thermal != rgb:
        raise ValueError("this small graph adds thermal to RGB pixel by pixel: give equal sizes")
    inputs = {
        "rgb": ("uint8", (*rgb, 3)),
        "depth": ("uint8", (*depth, 2)),
        "thermal": ("uint8", (*thermal, 2)),
        "thermal_range": ("float32", (2,)),
        "present": ("float32", (3,)),
    }
    outputs = {"fused": ("uint8", (*rgb, 3)), "thermal_range_next": ("float32", (2,))}
    if registered_thermal:
        outputs["registered_thermal"] = ("uint8", thermal)
    encoded = _graph(inputs, outputs, fails_from).SerializeToString()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "graph.onnx").write_bytes(encoded)
    manifest = _manifest(folder.name, encoded, inputs, outputs)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def write_rig(path: Path, size: Size = (48, 64), **offsets_ms: float) -> Path:
    """Write a rig of three equal cameras, one view; offsets by camera in milliseconds."""
    height, width = size
    camera = {
        "width": width,
        "height": height,
        "camera_matrix": [float(width), 0, width / 2, 0, float(width), height / 2, 0, 0, 1],
        "distortion": [],
        "translation": [0, 0, 0],
        "rotation": [0, 0, 0, 1],
    }
    cameras = {
        name: {**camera, "time_offset_ms": offsets_ms.get(name, 0.0)}
        for name in ("rgb", "depth", "thermal")
    }
    rig = {
        "name": "test_rig",
        "thermal_unit": "counts",
        "cameras": cameras,
        "thermal_from_rgb": [1, 0, 0, 0, 1, 0, 0, 0, 1],
    }
    path.write_text(json.dumps(rig))  # JSON is YAML
    return path


def _graph(inputs: dict, outputs: dict, fails_from: int | None) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Cast", ["rgb"], ["rgb_i"], to=TensorProto.INT32),
        helper.make_node("Gather", ["thermal", "zero"], ["low"], axis=2),  # (H, W, 1)
        helper.make_node("Cast", ["low"], ["low_i"], to=TensorProto.INT32),
        helper.make_node("Gather", ["present", "two"], ["thermal_present"]),
        helper.make_node("Cast", ["thermal_present"], ["factor"], to=TensorProto.INT32),
        helper.make_node("Mul", ["low_i", "factor"], ["added"]),
        helper.make_node("Add", ["rgb_i", "added"], ["sum"]),
        helper.make_node("Min", ["sum", "full"], ["limited"]),
        helper.make_node("Cast", ["limited"], ["fused"], to=TensorProto.UINT8),
    ]
    if "registered_thermal" in outputs:
        nodes.append(helper.make_node("Squeeze", ["low", "last"], ["registered_thermal"]))
    constants = {
        "zero": np.array([0], np.int64),
        "two": np.array([2], np.int64),
        "last": np.array([2], np.int64),
        "full": np.array(255, np.int32),
        "next": np.array([1, 2], np.float32),
        "first": np.array([0], np.int64),
    }
    # (0, 0) -> (1, 2) -> (2, 3): the first number counts frames.
    nodes += [
        helper.make_node("Gather", ["thermal_range", "first"], ["count"]),
        helper.make_node("Add", ["count", "next"], ["counted"]),
    ]
    if fails_from is None:
        nodes.append(helper.make_node("Identity", ["counted"], ["thermal_range_next"]))
    else:
        # Gathering behind the end of this table fails.
        constants["table"] = np.zeros((fails_from, 2), np.float32)
        nodes += [
            helper.make_node("Cast", ["count"], ["row"], to=TensorProto.INT64),
            helper.make_node("Gather", ["table", "row"], ["nothing"]),
            helper.make_node("Add", ["counted", "nothing"], ["with_nothing"]),
            helper.make_node("Squeeze", ["with_nothing", "first"], ["thermal_range_next"]),
        ]
    graph = helper.make_graph(
        nodes,
        "test",
        [_value(name, *spec) for name, spec in inputs.items()],
        [_value(name, *spec) for name, spec in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    # Old enough for any ONNX Runtime.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def _value(name: str, dtype: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, _TYPES[dtype], shape)


def _manifest(name: str, encoded: bytes, inputs: dict, outputs: dict) -> dict[str, Any]:
    def tensors(specs: dict) -> list[dict[str, Any]]:
        return [
            {"name": name, "dtype": dtype, "shape": list(shape), "meaning": name}
            for name, (dtype, shape) in specs.items()
        ]

    return {
        "schema_version": 1,
        "name": name,
        "graph": {"file": "graph.onnx", "sha256": hashlib.sha256(encoded).hexdigest()},
        "inputs": tensors(inputs),
        "outputs": tensors(outputs),
        "encodings": {"rgb": "rgb8", "depth": "16UC1", "thermal": "mono16"},
        "registration": "identity",
        "rig_packing": [],
        "classes": [],
        "models": [
            {
                "role": "fusion",
                "name": "test",
                "checkpoint_sha256": "0" * 64,
                "training_data": "none",
                "recipe": "none",
                "terms": "none",
            }
        ],
        "quality": [
            {"modalities": list(modalities), "data": "made up", "metrics": metrics}
            for modalities, metrics in QUALITY.items()
        ],
        "tolerances": {},
        "tools": {},
    }
