"""How fast a replay is: against its engine alone, and against reading the bag alone.

Reading, decoding and writing run beside the engine, so a replay without metrics should be nearly
as fast as the engine. What it can do at most shows with the pass-through engine, which costs
nothing, beside reading alone: rosbags giving the bytes of the cameras' messages, and that with
every picture decoded into what the graph takes. All are measured in turns in one process, so the
ratios hold on a busy machine too. Opening the engine counts for none; the replay includes opening
the bag, the synchroniser and a complete result bag. MB are those of the cameras' messages read.

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
from rosbags.highlevel import AnyReader

from mmfusion_ros.core.artifact import Artifact, open_artifact
from mmfusion_ros.core.bag_reader import ReadingReport, open_bag, read_frames
from mmfusion_ros.core.engines import BACKENDS, Engine, EngineOptions, open_engine
from mmfusion_ros.core.frames import Modality
from mmfusion_ros.core.images import to_encoding
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
        self.total = open_bag(self.path).topics[Modality.RGB].count

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

    def read(self) -> tuple[int, float]:
        """Bytes of the cameras' messages, and the seconds in which rosbags gives them."""
        topics = {topic.name for topic in open_bag(self.path).topics.values()}
        started = perf_counter()
        with AnyReader([self.path]) as reader:
            connections = [c for c in reader.connections if c.topic in topics]
            size = sum(len(data) for _, _, data in reader.messages(connections))
        return size, perf_counter() - started

    def read_and_decode(self) -> float:
        """The seconds in which every picture is read and made into what the graph takes."""
        started = perf_counter()
        for frame, _ in read_frames(open_bag(self.path), ReadingReport()):
            to_encoding(frame.image, self.artifact.encodings[frame.modality])
        return perf_counter() - started

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
    speeds: dict[str, list[float]] = {"read": [], "read_and_decode": []}
    names = ("engine_alone", "replay", "replay_without_engine", "replay_with_metrics")
    rates: dict[str, list[float]] = {name: [] for name in names}
    with (
        tempfile.TemporaryDirectory() as scratch,
        open_engine(artifact, EngineOptions(options.backend, threads=options.threads)) as engine,
        open_engine(artifact, EngineOptions("pass_through")) as nothing,
    ):
        subject = Subject(options, artifact, engine)
        megabytes = subject.read()[0] / 1e6
        listener = Listener(engine)
        subject.replay(listener, Path(scratch) / "warm_up", metrics=False)
        for repeat in range(options.repeats):
            folder = Path(scratch)
            speeds["read"].append(megabytes / subject.read()[1])
            speeds["read_and_decode"].append(megabytes / subject.read_and_decode())
            rates["engine_alone"].append(subject.alone(listener.inputs))
            rates["replay"].append(subject.replay(engine, folder / f"{repeat}a", metrics=False))
            rates["replay_without_engine"].append(
                subject.replay(nothing, folder / f"{repeat}c", metrics=False)
            )
            rates["replay_with_metrics"].append(
                subject.replay(engine, folder / f"{repeat}b", metrics=True)
            )
        # Of the part that is run, should that not be all.
        share = megabytes / subject.total
        for name in ("replay", "replay_without_engine"):
            speeds[name] = [rate * share for rate in rates[name]]
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
            **{
                f"{name}_ratio": ratio(rates[name], rates["engine_alone"])
                for name in ("replay", "replay_with_metrics")
            },
            "megabytes": megabytes,
            "mb_per_s": speeds,
            **{
                f"{ours}_to_{name}_ratio": ratio(speeds[ours], speeds[name])
                for ours in ("replay", "replay_without_engine")
                for name in ("read", "read_and_decode")
            },
        }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document, indent=1))
    for name, speed in speeds.items():
        print(f"{name:<22} {statistics.median(speed):8.1f} MB/s")
    for name, value in document.items():
        if name.endswith("_ratio"):
            print(f"{name.removesuffix('_ratio').replace('_', ' '):<42} {value:.3f}")


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Median over the repeats of one rate relative to another in the same turn."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


if __name__ == "__main__":
    main()
