"""Write an artifact: the graph as ONNX, and the manifest that describes it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from mmfusion.checkpoint import load_checkpoint
from mmfusion.errors import ExportError
from mmfusion.graph.camera_graph import RIG_PACKING, CameraGraph, CameraSpec
from mmfusion.layers.selective_scan_onnx import OPSET, add_selective_scan
from mmfusion.manifest import validate_manifest
from mmfusion.registry import create_model

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
}
_FUSED_PSNR_DB = 45.0  # below a grey level on average: invisible


@dataclass(frozen=True)
class Provenance:
    """Where a checkpoint comes from, as the manifest states it.

    Attributes:
        training_data: which data, in words.
        recipe: how it was trained, in words or as a file name.
        terms: under which terms the weights may be used.
        quality: entries of the manifest's ``quality``.
    """

    training_data: str = "unstated"
    recipe: str = "unstated"
    terms: str = "unstated"
    quality: Sequence[dict[str, Any]] = field(default_factory=tuple)


def read_provenance(path: Path) -> Provenance:
    """Read a provenance file: a JSON object with some of the fields of `Provenance`.

    Raises:
        ExportError: if it is missing, no JSON, or has a key that `Provenance` lacks.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ExportError(f"{path} is no readable JSON file: {error}") from error
    known = {entry.name for entry in fields(Provenance)}
    unknown = sorted(content.keys() - known) if isinstance(content, dict) else ["not an object"]
    if unknown:
        raise ExportError(
            f"{path}: {unknown[0]!r} is unknown; expected an object with keys among "
            f"{', '.join(sorted(known))}"
        )
    return Provenance(**content)


def build_graph(model: str, checkpoint: Path, spec: CameraSpec) -> tuple[CameraGraph, str]:
    """The camera graph around a trained fusion network, and its checkpoint's SHA-256."""
    network = create_model(model)
    digest = load_checkpoint(network, checkpoint)
    return CameraGraph(spec, network).eval(), digest


def export_artifact(
    model: str,
    checkpoint: Path,
    spec: CameraSpec,
    out: Path,
    provenance: Provenance | None = None,
) -> None:
    """Write ``graph.onnx`` and ``manifest.json`` into ``out``.

    Args:
        model: name of the fusion network, see `create_model`.
        checkpoint: its weights, safetensors.
        spec: the cameras.
        out: artifact folder, created if absent; its name becomes the artifact's.
        provenance: what the manifest says of the weights.

    Raises:
        ExportError: if the checkpoint does not fit.
        ModelError: if the model is unknown.
    """
    provenance = provenance or Provenance()
    graph, checkpoint_digest = build_graph(model, checkpoint, spec)
    inputs = graph.example_inputs()
    outputs = _example_outputs(graph, inputs)
    encoded = onnx_model(graph, inputs, list(outputs)).SerializeToString()
    manifest = {
        "schema_version": 1,
        "name": out.resolve().name,
        "graph": {"file": "graph.onnx", "sha256": hashlib.sha256(encoded).hexdigest()},
        "inputs": [_tensor_entry(name, tensor) for name, tensor in inputs.items()],
        "outputs": [_tensor_entry(name, tensor) for name, tensor in outputs.items()],
        "encodings": {
            "rgb": "rgb8",
            "depth": spec.depth_encoding,
            "thermal": spec.thermal_encoding,
        },
        "registration": spec.registration,
        "rig_packing": RIG_PACKING[spec.registration],
        "classes": [],
        "models": [
            {
                "role": "fusion",
                "name": model,
                "checkpoint_sha256": checkpoint_digest,
                "training_data": provenance.training_data,
                "recipe": provenance.recipe,
                "terms": provenance.terms,
            }
        ],
        "quality": list(provenance.quality),
        "tolerances": {"fused": {"psnr_db": _FUSED_PSNR_DB}},
        "tools": {
            package: importlib.metadata.version(package)
            for package in ("mmfusion", "torch", "onnx")
        },
    }
    validate_manifest(manifest)
    out.mkdir(parents=True, exist_ok=True)
    (out / "graph.onnx").write_bytes(encoded)
    (out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


def onnx_model(
    module: nn.Module, inputs: dict[str, Tensor], output_names: list[str]
) -> onnx.ModelProto:
    """Trace a module with fixed shapes into a checked ONNX model.

    Args:
        module: takes the inputs by name; returns a tensor or a dict in ``output_names`` order.
        inputs: example inputs in the order of the graph.
        output_names: names of the graph's outputs.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
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
    model: onnx.ModelProto = program.model_proto
    add_selective_scan(model)
    for node in model.graph.node:
        del node.metadata_props[:]  # stack traces of this machine
        node.doc_string = ""
    onnx.checker.check_model(model, full_check=True)
    return model


def _example_outputs(graph: CameraGraph, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
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
