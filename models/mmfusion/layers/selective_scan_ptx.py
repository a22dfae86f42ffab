"""The selective scan's kernels compiled ahead of time, for robots without PyTorch and Triton.

No GPU is needed. A kernel's PTX is made for one architecture; the driver compiles it for the GPU
that runs it, which may be of a later one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
import triton  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from triton.backends.compiler import GPUTarget  # type: ignore[import-untyped]
from triton.compiler import ASTSource  # type: ignore[import-untyped]

from mmfusion.errors import ExportError
from mmfusion.layers.selective_scan_kernels import scan_carry, scan_emit, scan_states
from mmfusion.layers.selective_scan_triton import BLOCK_D, CHUNK

FOLDER, INDEX = "kernels", "selective_scan.json"
# Orin, Hopper, Thor and desktop Blackwell.
ARCHITECTURES = ("sm_87", "sm_90", "sm_110", "sm_120")
# With one that it does not know, the compiler ends the process. Beside each, the oldest version
# of PTX that has it, so that no driver is too old: 8.0 is of CUDA 12.0, 9.0 of CUDA 13.0.
_KNOWN = {
    "sm_80": 80,
    "sm_86": 80,
    "sm_87": 80,
    "sm_89": 80,
    "sm_90": 80,
    "sm_100": 86,
    "sm_103": 88,
    "sm_110": 90,
    "sm_120": 87,
    "sm_121": 88,
}
DTYPES = {"fp32": "*fp32", "fp16": "*fp16"}  # of u, step, B, C, D and y; all else is float32
_KERNELS = {"states": scan_states, "carry": scan_carry, "emit": scan_emit}
_SIGNAL = {"u_ptr", "step_ptr", "b_ptr", "c_ptr", "d_ptr", "y_ptr"}
_WARP = 32


@dataclass(frozen=True)
class CompiledKernel:
    """One kernel for one architecture.

    Attributes:
        file: PTX, beside the index.
        sha256: of it.
        entry: name of the function.
        architecture: such as ``sm_87``.
        dtype: of the signal, a key of `DTYPES`.
        states: largest count of states it takes.
        threads: of a block.
        shared_bytes: dynamic shared memory of a block.
        arguments: names in order; pointers in, int32, pointers out.
    """

    file: str
    sha256: str
    entry: str
    architecture: str
    dtype: str
    states: int
    threads: int
    shared_bytes: int
    arguments: tuple[str, ...]


def compile_kernel(
    step: str, architecture: str, dtype: str, states: int
) -> tuple[str, CompiledKernel]:
    """PTX of a kernel, and what is to be known to launch it.

    Args:
        step: "states", "carry" or "emit", see `mmfusion.layers.selective_scan_triton`.
        architecture: such as ``sm_87``.
        dtype: a key of `DTYPES`.
        states: of the scan; it takes fewer, too.

    Raises:
        ExportError: if there is no such architecture, or this Triton cannot compile for it.
    """
    if architecture not in _KNOWN:
        raise ExportError(
            f"{architecture!r} is no architecture to compile for; expected one of "
            f"{', '.join(sorted(_KNOWN))}"
        )
    kernel = _KERNELS[step]
    block = {"BLOCK_D": BLOCK_D, "BLOCK_S": triton.next_power_of_2(states)}
    block |= {"BACKWARDS": False} if step == "carry" else {"CHUNK": CHUNK}
    signature = {
        name: "constexpr"
        if name in block
        else (DTYPES[dtype] if name in _SIGNAL else "*fp32")
        if name.endswith("_ptr")
        else "i32"
        for name in kernel.arg_names
    }
    target = GPUTarget("cuda", int(architecture.removeprefix("sm_")), _WARP)
    try:
        # Line information names files of this machine.
        with triton.knobs.compilation.scope():
            triton.knobs.compilation.disable_line_info = True
            compiled = triton.compile(
                ASTSource(kernel, signature, block),
                target=target,
                options={"ptx_version": _KNOWN[architecture]},
            )
    except Exception as error:  # its exceptions share no other base
        raise ExportError(
            f"Triton {triton.__version__} cannot compile for {architecture} ({error}); leave it "
            "out, or install a newer Triton"
        ) from error
    arguments = [name for name in kernel.arg_names if name not in block]
    ptx = _with_arguments(compiled.asm["ptx"], len(arguments))
    # Made as for this very chip, but of nothing that later ones lack.
    ptx = re.sub(r"^(\.target sm_\d+)a$", r"\1", ptx, flags=re.MULTILINE)
    return ptx, CompiledKernel(
        file=f"selective_scan_{step}.{dtype}.{architecture}.ptx",
        sha256=hashlib.sha256(ptx.encode()).hexdigest(),
        entry=compiled.metadata.name,
        architecture=architecture,
        dtype=dtype,
        states=block["BLOCK_S"],
        threads=_WARP * compiled.metadata.num_warps,
        shared_bytes=compiled.metadata.shared,
        arguments=tuple(arguments),
    )


def _with_arguments(ptx: str, count: int) -> str:
    """Drop the parameters behind the kernel's own, which Triton adds for scratch memory.

    Who launches the kernel would have to pass them, and TensorRT does not.

    Raises:
        ExportError: if the kernel uses one.
    """
    head, _, rest = ptx.partition(".entry ")
    name, _, rest = rest.partition("(")
    parameters, _, body = rest.partition("\n)")
    lines = parameters.strip("\n").split(",\n")
    for line in lines[count:]:
        if f"[{line.split()[-1]}" in body:
            raise ExportError(
                f"Triton {triton.__version__} gives {name} an argument for scratch memory, which "
                "nothing passes; install another Triton"
            )
    kept = ",\n".join(lines[:count])
    return f"{head}.entry {name}(\n{kept}\n){body}"


def write_kernels(artifact: Path, architectures: Sequence[str] = ARCHITECTURES) -> Path:
    """Write the kernels for an artifact's scans into its folder ``kernels``, and their index.

    Grids are (chunks, channel blocks, images * directions), of "carry" without the first; the index
    tells the sizes of chunks and blocks.

    Args:
        artifact: its folder.
        architectures: to compile for.

    Returns:
        The index.

    Raises:
        ExportError: if the artifact has no graph with scans; see also `compile_kernel`.
    """
    states = _most_states(artifact / "graph.onnx")
    folder = artifact / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    kernels: dict[str, list[Mapping[str, Any]]] = {step: [] for step in _KERNELS}
    for step, entries in kernels.items():
        for architecture in architectures:
            for dtype in DTYPES if _SIGNAL.intersection(_KERNELS[step].arg_names) else ["fp32"]:
                ptx, kernel = compile_kernel(step, architecture, dtype, states)
                (folder / kernel.file).write_text(ptx)
                entries.append(asdict(kernel))
    index = {
        "schema_version": 1,
        "triton": triton.__version__,
        "chunk": CHUNK,
        "channels_per_block": BLOCK_D,
        "kernels": kernels,
    }
    path = folder / INDEX
    path.write_text(json.dumps(index, indent=1) + "\n")
    return path


def _most_states(path: Path) -> int:
    """Of the scans in a graph, by their ``A`` (K, D, S)."""
    try:
        graph = onnx.load(path).graph
    except OSError as error:
        raise ExportError(
            f"{path} cannot be read ({error.strerror}); expected an artifact of mmfusion export"
        ) from error
    except DecodeError as error:
        raise ExportError(f"{path} is not an ONNX graph ({error}); export it again") from error
    rates = {node.input[2] for node in graph.node if node.op_type == "SelectiveScan"}
    shapes = {value.name: value.type.tensor_type.shape.dim for value in graph.value_info}
    counts = [shapes[name][2].dim_value for name in rates if name in shapes]
    counts += [tensor.dims[2] for tensor in graph.initializer if tensor.name in rates]
    if not counts:
        raise ExportError(f"{path} has no selective scans; this artifact needs no kernels")
    return int(max(counts))
