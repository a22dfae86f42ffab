"""A pipeline that outlives its engine."""

from __future__ import annotations

import functools
import logging
import math
import time
from collections.abc import Callable
from enum import Enum

from mmfusion_ros.core.engines import Cancelled
from mmfusion_ros.core.errors import ArtifactError, EngineError
from mmfusion_ros.core.frames import FrameSet
from mmfusion_ros.core.pipeline import Pipeline
from mmfusion_ros.core.results import Results

_logger = logging.getLogger(__name__)

# Seconds before each attempt to open a failed engine again; after the last one it stays closed.
BACK_OFF = (0.1, 0.5, 2.0, 5.0, 10.0)
# Seconds that it has to run well for its attempts to be forgotten: some engines open, run a few
# times and fail again, without end.
STEADY = 10.0
# What counts of the seconds between two runs: an engine at rest proves nothing.
LONGEST_GAP = 1.0


class EngineState(str, Enum):
    """What a guarded pipeline can do at the moment."""

    RUNNING = "running"
    REOPENING = "reopening"  # the engine failed and will be opened again
    FAILED = "failed"  # it failed too often, or for good, and stays closed

    def __str__(self) -> str:
        return self.value


class GuardedPipeline:
    """Runs a pipeline; closes its engine when it fails, and opens it again after a while.

    Where the artifact is to blame, it stays closed at once: the same graph would fail again. Where
    the engine has failed after each of `BACK_OFF`, never running well for `STEADY` in between, the
    fallback takes over for good, if there is one.

    A `Cancelled` opening is no failure, and comes out.

    Nothing here waits: frame sets that come before the next attempt are not processed. One
    thread runs it; the attributes may be read from others.

    Attributes:
        pipeline: the newest one, its engine closed while `state` is not RUNNING.
        state: see `EngineState`.
        problem: the last failure; empty while all is well.
        failures: how often the engine has failed.
        skipped: frame sets not processed for want of an engine.
        min_score: detections that score less are left out; may be set from any thread.
    """

    def __init__(
        self,
        open_pipeline: Callable[[], Pipeline],
        clock: Callable[[], float] = time.monotonic,
        open_fallback: Callable[[str], Pipeline] | None = None,
    ) -> None:
        """Open the pipeline for the first time; what that raises comes out.

        Args:
            open_pipeline: opens it, also again.
            clock: seconds.
            open_fallback: opens one that takes over for good where the engine cannot be opened or
                goes on failing, of which it is told why; None for none.
        """
        self._open = open_pipeline
        self._open_fallback = open_fallback
        self._clock = clock
        try:
            self.pipeline = open_pipeline()
        except EngineError as error:
            if not self._falls_back(str(error)):
                raise
            self.pipeline = self._open()
        self.min_score = 0.0
        self.state = EngineState.RUNNING
        self.problem = ""
        self.failures = 0
        self.skipped = 0
        self._attempts = 0  # since it last ran steadily
        self._ran_well = 0.0  # seconds since it was opened
        self._ran_at = math.inf  # the last run since it was opened; never before the first
        self._retry_at = 0.0

    def run(self, frames: FrameSet) -> Results | None:
        """Process a set; None if the engine is closed or fails now."""
        if self.state is not EngineState.RUNNING and not self._reopened():
            self.skipped += 1
            return None
        # Here, as it also holds for a pipeline that was opened since it was set.
        self.pipeline.min_score = self.min_score
        try:
            results = self.pipeline.run(frames)
        except Exception as error:  # noqa: BLE001 (whatever it is, the node must go on)
            self.skipped += 1
            self._note_failure(error)
            return None
        now = self._clock()
        self._ran_well += min(max(now - self._ran_at, 0.0), LONGEST_GAP)
        self._ran_at = now
        if self._ran_well >= STEADY:
            self._attempts = 0
        self.problem = ""
        return results

    def reset(self) -> None:
        """Forget what goes from one frame to the next."""
        self.pipeline.reset()

    def close(self) -> None:
        """Release the engine."""
        self.pipeline.engine.close()

    def _reopened(self) -> bool:
        if self.state is EngineState.FAILED or self._clock() < self._retry_at:
            return False
        self._attempts += 1
        try:
            self.pipeline = self._open()
        except Cancelled:
            raise  # no failure: nobody waits for it any more
        except Exception as error:  # noqa: BLE001
            self._note_failure(error)
            return False
        _logger.info("engine: open again")
        self.state = EngineState.RUNNING
        return True

    def _falls_back(self, reason: str) -> bool:
        """Whether there is a fallback left; it is what is opened from now on."""
        fallback, self._open_fallback = self._open_fallback, None
        if fallback is None:
            return False
        self._open = functools.partial(fallback, reason)
        return True

    def _note_failure(self, error: Exception) -> None:
        self.failures += 1
        self._ran_well, self._ran_at = 0.0, math.inf
        self.problem = str(error) or repr(error)
        self.pipeline.engine.close()
        if isinstance(error, ArtifactError):
            self.state = EngineState.FAILED
            _logger.error(
                "engine: %s; it stays closed; clean up and configure the node again", self.problem
            )
            return
        if self._attempts >= len(BACK_OFF) and self._falls_back(self.problem):
            # Anew, with all the patience: what failed so often is not what is opened now.
            self._attempts = 0
        if self._attempts >= len(BACK_OFF):
            self.state = EngineState.FAILED
            _logger.error(
                "engine: failed %d times, never running well for %g s in between, and stays closed "
                "(%s); clean up and configure the node again",
                self._attempts + 1,
                STEADY,
                self.problem,
            )
            return
        delay = BACK_OFF[self._attempts]
        self.state = EngineState.REOPENING
        self._retry_at = self._clock() + delay
        _logger.error("engine: %s; opening it again in %g s", self.problem, delay)
