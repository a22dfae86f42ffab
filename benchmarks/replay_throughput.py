"""Frame sets a second of a replay against those of its engine alone, on the same inputs.

Reading, decoding and writing run beside the engine, so a replay without metrics should be nearly
as fast as the engine. Both are measured in turns in one process, so the ratio holds on a busy
machine too. Opening the engine counts for neither; the replay includes opening the bag, the
synchroniser and a complete result bag.

Run: ``python benchmarks/replay_throughput.py BAG ARTIFACT [--threads 1] [--repeats 3]``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from mmfusion_ros.core.artifact import Artifact, open_artifact
from mmfusion_ros.core.bag_reader import open_bag
from mmfusion_ros.core.engines import BACKENDS, Engine, open_engine
from mmfusion_ros.core.frames import Modality
from mmfusion_ros.core.rig import Camera, Rig, load_rig
from mmfusion_ros.parameters import Settings
from mmfusion_ros.replay_session import Plan, automatic_metrics_stride, replay

RESULTS = Path(__file__).parent / "results" / "replay_throughput.json"
CAMERA = Camera(1, 1, (1.0,) * 9, (), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0), 0)
NO_RIG = Rig("none", "counts", dict.fromkeys(Modality, CAMERA), None)


class Listener:
    """An engine that remembers what it was given."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.backend, self.precision = engine.backend, engine.precision
        self.inputs: list[dict[str, np.ndarray[Any, Any]]] = []

    def run(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `Engine.run`."""
        self.inputs.append({name: array.copy() for name, array in inputs.items()})
        return self.engine.run(inputs)

    def close(self) -> None:
        """See `Engine.close`."""
        self.engine.close()

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Subject:
    """A bag and an engine to measure."""

    def __init__(self, options: argparse.Namespace, artifact: Artifact, engine: Engine) -> None:
        self.artifact, self.engine = artifact, engine
        self.rig = load_rig(options.rig) if options.rig else NO_RIG
        self.path = options.bag
        self.max_sets = options.max_frames

    def replay(self, engine: Engine, folder: Path, *, metrics: bool) -> float:
        """Sets a second of one replay."""
        started = perf_counter()
        bag = open_bag(self.path)
        stride = automatic_metrics_stride(bag, 1, self.max_sets) if metrics else 0
        outcome = replay(
            bag,
            self.artifact,
            engine,
            rig=self.rig,
            config=Settings().synchronizer_config(self.rig),
            plan=Plan(1, stride, self.max_sets, "luma", metrics, 1),
            result=folder,
            progress=lambda steps: steps,
        )
        return len(outcome.numbers) / (perf_counter() - started)

    def alone(self, inputs: list[dict[str, Any]]) -> float:
        """Runs a second of the engine on inputs made beforehand."""
        started = perf_counter()
        for tensors in inputs:
            self.engine.run(tensors)
        return len(inputs) / (perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bag", type=Path)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--rig", type=Path)
    parser.add_argument("--backend", choices=BACKENDS, default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--max-frames", type=int)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()

    artifact = open_artifact(options.artifact)
    rates: dict[str, list[float]] = {"engine_alone": [], "replay": [], "replay_with_metrics": []}
    with (
        tempfile.TemporaryDirectory() as scratch,
        open_engine(artifact, options.backend, options.threads) as engine,
    ):
        subject = Subject(options, artifact, engine)
        listener = Listener(engine)
        subject.replay(listener, Path(scratch) / "warm_up", metrics=False)
        for repeat in range(options.repeats):
            folder = Path(scratch)
            rates["engine_alone"].append(subject.alone(listener.inputs))
            rates["replay"].append(subject.replay(engine, folder / f"{repeat}a", metrics=False))
            rates["replay_with_metrics"].append(
                subject.replay(engine, folder / f"{repeat}b", metrics=True)
            )
        document = {
            "bag": options.bag.name,
            "artifact": artifact.name,
            "backend": engine.backend,
            "threads": options.threads,
            "sets": len(listener.inputs),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "load_1min": os.getloadavg()[0],
            "sets_per_s": rates,
            **{f"{name}_ratio": ratio(rates, name) for name in ("replay", "replay_with_metrics")},
        }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document, indent=1))


def ratio(rates: dict[str, list[float]], name: str) -> float:
    """Median over the repeats of the rate relative to the engine's in the same turn."""
    pairs = zip(rates[name], rates["engine_alone"], strict=True)
    return statistics.median(ours / alone for ours, alone in pairs)


if __name__ == "__main__":
    main()
