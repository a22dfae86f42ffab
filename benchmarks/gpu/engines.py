"""The composed graph from host to host: every engine that is there, against PyTorch.

    python benchmarks/gpu/engines.py COMPOSITION ARTIFACT [--samples NPZ] [--rounds 100]

ARTIFACT is what `mmfusion export` made of COMPOSITION; `mmfusion reduce ARTIFACT --precision fp16`
adds what TensorRT's fp16 is built of. The frames of `sample_frames` let it be accepted, and also
what is compiled from PyTorch here, as `mmfusion compile` does, of graphs without a selective scan.
A frame is bytes in, bytes out, copies among it, in turns on the same noise. The baseline is
PyTorch, eager, float32. Engines are opened twice: building, then from the cache. What is not there
(a library, a graph of reduced precision) is told and left out. Writes ``results/engines.json``
beside this file.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import torch
from _device import interleaved, name_of, require_cuda
from numpy.typing import NDArray

from mmfusion.compile_engine import FOLDER, compile_engine
from mmfusion.composition import read_composition
from mmfusion.errors import MmfusionError
from mmfusion.export import build_graph
from mmfusion.tensorrt_compiler import NAME, TorchTensorRT
from mmfusion_ros.core.artifact import Artifact, open_artifact
from mmfusion_ros.core.engines import EngineOptions, open_engine
from mmfusion_ros.core.errors import EngineError
from mmfusion_ros.core.errors import MmfusionError as RobotError

RESULT = Path(__file__).resolve().parent / "results" / "engines.json"
BASELINE = "torch eager fp32"
_Inputs = Mapping[str, NDArray[Any]]


class Way(NamedTuple):
    """A way to run a frame.

    Attributes:
        run: a frame, host to host.
        first_s: until the first result, building included.
        again_s: the same once more, from a cache; as long where there is none.
        memory_mb: of the GPU, that it holds.
    """

    run: Callable[[], object]
    first_s: float
    again_s: float
    memory_mb: float


def in_pytorch(
    composition: Path, frame: _Inputs, device: torch.device, *, compiled: bool
) -> Callable[[], object]:
    """The graph as a PyTorch module."""
    graph, _ = build_graph(read_composition(composition))
    module = torch.compile(graph.to(device)) if compiled else graph.to(device)

    def run() -> object:
        with torch.inference_mode():
            outputs = module(**{k: torch.from_numpy(v).to(device) for k, v in frame.items()})
            return {name: tensor.cpu() for name, tensor in outputs.items()}

    return run


def in_onnxruntime(artifact: Artifact, frame: _Inputs, provider: str) -> Callable[[], object]:
    """The graph in ONNX Runtime on one of its providers."""
    if provider not in onnxruntime.get_available_providers():
        raise EngineError(f"this onnxruntime has no {provider}")
    session = onnxruntime.InferenceSession(artifact.graph_path, providers=[provider])
    feeds = {value.name: frame[value.name] for value in session.get_inputs()}
    return lambda: session.run(None, feeds)


def in_engine(
    artifact: Artifact, frame: _Inputs, options: EngineOptions, stack: ExitStack
) -> Callable[[], object]:
    """The graph in an engine of the node."""
    engine = stack.enter_context(open_engine(artifact, options))
    return lambda: engine.run(frame)


def in_compiled_engine(
    artifact: Artifact, composition: Path, frame: _Inputs, options: EngineOptions, stack: ExitStack
) -> Callable[[], object]:
    """The graph in the node's engine, compiled from PyTorch if it is not yet."""
    if not (artifact.folder / FOLDER).exists():
        compile_engine(artifact.folder, read_composition(composition), TorchTensorRT())
    engine = stack.enter_context(open_engine(artifact, options))
    if engine.builder != NAME:
        raise EngineError("the node did not take it, as it said; are there --samples?")
    return lambda: engine.run(frame)


