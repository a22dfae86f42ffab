"""How the node is doing, as ``/diagnostics`` says it once a second."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from mmfusion_ros.clock_watch import CLOCK_TOPIC, ClockState
from mmfusion_ros.core.frames import Absence, Modality
from mmfusion_ros.core.guarded_pipeline import EngineState, GuardedPipeline
from mmfusion_ros.core.results import Results
from mmfusion_ros.core.synchronizer import SynchronizerStatistics
from mmfusion_ros.inputs import InputStatus

# Further off, stamps are of another clock: no camera and no engine takes that long.
_PAST_S = 5.0
_FUTURE_S = 0.5
_STUCK_S = 30.0  # the published S4Fusion takes seconds for a set on a CPU


@dataclass
class ModalityTally:
    """What became of one camera's frames in one period.

    Attributes:
        used: sets it took part in.
        missing: sets it took no part in, by reason.
        age_ns: age in the last set; None if unknown.
        problem: why its image could not be used, the last time this happened.
    """

    used: int = 0
    missing: Counter[Absence] = field(default_factory=Counter)
    age_ns: int | None = None
    problem: str = ""


class FrameTally:
    """Counts results between two diagnostics; any thread may count and take."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tallies = self._fresh()

    def note(self, results: Results) -> None:
        """Count a result."""
        with self._lock:
            for modality, tally in self._tallies.items():
                absence, tally.age_ns = Absence.INVALID, 0
                if modality is not Modality.RGB:
                    companion = results.frames.companion(modality)
                    absence = companion.absence or Absence.INVALID
                    tally.age_ns = companion.age_ns
                if modality in results.present:
                    tally.used += 1
                else:
                    tally.missing[absence] += 1
                tally.problem = results.problems.get(modality, tally.problem)

    def take(self) -> Mapping[Modality, ModalityTally]:
        """The counts since the last call."""
        with self._lock:
            taken, self._tallies = self._tallies, self._fresh()
        return taken

    @staticmethod
    def _fresh() -> dict[Modality, ModalityTally]:
        return {modality: ModalityTally() for modality in Modality}


def lifecycle_status(state: str, problem: str, progress: str = "") -> DiagnosticStatus:
    """The engine of a node that is not active.

    Args:
        state: of its lifecycle.
        problem: why it could not be configured or activated; empty if that was not tried.
        progress: how far the engine is that is being opened; empty if none is.
    """
    if progress:
        return _status("engine", DiagnosticStatus.OK, f"{state}: {progress}")
    if problem:
        return _status("engine", DiagnosticStatus.ERROR, f"{state}: {problem}")
    return _status("engine", DiagnosticStatus.OK, state)


def engine_status(guarded: GuardedPipeline, busy_s: float | None = None) -> DiagnosticStatus:
    """The engine of an active node: an error as long as it does not run, a warning of another.

    Args:
        guarded: with the engine.
        busy_s: how long it has been at work on a set, seconds; None if it is not.
    """
    pipeline = guarded.pipeline
    engine = pipeline.engine
    running = guarded.state is EngineState.RUNNING and not guarded.problem
    level = DiagnosticStatus.WARN if engine.stands_in else DiagnosticStatus.OK
    summary = f"{engine.backend} runs {pipeline.artifact.name} {engine.stands_in}".rstrip()
    measures = () if engine.gate is None else engine.gate.measures
    if running and busy_s is not None and busy_s > _STUCK_S:
        level = DiagnosticStatus.ERROR
        summary = f"{engine.backend} has been at work on one set for {busy_s:.0f} s"
    return _status(
        "engine",
        level if running else DiagnosticStatus.ERROR,
        summary if running else f"{guarded.state}: {guarded.problem}",
        {
            "artifact": pipeline.artifact.name,
            "digest": pipeline.artifact.digest[:12],
            "backend": engine.backend,
            "precision": engine.precision,
            **{f"{m.output}_{m.name}": f"{m.value:.4g} (limit {m.limit:g})" for m in measures},
            "failures": guarded.failures,
            "sets_skipped": guarded.skipped,
        },
    )


def synchronizer_status(
    statistics: SynchronizerStatistics | int, sets_dropped: int, newly_dropped: int
) -> DiagnosticStatus:
    """The synchroniser's counts.

    Args:
        statistics: of the synchroniser; of a stock one, how many sets it gave.
        sets_dropped: sets a newer one replaced, since activation.
        newly_dropped: of these, in the last period: a warning.
    """
    sets = statistics if isinstance(statistics, int) else statistics.emitted
    values: dict[str, Any] = {"sets": sets, "sets_dropped": sets_dropped}
    if isinstance(statistics, SynchronizerStatistics):
        values.update(_counts(statistics))
    if newly_dropped:
        message = f"{newly_dropped} sets dropped: frames come faster than the engine runs"
        return _status("synchronizer", DiagnosticStatus.WARN, message, values)
    return _status("synchronizer", DiagnosticStatus.OK, f"{sets} sets", values)


def _counts(statistics: SynchronizerStatistics) -> Mapping[str, int]:
    values: dict[str, int] = {}
    for modality in Modality:
        values[f"{modality}_received"] = statistics.received[modality]
        for reason, count in statistics.dropped[modality].items():
            if count:
                values[f"{modality}_dropped_{reason}"] = count
    for modality, absences in statistics.absences.items():
        for absence, count in absences.items():
            if count:
                values[f"{modality}_{absence}"] = count
    values["time_jumps"] = statistics.time_jumps
    return values


