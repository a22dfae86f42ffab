"""Small artifacts made by hand, without PyTorch: for tests of everything around the networks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
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
CLASSES = ("person", "car")
NMS_IOU = 0.5
# Candidates of every picture: the third stands for the same object as the first, the fourth
# scores little, the last is padding.
CANDIDATES = {
    "boxes": np.array(
        [[8, 4, 24, 28], [30, 10, 50, 40], [9, 5, 25, 29], [40, 2, 60, 20], [0, 0, 0, 0]],
        np.float32,
    ),
    "scores": np.array([0.9, 0.8, 0.7, 0.3, 0.0], np.float32),
    "classes": np.array([0, 1, 0, 0, 0], np.int32),
    "box_depth": np.array([3.0, np.nan, 2.9, 4.0, np.nan], np.float32),
}


def write_artifact(
    folder: Path,
    *,
    rgb: Size = (48, 64),
    depth: Size = (48, 64),
    thermal: Size = (48, 64),
    registered_thermal: bool = True,
    saliency: bool = False,
    detections: bool = False,
    box_depth: bool = True,
    candidates: Mapping[str, np.ndarray] = CANDIDATES,
    fails_from: int | None = None,
) -> Path:
    """Write an artifact whose fused picture is RGB plus the thermal image's low byte, at most 255.

    Without thermal it is the RGB picture. Thermal is cropped or must have the RGB size. The
    range that is carried over counts the frames: (n, n + 1).

    Args:
        folder: created; its name becomes the artifact's.
        rgb, depth, thermal: (height, width).
        registered_thermal: also put out the thermal image's low byte.
        saliency: also put out the thermal image's low byte as saliency.
        detections: also put out candidates.
        box_depth: with their depths.
        candidates: boxes, scores, classes and box_depth, the same for every picture.
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
    if saliency:
        outputs["saliency"] = ("uint8", thermal)
    for name, array in candidates.items() if detections else ():
        if name != "box_depth" or box_depth:
            outputs[name] = (array.dtype.name, array.shape)
    made_up = {name: array for name, array in candidates.items() if name in outputs}
    encoded = _graph(inputs, outputs, fails_from, made_up).SerializeToString()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "graph.onnx").write_bytes(encoded)
    manifest = _manifest(folder.name, encoded, inputs, outputs)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def add_reduced_graph(
    folder: Path,
    precision: str = "int8",
    *,
    off_by: int = 0,
    tolerances: Mapping[str, Mapping[str, float]] | None = None,
    graph_of: Path | None = None,
    **candidates: np.ndarray,
) -> Path:
    """Give an artifact a graph in reduced precision, which is in fact another of the same.

    Args:
        folder: of `write_artifact`.
        precision: which.
        off_by: grey levels that its fused picture is brighter.
        tolerances: of the manifest; None leaves those there are.
        graph_of: artifact whose graph is taken; None for the same.
        **candidates: constants that replace those of `write_artifact`.
    """
    model = onnx.load((graph_of or folder) / "graph.onnx")
    (least,) = (node for node in model.graph.node if node.op_type == "Min")
    place = list(model.graph.node).index(least)
    model.graph.node.insert(place, helper.make_node("Add", ["sum", "off_by"], ["brighter"]))
    least.input[0] = "brighter"
    model.graph.initializer.append(numpy_helper.from_array(np.array(off_by, np.int32), "off_by"))
    for constant in model.graph.initializer:
        array = candidates.get(constant.name.removesuffix("_made_up"))
        if array is not None:
            constant.CopyFrom(numpy_helper.from_array(array, constant.name))
    encoded = model.SerializeToString()
    file = f"graph.{precision}.onnx"
    (folder / file).write_bytes(encoded)
    manifest = json.loads((folder / "manifest.json").read_text())
    entry = {"file": file, "sha256": hashlib.sha256(encoded).hexdigest(), "tool": "by hand"}
    manifest.setdefault("reduced_graphs", {})[precision] = entry
    if tolerances is not None:
        manifest["tolerances"] = tolerances
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


def _graph(
    inputs: dict, outputs: dict, fails_from: int | None, made_up: dict[str, np.ndarray]
) -> onnx.ModelProto:
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
    nodes += [
        helper.make_node("Squeeze", ["low", "last"], [name])
        for name in ("registered_thermal", "saliency")
        if name in outputs
    ]
    nodes += [helper.make_node("Identity", [f"{name}_made_up"], [name]) for name in made_up]
    constants = {
        **{f"{name}_made_up": array for name, array in made_up.items()},
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

    detects = "boxes" in outputs
    return {
        "schema_version": 1,
        "name": name,
        "graph": {"file": "graph.onnx", "sha256": hashlib.sha256(encoded).hexdigest()},
        "inputs": tensors(inputs),
        "outputs": tensors(outputs),
        "encodings": {"rgb": "rgb8", "depth": "16UC1", "thermal": "mono16"},
        "registration": "identity",
        "rig_packing": [],
        "classes": list(CLASSES) if detects else [],
        **({"detection": {"nms_iou": NMS_IOU}} if detects else {}),
        "models": [
            {
                "role": "fusion",
                "name": "test",
                "settings": {},
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
