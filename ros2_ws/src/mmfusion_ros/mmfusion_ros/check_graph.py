"""Tell, with no GPU, whether TensorRT takes a graph: ``ros2 run mmfusion_ros check_graph``.

Graphs are brought into the form of the backend, and parsed and built with TensorRT-RTX, which has
the parser of TensorRT and needs no driver for that. Nothing is run.
"""

from __future__ import annotations

import argparse
import ast
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmfusion_ros.core.engines.tensorrt.builder import (
    BuilderSettings,
    GraphRefusedError,
    Refusal,
    build,
)
from mmfusion_ros.core.engines.tensorrt.graph import parsable_graph
from mmfusion_ros.core.errors import EngineError

if TYPE_CHECKING:
    import onnx

# What TensorRT-RTX refuses and TensorRT takes, and why. All else that it refuses, no robot takes.
KNOWN = {
    "RoiAlign": "TensorRT has it as ROIAlign_TRT in its plugin library, which RTX lacks",
    "NonMaxSuppression": "TensorRT builds it, RTX parses it only",
}
_SAYS = "check_graph: "
_SCOPES = "pkg.torch.onnx.name_scopes"


@dataclass(frozen=True)
class GraphCheck:
    """What came of a graph.

    Attributes:
        graph: file.
        problem: why TensorRT does not take it, naming operator, node and module; empty if it does.
        known: operators in it that could not be checked here; the rest of it was, with their
            results as inputs.
        engine_bytes: size of the engine that was built; 0 if none was.
    """

    graph: str
    problem: str = ""
    known: tuple[str, ...] = ()
    engine_bytes: int = 0

    def __str__(self) -> str:
        if self.problem:
            return f"{self.graph}: {self.problem}"
        but = "; ".join(f"but {name} was not checked: {KNOWN[name]}" for name in self.known)
        return f"{self.graph}: taken, {self.engine_bytes / 1e6:.1f} MB{'; ' if but else ''}{but}"


def check_graph(path: Path, timeout_s: float = 600.0) -> GraphCheck:
    """Parse and build a graph.

    In a process of its own: what the library refused once can end the process at the next graph.

    Args:
        path: ONNX file.
        timeout_s: a check that takes longer has failed.

    Raises:
        EngineError: if TensorRT-RTX or onnx is missing.
    """
    command = [sys.executable, "-m", __spec__.name, "--here", str(path)]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        return GraphCheck(str(path), f"not built within {timeout_s:g} s")
    if result.returncode < 0:
        name = signal.Signals(-result.returncode).name
        return GraphCheck(str(path), f"the library ended with {name}: {result.stderr[-500:]}")
    if result.returncode:
        raise EngineError(result.stderr.rpartition(_SAYS)[2].strip()[-2000:])
    document = json.loads(result.stdout.splitlines()[-1])
    return GraphCheck(**{**document, "known": tuple(document["known"])})


def check_here(path: Path) -> GraphCheck:
    """`check_graph` in this process, which may end of it."""
    try:
        import onnx  # noqa: PLC0415 (heavy, and optional)
        import tensorrt_rtx  # noqa: PLC0415
    except (ImportError, OSError) as error:
        raise EngineError(
            f"graphs cannot be checked ({error}); install 'tensorrt-rtx' and 'onnx'"
        ) from error
    try:
        model = onnx.load_from_string(parsable_graph(path.read_bytes(), path))
    except (EngineError, OSError) as error:
        return GraphCheck(str(path), str(error))
    known = _cut_out_known(model)
    settings = BuilderSettings(optimization_level=0)
    try:
        engine = build(tensorrt_rtx, model.SerializeToString(), settings)
    except GraphRefusedError as error:
        told = "; ".join(_told(refusal, model) for refusal in error.refusals)
        return GraphCheck(str(path), told, known)
    except EngineError as error:
        return GraphCheck(str(path), str(error), known)
    return GraphCheck(str(path), "", known, len(engine))


def _told(refusal: Refusal, model: onnx.ModelProto) -> str:
    module = next((_module(n) for n in model.graph.node if n.name == refusal.node), "")
    where = f"module {module}, " if module else ""
    return f"no {refusal.operator} ({where}node {refusal.node}): {refusal.reason}"


def _module(node: onnx.NodeProto) -> str:
    """Dotted name of the module that a node comes from, as `mmfusion export` or torch tells it."""
    scopes = [entry.value for entry in node.metadata_props if entry.key == _SCOPES]
    if scopes:
        modules: list[str] = [str(scope) for scope in ast.literal_eval(scopes[0])][:-1]
        return modules[-1] if modules else ""
    return node.name.rpartition("/")[0]


def _cut_out_known(model: onnx.ModelProto) -> tuple[str, ...]:
    """Make inputs of the results of known nodes; return their operators."""
    from onnx import shape_inference  # noqa: PLC0415

    graph = model.graph
    cut = [node for node in graph.node if node.op_type in KNOWN]
    if not cut:
        return ()
    values = {value.name: value for value in shape_inference.infer_shapes(model).graph.value_info}
    for node in cut:
        for name in node.output:
            value = values[name]
            for extent in value.type.tensor_type.shape.dim:
                if not extent.dim_value:  # depends on the data
                    extent.dim_value = 1
            graph.input.append(value)
        graph.node.remove(node)
    return tuple(sorted({node.op_type for node in cut}))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 1 if a graph is refused, 2 if none can be checked."""
    parser = argparse.ArgumentParser(
        prog="check_graph", description="Tell, with no GPU, whether TensorRT takes a graph."
    )
    parser.add_argument("graphs", type=Path, nargs="+", help="ONNX files")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    failed = False
    try:
        for path in options.graphs:
            check = (check_here if options.here else check_graph)(path)
            print(json.dumps(asdict(check)) if options.here else check, flush=True)
            failed |= bool(check.problem) and not options.here
    except EngineError as error:
        print(f"{_SAYS}{error}", file=sys.stderr)
        return 2
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
