"""The selective scan as a plugin of TensorRT.

An artifact's folder ``kernels``, written by ``mmfusion scan-kernels``, holds the scan's three CUDA
kernels as PTX, for several GPUs. A plugin of TensorRT launches one kernel, so each scan becomes
three nodes, `split_scans`. They are Python plugins compiled ahead of time (from TensorRT 10.9):
while the engine is built, TensorRT is given the PTX and how to launch it; the engine then runs
without Python.

This has not run under TensorRT yet. What it registers was checked against the Python part of
TensorRT 11.4, and what it would launch is run in the tests, in Triton's interpreter.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import GenericAlias
from typing import TYPE_CHECKING, Any, Union

from mmfusion_ros.core.errors import EngineError

if TYPE_CHECKING:
    import onnx

SCAN = ("mmfusion", "SelectiveScan")  # domain and operator
FOLDER = "kernels"  # within an artifact
_INDEX = "selective_scan.json"
_SCHEMA_VERSION = 1
_MAX_LINES = 65535  # images times directions: blocks in a grid's third dimension
_HOW = "write them with 'mmfusion scan-kernels' where PyTorch is"

# Inputs of each kernel, in order, then its outputs.
_KERNELS = {
    "states": (("u", "step", "a", "b"), ("ends", "sums")),
    "carry": (("a", "ends", "sums"), ("borders",)),
    "emit": (("u", "step", "a", "b", "c", "d", "borders"), ("y",)),
}
_OPERATORS = {kernel: f"{SCAN[1]}{kernel.capitalize()}" for kernel in _KERNELS}


@dataclass(frozen=True)
class ScanPlugin:
    """Whether a plugin takes the nodes of the selective scan.

    Attributes:
        digest: of its code; empty if there is none.
        reason: why there is none; empty if there is one.
    """

    digest: str = ""
    reason: str = ""

    @property
    def registered(self) -> bool:
        """Whether TensorRT knows the plugin now."""
        return bool(self.digest)


@dataclass(frozen=True)
class _Kernel:
    """One kernel in one dtype, for the GPU at hand."""

    ptx: str
    entry: str
    states: int  # at most
    threads: int
    shared_bytes: int
    sizes: tuple[str, ...]


@dataclass(frozen=True)
class _KernelSet:
    chunk: int
    channels_per_block: int
    kernels: Mapping[tuple[str, str], _Kernel]  # by kernel and dtype
    digest: str


def register_scan_plugin(
    tensorrt: Any, folder: Path, compute_capability: tuple[int, int]
) -> ScanPlugin:
    """Let TensorRT know the plugin, before a graph is parsed.

    Engines that are built afterwards take the kernels of this folder.

    Args:
        tensorrt: the module.
        folder: of an artifact's kernels.
        compute_capability: that they are to be for.

    Raises:
        EngineError: if the folder is damaged.
    """
    if not (folder / _INDEX).is_file():
        return ScanPlugin(reason=f"{folder} has no kernels; {_HOW}")
    kernels = _read(folder, compute_capability)
    if not kernels.kernels:
        major, minor = compute_capability
        return ScanPlugin(
            reason=f"{folder} has no kernels for compute capability {major}.{minor}; {_HOW}"
        )
    try:
        plugins = importlib.import_module(f"{tensorrt.__name__}.plugin")
    except ImportError as error:
        return ScanPlugin(reason=f"this TensorRT has no plugins in Python ({error})")
    if not hasattr(plugins, "aot_impl"):
        return ScanPlugin(reason="plugins are compiled ahead of time by TensorRT 10.9 and newer")
    _registered(tensorrt, plugins).kernels = kernels
    return ScanPlugin(digest=kernels.digest)


def split_scans(model: onnx.ModelProto) -> None:
    """Make three nodes of each selective scan, for the plugin, and drop its function.

    Args:
        model: changed in place.

    Raises:
        EngineError: if a scan has more lines than its kernels take.
    """
    from onnx import TensorProto, helper  # noqa: PLC0415 (heavy, and optional)

    types = {each.name: each.data_type for each in model.graph.initializer}
    shapes: dict[str, list[int]] = {}
    for value in (*model.graph.input, *model.graph.value_info):
        tensor = value.type.tensor_type
        types.setdefault(value.name, tensor.elem_type)
        shapes[value.name] = [each.dim_value for each in tensor.shape.dim]
    nodes = []
    for node in model.graph.node:
        if (node.domain, node.op_type) != SCAN:
            nodes.append(node)
            continue
        y = node.output[0]
        names = dict(zip(("u", "step", "a", "b", "c", "d"), node.input, strict=True))
        names |= {name: f"{y}_{name}" for name in ("ends", "sums", "borders")}
        images, _, directions, _ = shapes.get(names["u"], [0] * 4)
        if images * directions > _MAX_LINES:
            raise EngineError(
                f"the selective scan that gives {y!r} is of {images} images times {directions} "
                f"directions; its kernels take up to {_MAX_LINES}, so delete the artifact's "
                f"folder {FOLDER}"
            )
        if types.get(names["a"]) != TensorProto.FLOAT:
            single = f"{y}_a_float32"
            nodes.append(helper.make_node("Cast", [names["a"]], [single], to=TensorProto.FLOAT))
            names["a"] = single
        names["y"] = y
        nodes += [
            helper.make_node(
                _OPERATORS[kernel],
                [names[name] for name in inputs],
                [names[name] for name in outputs],
                name=f"{node.name or y}_{kernel}",
                domain=SCAN[0],
                # By these the parser finds the plugin.
                plugin_namespace=SCAN[0],
                plugin_version="1",
            )
            for kernel, (inputs, outputs) in _KERNELS.items()
        ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    kept = [each for each in model.functions if (each.domain, each.name) != SCAN]
    del model.functions[:]
    model.functions.extend(kept)


def _read(folder: Path, compute_capability: tuple[int, int]) -> _KernelSet:
    """The newest kernels that a GPU takes: its own or those of one before it."""
    path = folder / _INDEX
    try:
        index = json.loads(path.read_text())
        version = index["schema_version"]
        chosen: dict[tuple[str, str], dict[str, Any]] = {}
        for kernel in _KERNELS:
            usable = [
                entry
                for entry in index["kernels"][kernel]
                if _capability(entry["architecture"]) <= compute_capability
            ]
            for entry in sorted(usable, key=lambda entry: _capability(entry["architecture"])):
                chosen[kernel, entry["dtype"]] = entry
        kernels = {key: _kernel(folder, entry) for key, entry in chosen.items()}
        chunk, block = int(index["chunk"]), int(index["channels_per_block"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise EngineError(f"{path} is damaged ({error!r}); {_HOW}") from error
    if version != _SCHEMA_VERSION:
        raise EngineError(
            f"{path} is of schema version {version}, expected {_SCHEMA_VERSION}; {_HOW}"
        )
    said = json.dumps([chunk, block, sorted(chosen.items())])
    return _KernelSet(chunk, block, kernels, hashlib.sha256(said.encode()).hexdigest())


def _kernel(folder: Path, entry: Mapping[str, Any]) -> _Kernel:
    path = folder / entry["file"]
    ptx = path.read_bytes()
    if hashlib.sha256(ptx).hexdigest() != entry["sha256"]:
        raise EngineError(f"{path} is not what {folder / _INDEX} tells of; {_HOW}")
    return _Kernel(
        ptx.decode(),
        entry["entry"],
        int(entry["states"]),
        int(entry["threads"]),
        int(entry["shared_bytes"]),
        tuple(name for name in entry["arguments"] if not name.endswith("_ptr")),
    )


def _capability(architecture: str) -> tuple[int, int]:
    """Such as (8, 7) of sm_87."""
    number = int(architecture.removeprefix("sm_"))
    return number // 10, number % 10


class _Plugins:
    """The three plugins, with the kernels that the next engine takes."""

    def __init__(self, tensorrt: Any, plugins: Any) -> None:
        self.kernels: _KernelSet | None = None
        self._tensorrt = tensorrt
        self._plugins = plugins
        self._dtypes = {tensorrt.float32: "fp32", tensorrt.float16: "fp16"}
        for kernel in _KERNELS:
            self._register(kernel)

    def _register(self, kernel: str) -> None:
        inputs, outputs = _KERNELS[kernel]
        plugins, identity = self._plugins, f"{SCAN[0]}::{_OPERATORS[kernel]}"
        tensors = [_parameter(name, plugins.TensorDesc) for name in inputs]

        def describe(*tensors: Any) -> Any:
            described = self._describe(dict(zip(inputs, tensors, strict=True)), outputs)
            return described if len(described) > 1 else described[0]

        def implement(*arguments: Any) -> tuple[str, str, Any, Any]:
            *tensors, _, _ = arguments  # the outputs and the tactic, of which there is one
            return self._implement(kernel, dict(zip(inputs, tensors, strict=True)))

        # TensorRT reads the types of arguments and results off the signature.
        text = Union[str, bytes]  # noqa: UP007 (not all versions know the other form)
        results = _tuple_of(*[plugins.TensorDesc] * len(outputs))
        _sign(describe, tensors, results if len(outputs) > 1 else plugins.TensorDesc)
        _sign(
            implement,
            [*tensors, _parameter("outputs", results), _parameter("tactic", int)],
            _tuple_of(text, text, plugins.KernelLaunchParams, plugins.SymExprs),
        )
        plugins.register(identity)(describe)
        plugins.aot_impl(identity)(implement)

    def _describe(self, inputs: Mapping[str, Any], outputs: Sequence[str]) -> tuple[Any, ...]:
        """What comes out, as expressions of what goes in."""
        if outputs == ("y",):
            return (inputs["u"].like(),)
        if outputs == ("borders",):
            return (inputs["ends"].like(),)
        images, steps, directions, channels = inputs["u"].shape_expr
        chunks = self._plugins.cdiv(steps, self._current().chunk)
        rows = [images, chunks, directions, channels]
        shapes = {"ends": [*rows, inputs["a"].shape_expr[2]], "sums": rows}
        return tuple(self._float32(inputs["u"], shapes[name]) for name in outputs)

    def _float32(self, like: Any, shape: Sequence[Any]) -> Any:
        expressions = self._plugins.ShapeExprs(len(shape))
        for index, expression in enumerate(shape):
            expressions[index] = expression
        described = like.like()
        described.dtype = self._tensorrt.float32
        described.shape_expr = expressions
        return described

    def _implement(self, kernel: str, inputs: Mapping[str, Any]) -> tuple[str, str, Any, Any]:
        """Name, PTX, launch and sizes of a kernel; see `mmfusion.layers.selective_scan_ptx`."""
        kernels, plugins = self._current(), self._plugins
        code = self._choose(kernel, inputs)
        if "u" in inputs:
            images, steps, directions, channels = inputs["u"].shape_expr
            chunks = plugins.cdiv(steps, kernels.chunk)
        else:
            images, chunks, directions, channels = inputs["sums"].shape_expr
            steps = None
        blocks, lines = plugins.cdiv(channels, kernels.channels_per_block), images * directions
        launch = plugins.KernelLaunchParams()
        if kernel == "carry":
            launch.grid_x, launch.grid_y = blocks, lines
        else:
            launch.grid_x, launch.grid_y, launch.grid_z = chunks, blocks, lines
        launch.block_x = code.threads
        launch.shared_mem = code.shared_bytes
        known = {
            "steps": steps,
            "chunks": chunks,
            "directions": directions,
            "channels": channels,
            "states": inputs["a"].shape_expr[2],
        }
        sizes = plugins.SymIntExprs(len(code.sizes))
        for index, name in enumerate(code.sizes):
            sizes[index] = plugins.SymInt32(known[name])
        return code.entry, code.ptx, launch, sizes

    def _choose(self, kernel: str, inputs: Mapping[str, Any]) -> _Kernel:
        signals = {inputs[name].dtype for name in ("u", "step", "b", "c", "d") if name in inputs}
        dtypes = {self._dtypes.get(each, str(each)) for each in signals or {self._tensorrt.float32}}
        found = self._current().kernels.get((kernel, min(dtypes))) if len(dtypes) == 1 else None
        if found is None:
            raise EngineError(
                f"the artifact has no kernel {kernel!r} of a selective scan for inputs of "
                f"{', '.join(sorted(dtypes))}; {_HOW}"
            )
        states = int(inputs["a"].shape[2])
        if states > found.states:
            raise EngineError(
                f"a selective scan has {states} states, the artifact's kernels take up to "
                f"{found.states}; {_HOW}"
            )
        return found

    def _current(self) -> _KernelSet:
        if self.kernels is None:
            raise EngineError("a selective scan was parsed before its plugin had kernels")
        return self.kernels


# Once in a process: the registry of TensorRT takes no name twice.
@functools.cache
def _registered(tensorrt: Any, plugins: Any) -> _Plugins:
    return _Plugins(tensorrt, plugins)


def _parameter(name: str, kind: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=kind)


def _tuple_of(*kinds: Any) -> Any:
    return GenericAlias(tuple, kinds)


def _sign(function: Any, parameters: Sequence[inspect.Parameter], result: Any) -> None:
    function.__signature__ = inspect.Signature(parameters, return_annotation=result)
