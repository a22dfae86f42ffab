"""How the node is doing, as ``/diagnostics`` says it once a second."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from mmfusion_ros.core.frames import Absence, Modality
from mmfusion_ros.core.guarded_pipeline import EngineState, GuardedPipeline
from mmfusion_ros.core.results import Results
from mmfusion_ros.core.synchronizer import SynchronizerStatistics
from mmfusion_ros.inputs import InputStatus


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


def lifecycle_status(state: str, problem: str) -> DiagnosticStatus:
    """The engine of a node that is not active.

    Args:
        state: of its lifecycle.
        problem: why it could not be configured or activated; empty if that was not tried.
    """
    if problem:
        return _status("engine", DiagnosticStatus.ERROR, f"{state}: {problem}")
    return _status("engine", DiagnosticStatus.OK, state)


def engine_status(guarded: GuardedPipeline) -> DiagnosticStatus:
    """The engine of an active node: an error as long as it does not run."""
    pipeline = guarded.pipeline
    running = guarded.state is EngineState.RUNNING and not guarded.problem
    summary = f"{pipeline.engine.backend} runs {pipeline.artifact.name}"
    return _status(
        "engine",
        DiagnosticStatus.OK if running else DiagnosticStatus.ERROR,
        summary if running else f"{guarded.state}: {guarded.problem}",
        {
            "artifact": pipeline.artifact.name,
            "digest": pipeline.artifact.digest[:12],
            "backend": pipeline.engine.backend,
            "precision": pipeline.engine.precision,
            "failures": guarded.failures,
            "sets_skipped": guarded.skipped,
        },
    )


def synchronizer_status(
    statistics: SynchronizerStatistics, sets_dropped: int, newly_dropped: int
) -> DiagnosticStatus:
    """The synchroniser's counts.

    Args:
        statistics: of the synchroniser.
        sets_dropped: sets a newer one replaced, since activation.
        newly_dropped: of these, in the last period: a warning.
    """
    values: dict[str, Any] = {"sets": statistics.emitted, "sets_dropped": sets_dropped}
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
    if newly_dropped:
        message = f"{newly_dropped} sets dropped: frames come faster than the engine runs"
        return _status("synchronizer", DiagnosticStatus.WARN, message, values)
    return _status("synchronizer", DiagnosticStatus.OK, f"{statistics.emitted} sets", values)


def modality_status(modality: Modality, tally: ModalityTally) -> DiagnosticStatus:
    """One camera's part in the last period.

    An image that cannot be used needs somebody's attention: an error. A frame that is missing is
    a warning: thermal cameras pause for calibration, and the graph can do without.
    """
    name, missing = f"{modality} camera", tally.missing.total()
    if not tally.used and not missing:
        message = "no RGB frames" if modality is Modality.RGB else "no RGB frame to join"
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
    unheard = [
        f"{node} does not offer {entry.reliability} on {entry.topic}"
        for entry in statuses
        for node in entry.incompatible
    ]
    if unheard:
        return _status("inputs", DiagnosticStatus.ERROR, "; ".join(unheard), values)
    silent = [entry.topic for entry in statuses if not (entry.publishers or entry.optional)]
    if silent:
        message = f"nobody publishes {', '.join(silent)}"
        return _status("inputs", DiagnosticStatus.WARN, message, values)
    return _status("inputs", DiagnosticStatus.OK, "all topics are published", values)


def _status(
    name: str, level: bytes, message: str, values: Mapping[str, Any] | None = None
) -> DiagnosticStatus:
    pairs = [KeyValue(key=key, value=str(value)) for key, value in (values or {}).items()]
    return DiagnosticStatus(name=name, level=level, message=message, values=pairs)
