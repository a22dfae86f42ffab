"""Write an artifact: the graph as ONNX, and the manifest that describes it."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import json
import logging
import sys
import warnings
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import onnx
import torch
from onnx_ir.passes.common import DeduplicateInitializersPass
from torch import Tensor, nn

from mmfusion.checkpoint import load_checkpoint
from mmfusion.composition import Composition, Weights
from mmfusion.efficientmfd.post_processing import IOU_THRESHOLD
from mmfusion.errors import ExportError
from mmfusion.graph.camera_graph import Branches, CameraGraph
from mmfusion.graph.cameras import RIG_PACKING
from mmfusion.graph.detections import JointBranch
from mmfusion.graph.luma_fusion import LumaFusion
from mmfusion.graph.saliency import SaliencyBranch
from mmfusion.half_storage import store_in_half
from mmfusion.layers.selective_scan_onnx import OPSET, add_selective_scan
from mmfusion.manifest import validate_manifest
from mmfusion.published import load_published
from mmfusion.registry import Role, create_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mmfusion.efficientmfd.network import EfficientMFD
    from mmfusion.haf.network import HAF

_MEANINGS = {
    "rgb": "rgb8 bytes of the RGB image",
    "depth": "depth of the depth image: little-endian 16UC1 millimetres as bytes, or metres",
    "thermal": "thermal counts: little-endian mono16 as bytes, or mono8",
    "thermal_range": "low and high count of the display range, from the previous frame",
    "present": "1 where rgb, depth, thermal are usable in this frame",
    "rig": "geometry of the cameras, packed as rig_packing says",
    "fused": "rgb8 bytes of the fused image",
    "thermal_range_next": "thermal_range for the next frame",
    "registered_thermal": "mono8 bytes of thermal on the RGB picture, display range",
    "saliency": "probability times 255 that a pixel of the RGB picture stands out",
    "boxes": "x1 y1 x2 y2 of candidates, pixels of the RGB picture, before suppression by class",
    "scores": "probability of each candidate, falling",
    "classes": "index of each candidate's class",
    "box_depth": "median depth in the middle of each box, metres; NaN where unknown",
}
# How far an engine of reduced precision may be from float32.
_TOLERANCES = {
    "fused": {"psnr_db": 45.0},  # below a grey level on average: invisible
    "saliency": {"mean_absolute_error": 2.0},
    "boxes": {"matched_share": 0.95},
}


def build_graph(composition: Composition) -> tuple[CameraGraph, list[dict[str, Any]]]:
    """The camera graph of a composition, and the manifest's entries of its networks.

    Raises:
        ExportError, ModelError: if a checkpoint does not fit, or the parts do not fit together.
    """
    cameras, models = composition.cameras, []
    fusion, saliency, joint = None, None, None
    if composition.fusion is not None:
        network, digest = _load(
            composition.fusion.weights, {"fusion_scale": composition.fusion.scale}
        )
        fusion = LumaFusion(network, composition.fusion.scale)
        settings: dict[str, Any] = {"scale": composition.fusion.scale}
        models.append(_model_entry(Role.FUSION, composition.fusion.weights, digest, settings))
    if composition.saliency is not None:
        depth_range = composition.saliency.depth_range
        depth_range_m = [depth_range.near_m, depth_range.far_m]
        network, digest = _load(composition.saliency.weights, {"depth_range_m": depth_range_m})
        saliency = SaliencyBranch(
            cast("HAF", network),
            rgb_size=cameras.rgb_size,
            depth_size=cameras.depth_size,
            input_size=composition.saliency.input_size,
            depth_range=depth_range,
        )
        settings = {"input_size": list(saliency.input_size), "depth_range_m": depth_range_m}
        models.append(_model_entry(Role.SALIENCY, composition.saliency.weights, digest, settings))
    if composition.detection is not None:
        part = composition.detection
        network, digest = _load(part.weights, {})
        joint = JointBranch(
            cast("EfficientMFD", network),
            rgb_size=cameras.rgb_size,
            scale=part.scale,
            steps=part.steps,
            noise_seed=part.noise_seed,
        )
        settings = {"scale": part.scale, "steps": joint.steps, "noise_seed": part.noise_seed}
        if composition.fusion is None:
            models.append(_model_entry(Role.FUSION, part.weights, digest, settings))
        models.append(_model_entry(Role.DETECTION, part.weights, digest, settings))
    return CameraGraph(cameras, Branches(fusion, saliency, joint)).eval(), models


def export_artifact(composition: Composition, out: Path) -> None:
    """Write ``graph.onnx`` and ``manifest.json`` into ``out``.

    Args:
        composition: the cameras and networks.
        out: artifact folder, created if absent; its name becomes the artifact's.

    Raises:
        ExportError, ModelError: if a checkpoint does not fit, or the parts do not fit together.
    """
    graph, models = build_graph(composition)
    inputs = graph.example_inputs()
    outputs = example_outputs(graph, inputs)
    model = onnx_model(graph, inputs, list(outputs))
    if composition.weight_storage == "float16":
        store_in_half(model, {name for name, _ in graph.named_buffers()})
    encoded = model.SerializeToString()
    manifest = {
        "schema_version": 1,
        "name": out.resolve().name,
        "graph": {"file": "graph.onnx", "sha256": hashlib.sha256(encoded).hexdigest()},
        **describe(graph, models, inputs, outputs),
        "quality": _quality(composition),
        "tolerances": {name: _TOLERANCES[name] for name in outputs if name in _TOLERANCES},
        "tools": {
            package: importlib.metadata.version(package)
            for package in ("mmfusion", "torch", "onnx")
        },
    }
    if "boxes" in outputs:
        manifest["detection"] = {"nms_iou": IOU_THRESHOLD}
    validate_manifest(manifest)
    out.mkdir(parents=True, exist_ok=True)
    (out / "graph.onnx").write_bytes(encoded)
    (out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


def describe(
    graph: CameraGraph,
    models: list[dict[str, Any]],
    inputs: dict[str, Tensor],
    outputs: dict[str, Tensor],
) -> dict[str, Any]:
    """What a manifest says of a graph, whatever it is written down as.

    Args:
        graph: of `build_graph`.
        models: of `build_graph`.
        inputs: of their dtypes and shapes.
        outputs: the same, see `example_outputs`.
    """
    cameras = graph.spec
    return {
        "inputs": [_tensor_entry(name, tensor) for name, tensor in inputs.items()],
        "outputs": [_tensor_entry(name, tensor) for name, tensor in outputs.items()],
        "encodings": {
            "rgb": "rgb8",
            "depth": cameras.depth_encoding,
            "thermal": cameras.thermal_encoding,
        },
        "registration": cameras.registration,
        "rig_packing": RIG_PACKING[cameras.registration],
        "classes": [] if graph.joint is None else list(graph.joint.class_names),
        "models": models,
    }


def onnx_model(
    module: nn.Module, inputs: dict[str, Tensor], output_names: list[str]
) -> onnx.ModelProto:
    """Trace a module with fixed shapes into a checked ONNX model.

    Nodes are named ``MODULE/OPERATOR_INDEX``, so that who refuses one can say where it comes from.

    Args:
        module: takes the inputs by name; returns a tensor or a dict in ``output_names`` order.
        inputs: example inputs in the order of the graph.
        output_names: names of the graph's outputs.
    """
    for chatty in ("torch.onnx", "onnxscript"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the exporter, not ours to act on
        program = torch.onnx.export(
            module,
            kwargs=inputs,
            input_names=list(inputs),
            output_names=output_names,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
            optimize=True,
        )
    if program is None:
        raise ExportError("the exporter returned no graph")
    # Tables of one size, and weights that a network applies twice, come out several times.
    DeduplicateInitializersPass(size_limit=sys.maxsize)(program.model)
    model: onnx.ModelProto = program.model_proto
    add_selective_scan(model)
    for index, (node, name) in enumerate(zip(model.graph.node, _modules(model), strict=True)):
        node.name = f"{name}/{node.op_type}_{index}"
        del node.metadata_props[:]  # stack traces of this machine
        node.doc_string = ""
    onnx.checker.check_model(model, full_check=True)
    return model


def _modules(model: onnx.ModelProto) -> list[str]:
    """Dotted names of the modules that the nodes come from; "" for the outermost.

    The exporter does not tell of the Splits that its optimiser writes. Such a node is of the
    innermost module that holds all nodes around it.
    """
    nodes = model.graph.node
    told = [_module(node) for node in nodes]
    ends: dict[str, list[str | None]] = {}  # of values: where they are made, and where read
    for node, own in zip(nodes, told, strict=True):
        for value in (*node.input, *node.output):
            ends.setdefault(value, []).append(own)
    constants = {tensor.name for tensor in model.graph.initializer}  # of several modules at times
    names: list[str] = []
    for node, own in zip(nodes, told, strict=True):
        values = [value for value in (*node.input, *node.output) if value not in constants]
        around = [module for value in values for module in ends[value]]
        paths = [name.split(".") for name in around if name is not None]
        shared = takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))
        names.append(".".join(parts[0] for parts in shared) if own is None else own)
    return names


def _module(node: onnx.NodeProto) -> str | None:
    """Dotted name of the module that a node comes from; None where the exporter does not tell."""
    scopes = [p.value for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes"]
    if not scopes:
        return None
    # The last of the scopes is the operator's own.
    modules: list[str] = ast.literal_eval(scopes[0])[:-1]
    return modules[-1] if modules else ""


def _load(weights: Weights, settings: Mapping[str, Any]) -> tuple[nn.Module, str]:
    """A network with its weights, and the SHA-256 of their file.

    Args:
        weights: which.
        settings: that an evaluation must share.

    Raises:
        ExportError: if their evaluation is of other weights or settings.
        ModelError: if they do not fit.
    """
    network = create_model(weights.model)
    if weights.published:
        load_published(network, weights.checkpoint)
        digest = hashlib.sha256(weights.checkpoint.read_bytes()).hexdigest()
    else:
        digest = load_checkpoint(network, weights.checkpoint)
    for evaluation in weights.provenance.evaluations:
        if evaluation.checkpoint_sha256 != digest:
            raise ExportError(
                f"{evaluation.path} is of other weights than {weights.checkpoint}; measure these "
                "with mmfusion evaluate, or name the right file in the provenance"
            )
        for key, value in settings.items():
            if evaluation.settings.get(key, value) != value:
                raise ExportError(
                    f"{evaluation.path} was measured with {key} {evaluation.settings[key]}, the "
                    f"composition has {value}; measure again with mmfusion evaluate, or change "
                    "the composition"
                )
    return network, digest


def _model_entry(
    role: Role, weights: Weights, digest: str, settings: dict[str, Any]
) -> dict[str, Any]:
    return {
        "role": str(role),
        "name": weights.model,
        "settings": settings,
        "checkpoint_sha256": digest,
        "training_data": weights.provenance.training_data,
        "recipe": weights.provenance.recipe,
        "terms": weights.provenance.terms,
    }


def _quality(composition: Composition) -> list[dict[str, Any]]:
    parts = (composition.fusion, composition.saliency, composition.detection)
    return [
        entry
        for part in parts
        if part is not None
        for evaluation in part.weights.provenance.evaluations
        for entry in evaluation.quality
    ]


def example_outputs(graph: CameraGraph, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the right dtype and shape for every output, in order; they hold no values."""
    # Shapes alone are wanted, so a small network need not run: fake tensors do.
    from torch._subclasses import FakeTensorMode  # noqa: PLC0415

    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        outputs: dict[str, Tensor] = graph(**inputs)
        return outputs


def _tensor_entry(name: str, tensor: Tensor) -> dict[str, Any]:
    return {
        "name": name,
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "shape": list(tensor.shape),
        "meaning": _MEANINGS[name],
    }
