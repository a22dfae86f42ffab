"""An engine of TensorRT out of the PyTorch graph, into the artifact that it computes the same as.

The folder ``engines`` of an artifact is like the robot's cache of engines: ``KEY.engine``, and
``KEY.json`` that tells in clear what it is of. The robot uses the one whose key is that of its GPU,
its TensorRT and its graph, once it was close enough to the graph in ONNX Runtime.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import tempfile
import textwrap
import time
from collections.abc import Mapping
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor
from torch.export import ExportedProgram

from mmfusion.artifact import read_artifact
from mmfusion.composition import Composition
from mmfusion.efficientmfd.roi_align import pool_by_grid_sample
from mmfusion.errors import ExportError
from mmfusion.export import build_graph, describe, example_outputs
from mmfusion.graph.camera_graph import CameraGraph
from mmfusion.graph.tensorrt_form import TensorRTForm
from mmfusion.layers.selective_scan_onnx import DOMAIN
from mmfusion.tensorrt_compiler import NAME, BuilderSettings, Compiler

FOLDER = "engines"  # within an artifact


def compile_engine(artifact: Path, composition: Composition, compiler: Compiler) -> Path:
    """Compile an artifact's graph in float32 for the GPU at hand.

    Args:
        artifact: folder, see `mmfusion.export.export_artifact`.
        composition: that it was exported from.
        compiler: of the GPU and TensorRT that the engine is for.

    Returns:
        The engine that was written.

    Raises:
        ExportError, ModelError: if artifact or composition is unusable, they are not of each other,
            the graph has a selective scan, the artifact cannot be written to, or the graph cannot
            be compiled.
    """
    manifest, encoded = read_artifact(artifact)
    _refuse_scans(artifact, encoded)
    graph, models = build_graph(composition)
    inputs = graph.example_inputs()
    outputs = example_outputs(graph, inputs)
    _require_same(artifact, manifest, describe(graph, models, inputs, outputs))
    folder = artifact / FOLDER
    _prepare(folder)
    program = program_for_tensorrt(graph, inputs, outputs)
    settings = BuilderSettings()
    started = time.monotonic()
    engine = compiler.compile(program, inputs, list(outputs), settings)
    key = {
        "builder": NAME,
        "graph": manifest["graph"]["sha256"],
        "form": 0,  # of what is made of the ONNX graph, which has no part in it
        "gpu": compiler.gpu,
        "compute_capability": list(compiler.compute_capability),
        "library": compiler.library,
        "precision": "fp32",
        "plugin": "",
        "settings": asdict(settings),
    }
    description = {
        "key": key,
        "built": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        "build_seconds": round(time.monotonic() - started, 1),
        "size": len(engine),
        "sha256": hashlib.sha256(engine).hexdigest(),
        "tools": {"torch": torch.__version__, NAME: compiler.version},
    }
    return _write(folder, engine, description)


def program_for_tensorrt(
    graph: CameraGraph, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]
) -> ExportedProgram:
    """What a `Compiler` gets of a graph.

    Args:
        graph: without a selective scan; it is changed.
        inputs: examples.
        outputs: of their dtypes.
    """
    if graph.joint is not None:  # there is no converter for RoIAlign
        graph.joint.network.pool = pool_by_grid_sample
    given = dict(inputs)
    with torch.no_grad():
        program = torch.export.export(graph, (), kwargs=given)
        form = TensorRTForm(program, {name: tensor.dtype for name, tensor in outputs.items()})
        return torch.export.export(form, (), kwargs=given)


def _refuse_scans(artifact: Path, encoded: bytes) -> None:
    """Of the operators that torch_tensorrt knows, a scan takes several for each of its steps."""
    nodes = onnx.load_from_string(encoded).graph.node
    modules = sorted({node.name.split("/")[0] for node in nodes if node.domain == DOMAIN})
    if modules:
        raise ExportError(
            f"{artifact} has selective scans, which {NAME} has no converter for, in "
            f"{', '.join(modules)}; leave it to the robot, which builds its engine from graph.onnx"
        )


def _require_same(artifact: Path, manifest: Mapping[str, Any], described: dict[str, Any]) -> None:
    """Raise unless a manifest was written for what a composition describes."""
    wanted = json.loads(json.dumps(described))  # lists for tuples, as files have them
    for key, value in wanted.items():
        told, expected = _essential(key, manifest[key]), _essential(key, value)
        if told != expected:
            where, told, expected = _first_difference(key, told, expected)
            raise ExportError(
                f"{artifact} was exported from another composition: {where} is {_shown(told)}, "
                f"expected {_shown(expected)}; export it again, or name the one it is of"
            )


def _first_difference(where: str, told: Any, expected: Any) -> tuple[str, Any, Any]:
    """What two values that are not equal differ in, and where; None stands for nothing there."""
    if isinstance(told, list) and isinstance(expected, list):
        entries = enumerate(zip_longest(told, expected))
        parts = [(f"{where}[{index}]", *pair) for index, pair in entries]
    elif isinstance(told, dict) and isinstance(expected, dict):
        keys = {**told, **expected}
        parts = [(f"{where}.{key}", told.get(key), expected.get(key)) for key in keys]
    else:
        return where, told, expected
    return _first_difference(*next(part for part in parts if part[1] != part[2]))


def _shown(value: Any) -> str:
    if isinstance(value, dict) and "name" in value:
        value = value["name"]
    return "nothing" if value is None else textwrap.shorten(json.dumps(value), 100)


def _essential(key: str, value: Any) -> Any:
    """Without the words for people."""
    kept = {
        "inputs": ("name", "dtype", "shape"),
        "outputs": ("name", "dtype", "shape"),
        "models": ("role", "name", "settings", "checkpoint_sha256"),
    }.get(key)
    return value if kept is None else [{name: entry[name] for name in kept} for entry in value]


def _prepare(folder: Path) -> None:
    """Make sure before the minutes of a compilation that its result can be kept."""
    try:
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ExportError(
            f"no engine can be written into {folder} ({error.strerror}); make it a folder that you "
            "may write to, or compile a copy of the artifact"
        ) from error


def _write(folder: Path, engine: bytes, description: Mapping[str, Any]) -> Path:
    """Keep an engine under its key, as the robot's cache does.

    What the description does not vouch for is not used, so an older one goes first.
    """
    told = json.dumps(description["key"], sort_keys=True)
    path = folder / f"{hashlib.sha256(told.encode()).hexdigest()[:32]}.engine"
    path.with_suffix(".json").unlink(missing_ok=True)
    path.write_bytes(engine)
    written = path.with_suffix(".json.new")
    written.write_text(json.dumps(description, indent=1) + "\n")
    written.replace(path.with_suffix(".json"))
    return path
