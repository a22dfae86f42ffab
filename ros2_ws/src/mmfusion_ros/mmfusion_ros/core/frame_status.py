"""What is told about one frame set, whoever tells it: the node live, a replay into its bag."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mmfusion_ros.core.artifact import Artifact
from mmfusion_ros.core.engines import Engine
from mmfusion_ros.core.frames import Absence, Modality
from mmfusion_ros.core.results import Results

# A stamp further from the node's clock than this is of another clock (a bag, a driver's uptime).
_CLOCKS_DIFFER_S = 10.0


@dataclass(frozen=True)
class ModalityState:
    """One camera's part, field by field as in ``mmfusion_msgs/ModalityStatus``."""

    name: str
    used: bool
    reason: str
    age: float


@dataclass(frozen=True)
class FrameState:
    """One frame set, field by field as in ``mmfusion_msgs/FrameStatus`` without its header."""

    artifact: str
    backend: str
    precision: str
    modalities: tuple[ModalityState, ...]
    stage_names: list[str]
    stage_durations: list[float]
    latency: float
    quality_names: list[str]
    quality_values: list[float]
    sets_dropped: int


def frame_state(
    results: Results,
    artifact: Artifact,
    engine: Engine,
    *,
    stages: Mapping[str, float],
    latency_ns: int | None,
    sets_dropped: int,
) -> FrameState:
    """What happened to one frame set.

    Args:
        results: of the pipeline.
        artifact: names the cameras that could have taken part and the quality to expect.
        engine: that ran it.
        stages: seconds by stage, in order.
        latency_ns: clock at publishing minus the stamp; None if no clock was read.
        sets_dropped: since activation.
    """
    latency = math.nan if latency_ns is None else latency_ns * 1e-9
    quality = artifact.expected_quality(results.present)
    return FrameState(
        artifact=artifact.name,
        backend=engine.backend,
        precision=engine.precision,
        modalities=tuple(_modalities(results, artifact)),
        stage_names=list(stages),
        stage_durations=[float(seconds) for seconds in stages.values()],
        latency=latency if abs(latency) < _CLOCKS_DIFFER_S else math.nan,
        quality_names=list(quality),
        quality_values=[float(value) for value in quality.values()],
        sets_dropped=sets_dropped,
    )


def _modalities(results: Results, artifact: Artifact) -> Iterator[ModalityState]:
    for modality in Modality:
        if modality.value not in artifact.inputs:
            continue
        used = modality in results.present
        if modality is Modality.RGB:
            absence = None if used else Absence.INVALID
            age_ns: int | None = 0
        else:
            companion = results.frames.companion(modality)
            absence, age_ns = companion.absence, companion.age_ns
        reason = "" if absence is None else str(absence)
        age = math.nan if age_ns is None else age_ns * 1e-9
        yield ModalityState(str(modality), used, reason, age)
