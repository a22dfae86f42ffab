"""The artifact, and the engine that runs it."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfusion_ros.checks.finding import Finding, Level, ok, skipped
from mmfusion_ros.checks.subject import Setup
from mmfusion_ros.core.artifact import Artifact
from mmfusion_ros.core.engines import Engine, Progress, open_engine
from mmfusion_ros.core.errors import MmfusionError
from mmfusion_ros.core.frames import Modality
from mmfusion_ros.core.rig import Rig
from mmfusion_ros.engine_bar import engine_bar

_WARM_UP, _RUNS = 3, 40
_LONGEST_S = 3.0
_AT_ONCE_S = 1.0
_SCAN = b"SelectiveScan"  # the operator's name, as it stands in the file


def check_artifact(setup: Setup) -> Iterator[Finding]:
    """Whether it opens, is whole, and what cameras it takes."""
    artifact = setup.opened_artifact
    if artifact is None:
        yield skipped("artifact", "none given: pass --artifact FOLDER")
        return
    if isinstance(artifact, MmfusionError):
        yield Finding(
            "artifact",
            Level.ERROR,
            str(artifact),
            "a folder with graph.onnx and manifest.json, as 'mmfusion export' writes it",
            "pass another --artifact, copy it again or export it again",
        )
        return
    cameras = ", ".join(
        f"{modality} {width}x{height} {artifact.encodings[modality]}"
        for modality in artifact.encodings
        for height, width in [artifact.image_size(modality)]
    )
    yield ok(
        "artifact",
        f"{artifact.name}, digest verified, takes {cameras}",
        name=artifact.name,
        digest=artifact.digest,
        outputs=sorted(artifact.outputs),
        sizes={
            str(modality): list(artifact.image_size(modality)) for modality in artifact.encodings
        },
    )


def check_engine(setup: Setup) -> Iterator[Finding]:
    """Which engine runs the artifact, and how fast."""
    artifact = setup.opened_artifact
    if artifact is None or isinstance(artifact, MmfusionError):
        why = "no artifact given" if artifact is None else "the artifact does not open"
        yield skipped("engine.backend", why)
        yield skipped("engine.scan", why)
        yield skipped("engine.speed", why)
        return
    started = time.perf_counter()
    with _listening() as reasons:
        try:
            with _bar() as progress:
                engine = open_engine(artifact, setup.engine, progress)
        except MmfusionError as error:
            yield Finding(
                "engine.backend",
                Level.ERROR,
                str(error),
                f"an engine that loads {artifact.name}",
                "install what is missing, or pass another --backend",
            )
            yield skipped("engine.scan", "no engine")
            yield skipped("engine.speed", "no engine")
            return
    opened_s = time.perf_counter() - started
    with engine:
        yield _opened(engine, opened_s, reasons)
        yield _scan(artifact, engine)
        yield _speed(setup, artifact, engine)


@contextlib.contextmanager
def _bar() -> Iterator[Progress | None]:
    """On a terminal, a bar for an engine that is built; none for one that opens at once."""
    with contextlib.ExitStack() as stack:
        try:
            progress = stack.enter_context(engine_bar(disable=None, delay=_AT_ONCE_S))
        except ImportError:  # it may be what is missing
            yield None
        else:
            yield progress


def _opened(engine: Engine, opened_s: float, reasons: list[str]) -> Finding:
    why = f" ({'; '.join(reasons)})" if reasons else ""
    found = f"{engine.backend} {engine.precision}, opened in {opened_s:.1f} s{why}"
    values = {
        "backend": engine.backend,
        "precision": engine.precision,
        "seconds_to_open": round(opened_s, 3),
        "reasons": reasons,
        "stands_in": engine.stands_in,
        "gate": None if engine.gate is None else engine.gate.document(),
    }
    if engine.stands_in:
        return Finding(
            "engine.backend",
            Level.WARNING,
            found,
            "the engine that was asked for",
            "see why it could not be used, or ask for another --backend or --precision",
            values,
        )
    return ok("engine.backend", found, **values)


def _scan(artifact: Artifact, engine: Engine) -> Finding:
    """How the one operator is computed that no inference library has itself."""
    if _SCAN not in artifact.graph_path.read_bytes():
        return ok("engine.scan", "this graph has no selective scan", form="none")
    form = engine.selective_scan
    if not form:
        return ok("engine.scan", f"{engine.backend} runs no graph", form="none")
    return ok("engine.scan", f"the selective scan runs as {form}", form=form)


def _speed(setup: Setup, artifact: Artifact, engine: Engine) -> Finding:
    if setup.quick:
        return skipped("engine.speed", "left out by --quick")
    try:
        times = _times(engine, noise_for(artifact, setup))
    except MmfusionError as error:
        return Finding(
            "engine.speed",
            Level.ERROR,
            str(error),
            "a graph that runs",
            "export the artifact again with a matching version of mmfusion",
        )
    p50, p95 = (float(np.percentile(times, share)) for share in (50, 95))
    period = 1000 / setup.rate
    found = f"{p50:.0f} ms a frame, one in twenty above {p95:.0f} ms (measured {len(times)} times)"
    expected = f"less than the frame period, {period:.0f} ms at {setup.rate:g} Hz"
    values = {"p50_ms": round(p50, 2), "p95_ms": round(p95, 2), "period_ms": round(period, 2)}
    advice = (
        "nothing breaks: the newest set is run and older ones are dropped; for every frame take an "
        "artifact of a smaller size or of fewer networks, more threads, or a faster machine"
    )
    if p50 > period:
        found += f": {setup.rate:g} Hz cameras give about {1000 / p50:.1f} results a second"
        return Finding("engine.speed", Level.WARNING, found, expected, advice, values)
    if p95 > period:
        return Finding("engine.speed", Level.NOTE, found, expected, advice, values)
    return ok("engine.speed", found, **values)


def _times(engine: Engine, inputs: Mapping[str, NDArray[Any]]) -> list[float]:
    """Milliseconds of each run, after a few to warm up; fewer runs on a slow machine."""
    times: list[float] = []
    ends = time.perf_counter() + _LONGEST_S
    for number in range(_WARM_UP + _RUNS):
        started = time.perf_counter()
        engine.run(inputs)
        finished = time.perf_counter()
        if number >= _WARM_UP:
            times.append(1000 * (finished - started))
        if times and finished > ends:
            break
    return times


def noise_for(artifact: Artifact, setup: Setup) -> dict[str, NDArray[Any]]:
    """Inputs to time an engine with: noise for the cameras, all of them there."""
    noise = np.random.default_rng(0)
    inputs: dict[str, NDArray[Any]] = {}
    for spec in artifact.inputs.values():
        if spec.dtype == np.uint8:
            inputs[spec.name] = noise.integers(0, 256, spec.shape, np.uint8)
        elif spec.name in {str(modality) for modality in Modality}:
            inputs[spec.name] = noise.uniform(0.5, 8.0, spec.shape).astype(spec.dtype)
        else:
            inputs[spec.name] = np.zeros(spec.shape, spec.dtype)
    inputs["present"] = np.ones(3, np.float32)
    if artifact.rig_packing:
        inputs["rig"] = _packed_rig(artifact, setup.loaded_rig)
    return inputs


def _packed_rig(artifact: Artifact, rig: Rig | MmfusionError | None) -> NDArray[Any]:
    """The rig's numbers; without one that has them, an identity, which takes as long to run."""
    if rig is not None and not isinstance(rig, MmfusionError):
        with contextlib.suppress(MmfusionError):  # the check of the rig says so
            return rig.pack(artifact.rig_packing)
    ones = {f"thermal_from_rgb_h{index}{index}" for index in range(3)}
    return np.array([float(name in ones) for name in artifact.rig_packing], np.float32)


class _Reasons(logging.Handler):
    """Keeps what the engines log about their choice."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.emit`."""
        self.texts.append(record.getMessage().removeprefix("engine: "))


@contextlib.contextmanager
def _listening() -> Iterator[list[str]]:
    logger, handler = logging.getLogger("mmfusion_ros.core.engines"), _Reasons()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield handler.texts
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
