"""Write the graphs of reduced precision that an artifact carries beside its float32 one."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from mmfusion.artifact import read_artifact
from mmfusion.errors import ExportError
from mmfusion.half_storage import widen
from mmfusion.layers.selective_scan_onnx import DOMAIN
from mmfusion.manifest import validate_manifest
from mmfusion.reduced_types import reduce_types

PRECISIONS = ("fp16", "bf16", "int8")
# Of the modules of `mmfusion.graph.camera_graph.CameraGraph`: around them, pixels, coordinates and
# counts need all their digits.
_NETWORKS = ("fusion.network", "saliency.network", "joint.network")
_DETECTOR = "joint.network"
_TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
# What NumPy raises of a file that is cut off, empty or something else.
_DAMAGED = (
    OSError, EOFError, ValueError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error,
    tokenize.TokenError,
)  # fmt: skip
_ABOUT = "about"  # of `sample_frames`: JSON beside the inputs
_MEANINGS = ("encodings", "rig_packing")  # of the inputs, told alike by frames and manifest
_NOT_IN_BF16 = {"ConvTranspose"}  # TensorRT-RTX 1.7 finds no type for what it gives
_BF16_OPSET = 22  # the first in which convolutions take bfloat16; they mean the same as before
_Ends = Callable[[NodeProto], list[str]]
_QUANTISED = ["Conv", "MatMul", "Gemm"]


def reduce_artifact(folder: Path, precision: str, samples: Path | None = None) -> Path:
    """Add a graph of reduced precision to an artifact, and its entry to the manifest.

    Args:
        folder: artifact, see `mmfusion.export.export_artifact`.
        precision: one of `PRECISIONS`. Networks alone are reduced, their selective scans and what
            the detector's attention weighs by are not.
        samples: frames that int8 takes the ranges of values from, ``.npz`` of ``sample_frames``
            with an array (N, ...) for each input of the graph, recorded with an artifact that
            takes the same encodings and numbers of the rig; the other precisions need none.

    Returns:
        The graph that was written.

    Raises:
        ExportError: if the artifact or the samples are unusable, naming what is wrong.
    """
    manifest, encoded = read_artifact(folder)
    model = onnx.load_from_string(encoded)
    widen(model)
    if not any(_in_network(node) for node in model.graph.node):
        raise ExportError(
            f"{folder / 'graph.onnx'} does not tell its networks' nodes from the others; export it "
            "again with this version of mmfusion"
        )
    if precision == "int8":
        if samples is None:
            raise ExportError("int8 needs frames to take ranges of values from; pass --samples")
        reduced = _quantise(model, _read_samples(samples, manifest))
        tool = f"onnxruntime {onnxruntime.__version__}, static, per channel, min and max"
    else:
        kept = _after_scans(model) | _attention_weights(model)
        if precision == "bf16":
            _raise_opset(model)
            kept |= {node.name for node in model.graph.node if node.op_type in _NOT_IN_BF16}
        reduced = reduce_types(
            model, _TYPES[precision], lambda node: _in_network(node) and node.name not in kept
        )
        tool = f"mmfusion {importlib.metadata.version('mmfusion')}"
    onnx.checker.check_model(reduced, full_check=True)
    encoded = reduced.SerializeToString()
    out = folder / f"graph.{precision}.onnx"
    manifest.setdefault("reduced_graphs", {})[precision] = {
        "file": out.name,
        "sha256": hashlib.sha256(encoded).hexdigest(),
        "tool": tool,
    }
    validate_manifest(manifest)
    out.write_bytes(encoded)
    # An artifact is worth nothing with half a manifest.
    written = folder / "manifest.json.new"
    written.write_text(json.dumps(manifest, indent=2) + "\n")
    written.replace(folder / "manifest.json")
    return out


def _in_network(node: NodeProto) -> bool:
    module = node.name.split("/")[0]
    return any(module == name or module.startswith(f"{name}.") for name in _NETWORKS)


def _after_scans(model: onnx.ModelProto) -> set[str]:
    """Names of selective scans, and of what follows them up to the normalisation of their sums.

    States decay over thousands of steps, and what they sum up to can be beyond float16. What makes
    the inputs of a scan is reduced, though autocast leaves it in float32, see `StateSpace`: that
    would be 345 more nodes in float32 and change nothing in float16, 0.3 dB in bfloat16.
    """
    kept: set[str] = set()
    values: set[str] = set()
    for node in model.graph.node:
        if _is_scan(node) or values.intersection(node.input):
            kept.add(node.name)
            if node.op_type != "LayerNormalization":
                values.update(node.output)
    return kept


def _attention_weights(model: onnx.ModelProto) -> set[str]:
    """Names of the products of queries and keys in a detector, and of the softmax over them.

    Its first stage attends to features as the backbone gives them, hundreds large: products of two
    of them are beyond float16, and a softmax over infinities is no number.
    """
    nodes = [node for node in model.graph.node if node.name.startswith(_DETECTOR)]
    weighed = {node.input[0] for node in nodes if node.op_type == "Softmax"}
    products = [n for n in nodes if n.op_type == "MatMul" and weighed.intersection(n.output)]
    logits = {name for node in products for name in node.output}
    softmax = [n for n in nodes if n.op_type == "Softmax" and n.input[0] in logits]
    return {node.name for node in (*products, *softmax)}


def _raise_opset(model: onnx.ModelProto) -> None:
    for part in (model, *model.functions):
        for opset in part.opset_import:
            if not opset.domain:
                opset.version = _BF16_OPSET


def _read_samples(path: Path, manifest: Mapping[str, Any]) -> list[dict[str, NDArray[Any]]]:
    """Inputs of the graph, frame by frame."""
    try:
        with np.load(path, allow_pickle=False) as file:
            names = [spec["name"] for spec in manifest["inputs"]]
            _require(path, (*names, _ABOUT), file.files)
            stacks = {name: file[name] for name in names}
            recorded = json.loads(str(file[_ABOUT]))
            _require(path, ("artifact", *_MEANINGS), recorded)
    except _DAMAGED as error:
        raise ExportError(f"{path} is not a file of sample frames ({error})") from error
    count = min(len(stack) if stack.ndim else 0 for stack in stacks.values())
    for spec in manifest["inputs"]:
        stack = stacks[spec["name"]]
        if stack.dtype != spec["dtype"] or stack.shape != (count, *spec["shape"]) or not count:
            raise ExportError(
                f"{path}, {spec['name']}: {stack.dtype} {list(stack.shape)}; expected "
                f"{spec['dtype']} {[count or 'N', *spec['shape']]}: record it with this artifact"
            )
    # Bytes of one shape may stand for other things: counts or grey levels, another lens.
    for key in _MEANINGS:
        if recorded[key] != manifest[key]:
            raise ExportError(
                f"{path} was recorded with artifact {recorded['artifact']}, whose {key} is "
                f"{recorded[key]}; expected {manifest[key]}: record it with this artifact"
            )
    return [{name: stack[i] for name, stack in stacks.items()} for i in range(count)]


def _require(path: Path, names: Iterable[str], there: Container[str]) -> None:
    missing = [name for name in names if name not in there]
    if missing:
        raise ExportError(f"{path} has no {', '.join(missing)}; record it with this artifact")


class _Reader(CalibrationDataReader):  # type: ignore[misc] # untyped
    """Frames, one by one."""

    def __init__(self, frames: list[dict[str, NDArray[Any]]], inputs: set[str]) -> None:
        self._frames: Iterator[dict[str, NDArray[Any]]] = iter(
            [{name: value for name, value in frame.items() if name in inputs} for frame in frames]
        )

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self._frames, None)


def _quantise(model: onnx.ModelProto, frames: list[dict[str, NDArray[Any]]]) -> onnx.ModelProto:
    """Convolutions and matrix products of the networks in int8, with explicit scales."""
    chosen = _quantised_layers(model)
    if not chosen:
        raise ExportError(
            "nothing in this graph can be quantised: its layers are the first or last ones of "
            "their network, or feed a selective scan; take fp16"
        )
    with _quiet(), tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source.onnx", Path(folder) / "target.onnx"
        onnx.save(onnx.shape_inference.infer_shapes(model, strict_mode=True), source)
        quantize_static(
            source,
            target,
            _Reader(frames, {value.name for value in model.graph.input}),
            op_types_to_quantize=_QUANTISED,
            nodes_to_quantize=chosen,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            # TensorRT knows scales alone, no zero points, and wants biases in float.
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,
                "MatMulConstBOnly": True,
            },
        )
        return onnx.load(target)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the quantiser's advice, which does not apply; it goes to the root of all logs."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def _quantised_layers(model: onnx.ModelProto) -> list[str]:
    """Names of what is quantised.

    First layers need all grey levels of a picture, what last layers round is in the result, and
    selective scans add up what the layers before them round.
    """
    nodes, back = list(model.graph.node), list(model.graph.node)[::-1]

    def inputs(node: NodeProto) -> list[str]:
        return list(node.input)

    def outputs(node: NodeProto) -> list[str]:
        return list(node.output)

    chosen = _reached(nodes, inputs, outputs, _is_layer) & _reached(
        back, outputs, inputs, _is_layer
    )
    chosen -= _reached(back, outputs, inputs, _is_scan)
    return [node.name for node in nodes if _is_layer(node) and node.name in chosen]


def _is_layer(node: NodeProto) -> bool:
    return node.op_type in _QUANTISED and _in_network(node)


def _is_scan(node: NodeProto) -> bool:
    return node.domain == DOMAIN


def _reached(
    nodes: Sequence[NodeProto], near: _Ends, far: _Ends, source: Callable[[NodeProto], bool]
) -> set[str]:
    """Names of the nodes that a source, passed before, is connected to."""
    reached: set[str] = set()
    values: set[str] = set()
    for node in nodes:
        if values.intersection(near(node)):
            reached.add(node.name)
        if source(node) or node.name in reached:
            values.update(far(node))
    return reached