def modality_status(
    modality: Modality, tally: ModalityTally, *, all_needed: bool = False, busy: bool = False
) -> DiagnosticStatus:
    """One camera's part in the last period.

    An image that cannot be used needs somebody's attention: an error. A frame that is missing is
    a warning: thermal cameras pause for calibration, and the graph can do without.

    Args:
        modality: the camera.
        tally: what became of its frames.
        all_needed: whether there is no set without a frame of every camera.
        busy: whether a set is being processed: if none was finished, that may be why.
    """
    name, missing = f"{modality} camera", tally.missing.total()
    if not tally.used and not missing:
        if busy:
            message = "no set was finished: the engine is still at work on one"
            return _status(name, DiagnosticStatus.WARN, message)
        message = "no RGB frames" if modality is Modality.RGB else "no RGB frame to join"
        if all_needed:
            message = "no sets: the synchroniser waits for images of every camera that match"
        level = DiagnosticStatus.ERROR if modality is Modality.RGB else DiagnosticStatus.STALE
        return _status(name, level, message)
    values: dict[str, Any] = {"used": tally.used}
    values.update({str(absence): count for absence, count in tally.missing.items()})
    if tally.age_ns is not None:
        values["age_ms"] = f"{tally.age_ns * 1e-6:.1f}"
    if not missing:
        return _status(name, DiagnosticStatus.OK, f"used in {tally.used} sets", values)
    reason = tally.missing.most_common(1)[0][0]
    message = f"missing in {missing} of {missing + tally.used} sets: {reason}"
    if tally.age_ns is not None and reason is not Absence.INVALID:
        message += f", age {tally.age_ns * 1e-6:.1f} ms"
    if tally.problem:
        message += f" ({tally.problem})"
    invalid = tally.missing[Absence.INVALID]
    return _status(
        name, DiagnosticStatus.ERROR if invalid else DiagnosticStatus.WARN, message, values
    )


def inputs_status(inputs: Iterable[InputStatus]) -> DiagnosticStatus:
    """Whether the cameras' topics are there, and can be heard."""
    statuses = list(inputs)
    values = {
        entry.topic: f"{entry.publishers} publishers, {entry.reliability or 'not subscribed'}"
        for entry in statuses
    }
    unheard = [reason for entry in statuses for reason in entry.unheard]
    if unheard:
        return _status("inputs", DiagnosticStatus.ERROR, "; ".join(unheard), values)
    silent = [entry for entry in statuses if not (entry.publishers or entry.optional)]
    if silent:
        message = f"nobody publishes {', '.join(entry.topic for entry in silent)}"
        hints = [f"; {entry.hint}" for entry in silent if entry.hint]
        return _status("inputs", DiagnosticStatus.WARN, message + "".join(hints), values)
    return _status("inputs", DiagnosticStatus.OK, "all topics are published", values)


def calibration_status(disagreements: Mapping[Modality, str | None]) -> DiagnosticStatus:
    """Whether the cameras say of themselves what the rig file says of them.

    Args:
        disagreements: of each camera, empty where there is none; None where no camera_info came.
    """
    values = {
        str(modality): "no camera_info" if told is None else told or "agrees with the rig file"
        for modality, told in disagreements.items()
    }
    wrong = [f"{modality}: {told}" for modality, told in disagreements.items() if told]
    if wrong:
        return _status("calibration", DiagnosticStatus.WARN, "; ".join(wrong), values)
    heard = [str(modality) for modality, told in disagreements.items() if told is not None]
    message = f"{', '.join(heard)} agree with the rig file" if heard else "no camera_info"
    return _status("calibration", DiagnosticStatus.OK, message, values)


def clock_status(clock: ClockState) -> DiagnosticStatus:
    """Whether the node's clock runs, and the stamps of the images are of the same."""
    age = clock.stamp_age_s
    values: dict[str, Any] = {
        "clock": CLOCK_TOPIC if clock.simulated else "system",
        "jumps_back": clock.jumps_back,
    }
    if age is not None:
        values["newest_stamp_age_s"] = f"{age:.3f}"
    if clock.simulated and not clock.running:
        publishers = "" if clock.publishers else f", and nobody publishes {CLOCK_TOPIC}"
        message = (
            f"use_sim_time is set, but no simulated time has come{publishers}; play the bag with "
            "its clock, or set use_sim_time to false"
        )
        return _status("clock", DiagnosticStatus.WARN, message, values)
    if age is not None and not -_FUTURE_S <= age <= _PAST_S:
        side = "behind" if age > 0 else "ahead of"
        message = (
            f"the stamps of the images are {abs(age):.3f} s {side} the node's clock; synchronise "
            "the clocks of the machines, correct the driver's stamps, or set use_sim_time where a "
            "recording is played with its clock"
        )
        return _status("clock", DiagnosticStatus.WARN, message, values)
    return _status("clock", DiagnosticStatus.OK, str(values["clock"]), values)


def _status(
    name: str, level: bytes, message: str, values: Mapping[str, Any] | None = None
) -> DiagnosticStatus:
    pairs = [KeyValue(key=key, value=str(value)) for key, value in (values or {}).items()]
    return DiagnosticStatus(name=name, level=level, message=message, values=pairs)