def try_way(
    name: str, open_it: Callable[[], Callable[[], object]], device: torch.device
) -> Way | None:
    """Open a way twice and run a frame each time; None, and a line, if it is not there."""

    def free() -> int:
        return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0

    seconds = []
    before = free()
    try:
        for _ in range(2):
            start = time.perf_counter()
            run = open_it()
            run()
            seconds.append(time.perf_counter() - start)
    except (MmfusionError, RobotError) as error:
        print(f"{name}: left out: {error}")
        return None
    return Way(run, *seconds, (before - free()) / 2e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("composition", type=Path)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--samples", type=Path, help="frames that fp16 is compared on")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--cpu", action="store_true", help="try the benchmark itself; no result")
    given = parser.parse_args()
    device = torch.device("cpu") if given.cpu else require_cuda()
    artifact = open_artifact(given.artifact)
    rng = np.random.default_rng(0)
    frame = {
        spec.name: rng.integers(0, 256, spec.shape).astype(spec.dtype)
        if spec.dtype == np.uint8
        else np.ones(spec.shape, spec.dtype)
        for spec in artifact.inputs.values()
    }
    provider = "CPUExecutionProvider" if given.cpu else "CUDAExecutionProvider"
    with ExitStack() as stack:
        cache = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        # Each route has an artifact of its own, as an engine that is in one is preferred.
        artifact, compiled = (
            open_artifact(
                shutil.copytree(
                    given.artifact,
                    cache / route / given.artifact.resolve().name,
                    ignore=shutil.ignore_patterns(FOLDER),
                )
            )
            for route in ("onnx", NAME)
        )

        def engine(backend: str, precision: str) -> Callable[[], Callable[[], object]]:
            options = EngineOptions(backend, precision, cache=cache, samples=given.samples)
            return lambda: in_engine(artifact, frame, options, stack)

        doors: dict[str, Callable[[], Callable[[], object]]] = {
            BASELINE: lambda: in_pytorch(given.composition, frame, device, compiled=False),
            f"onnxruntime {provider}": lambda: in_onnxruntime(artifact, frame, provider),
            "tensorrt fp32": engine("tensorrt", "fp32"),
            "tensorrt fp16": engine("tensorrt", "fp16"),
            f"tensorrt fp32 by {NAME}": lambda: in_compiled_engine(
                compiled,
                given.composition,
                frame,
                EngineOptions("tensorrt", cache=cache, samples=given.samples),
                stack,
            ),
        }
        if not given.no_compile:
            doors["torch.compile fp32"] = lambda: in_pytorch(
                given.composition, frame, device, compiled=True
            )
        tried = {name: try_way(name, door, device) for name, door in doors.items()}
        ways = {name: way for name, way in tried.items() if way is not None}
        times = interleaved({name: way.run for name, way in ways.items()}, device, given.rounds)
    rows = {
        name: {
            "p50_ms": times[name].p50,
            "p99_ms": times[name].p99,
            "frames_per_s": 1e3 / times[name].p50,
            "speed_up": times[BASELINE].p50 / times[name].p50,
            "first_s": way.first_s,
            "again_s": way.again_s,
            "memory_mb": way.memory_mb,
        }
        for name, way in ways.items()
    }
    print(f"{artifact.name} on {name_of(device)}")
    for name, row in rows.items():
        print(
            f"{name:34} p50 {row['p50_ms']:9.3f} ms  p99 {row['p99_ms']:9.3f} ms  "
            f"{row['speed_up']:6.2f} x {BASELINE}; first result after {row['first_s']:.1f} s, "
            f"again {row['again_s']:.1f} s; {row['memory_mb']:.0f} MB"
        )
    if not given.cpu:
        RESULT.parent.mkdir(exist_ok=True)
        record = {"device": name_of(device), "torch": torch.__version__, "artifact": artifact.name}
        record |= {"rounds": given.rounds, "ways": rows}
        RESULT.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
