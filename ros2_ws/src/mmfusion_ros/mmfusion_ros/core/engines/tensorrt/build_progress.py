"""How far the builder is, out of the phases it tells."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from mmfusion_ros.core.engines.progress import Progress


@dataclass(eq=False)
class _Phase:
    name: str
    steps: int
    done: int = 0


class PhaseShares:
    """Phases that nest: each is worth a step of the one that it started in.

    Safe to call from several threads, as the builder does.
    """

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._open: list[_Phase] = []
        self._share = 0.0
        self._lock = threading.Lock()
        self._cancelled = False
        self.error: BaseException | None = None

    @property
    def cancelled(self) -> bool:
        """Whether the build shall end, or what was called raised `error`."""
        return self._cancelled or self.error is not None

    def cancel(self) -> None:
        """End the build at its next step."""
        self._cancelled = True

    def start(self, name: str, steps: int) -> None:
        """A phase starts within those that are open."""
        with self._lock:
            self._open.append(_Phase(name, max(1, steps)))
            self._tell(name)

    def step(self, name: str, number: int) -> bool:
        """A step of a phase is done; returns whether to go on."""
        with self._lock:
            phase = self._last(name)
            if phase is not None:
                phase.done = max(phase.done, min(number + 1, phase.steps))
                self._tell(name)
        return not self.cancelled

    def finish(self, name: str) -> None:
        """A phase ends; it need not have told its last step."""
        with self._lock:
            phase = self._last(name)
            if phase is not None:
                phase.done = phase.steps
                self._tell(name)
                self._open.remove(phase)

    def _last(self, name: str) -> _Phase | None:
        return next((phase for phase in reversed(self._open) if phase.name == name), None)

    def _tell(self, name: str) -> None:
        share, worth = 0.0, 1.0
        for phase in self._open:
            worth /= phase.steps
            share += worth * phase.done
        # Phases start that nothing was known of before; the bar still never goes back.
        self._share = min(1.0, max(self._share, share))
        if self._progress is None or self.cancelled:
            return
        try:
            self._progress(name, self._share)
        # Nothing may go through the library's own code, Ctrl-C neither.
        except BaseException as error:  # noqa: BLE001
            self.error = error


def make_monitor(tensorrt: Any, shares: PhaseShares) -> Any:
    """A TensorRT progress monitor that fills ``shares``."""

    class Monitor(tensorrt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            tensorrt.IProgressMonitor.__init__(self)  # super() does not reach a pybind class

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            del parent_phase  # the phases that are open tell it
            shares.start(phase_name, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return shares.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            shares.finish(phase_name)

    return Monitor()
