"""How fast the CPU backends run each artifact: against ONNX Runtime in fp32.

All run in turns in one process on the same noise, so the ratios hold on a busy machine too. What
this processor or an artifact has not (bf16, a graph in fp16 or int8) is left out. Reduced
precision is not compared with fp32 here: what it may cost is the gate's business, not that of this
table. Each is opened twice, with a cache of its own, so that what a later start takes is told too.

Run: ``python benchmarks/cpu_backends.py [ARTIFACT ...] [--threads 1] [--rounds 7]``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from mmfusion_ros.checks.model import noise_for
from mmfusion_ros.checks.subject import Setup
from mmfusion_ros.core.artifact import Artifact, open_artifact
from mmfusion_ros.core.engines import Engine, EngineOptions
from mmfusion_ros.core.engines.onnx_runtime import OnnxRuntimeEngine
from mmfusion_ros.core.engines.openvino import OpenVinoEngine
from mmfusion_ros.core.engines.precision_gate import machine_name
from mmfusion_ros.core.errors import MmfusionError

RESULTS = Path(__file__).parent / "results" / "cpu_backends.json"
BUNDLED = Path(__file__).parents[1] / "artifacts"
REFERENCE = "onnxruntime fp32"
CANDIDATES = {
    "openvino fp32": (OpenVinoEngine, "fp32"),
    "openvino bf16": (OpenVinoEngine, "bf16"),
    "openvino fp16": (OpenVinoEngine, "fp16"),
    "openvino int8": (OpenVinoEngine, "int8"),
    "onnxruntime int8": (OnnxRuntimeEngine, "int8"),
}


def engines(
    artifact: Artifact, threads: int, inputs: Any, cache: Path
) -> Iterator[tuple[str, Engine, list[float]]]:
    """Name, engine, and the seconds of opening with a first run, of all that can be opened.

    Twice: with an empty cache and again.
    """
    for name, (kind, precision) in {REFERENCE: (OnnxRuntimeEngine, "fp32"), **CANDIDATES}.items():
        options = EngineOptions(precision=precision, threads=threads, cache=cache)
        try:
            first, first_s = open_timed(kind, artifact, options, inputs)
            first.close()
            engine, again_s = open_timed(kind, artifact, options, inputs)
        except MmfusionError as error:
            print(f"{artifact.name}: no {name}: {error}")
            continue
        yield name, engine, [first_s, again_s]


def open_timed(
    kind: Callable[[Artifact, EngineOptions], Engine],
    artifact: Artifact,
    options: EngineOptions,
    inputs: Any,
) -> tuple[Engine, float]:
    """An engine, and the seconds of opening it and of its first run."""
    started = perf_counter()
    engine = kind(artifact, options)
    engine.run(inputs)
    return engine, perf_counter() - started


def measured(artifact: Artifact, threads: int, rounds: int) -> dict[str, dict[str, float]]:
    """Figures of each engine, with ratios to the reference."""
    inputs = noise_for(artifact, Setup())
    times: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        cache = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        opened = {}
        loading = {}
        for name, engine, seconds in engines(artifact, threads, inputs, cache):
            opened[name] = stack.enter_context(engine)
            loading[name] = seconds
        for _ in range(rounds):
            for name, engine in opened.items():
                started = perf_counter()
                engine.run(inputs)
                times.setdefault(name, []).append(perf_counter() - started)
    ratios = {
        name: statistics.median(np.divide(seconds, times[REFERENCE]))
        for name, seconds in times.items()
    }
    return {
        name: {
            "ratio": float(ratios[name]),
            "median_ms": 1e3 * statistics.median(times[name]),
            "fastest_ms": 1e3 * min(times[name]),
            "load_and_first_run_s": loading[name][0],
            "again_s": loading[name][1],
        }
        for name in opened
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("artifacts", type=Path, nargs="*", default=sorted(BUNDLED.iterdir()))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    document: dict[str, Any] = {
        "processor": machine_name(),
        "cores": os.cpu_count(),
        "threads": options.threads,
        "rounds": options.rounds,
        "python": platform.python_version(),
        "load_1min": os.getloadavg()[0],
        "artifacts": {},
    }
    for folder in options.artifacts:
        artifact = open_artifact(folder)
        figures = measured(artifact, options.threads, options.rounds)
        document["artifacts"][artifact.name] = figures
        for name, entry in figures.items():
            print(
                f"{artifact.name}  {name:18} {entry['ratio']:.2f} x  median "
                f"{entry['median_ms']:.0f} ms, load and first run "
                f"{entry['load_and_first_run_s']:.1f} s, again {entry['again_s']:.1f} s"
            )
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
