"""The thread between reception and publishing."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from mmfusion_ros.core.errors import MmfusionError
from mmfusion_ros.core.frames import Frame, FrameSet, Modality
from mmfusion_ros.core.guarded_pipeline import GuardedPipeline
from mmfusion_ros.core.results import Results
from mmfusion_ros.core.synchronizer import (
    Synchronizer,
    SynchronizerConfig,
    SynchronizerStatistics,
)

_logger = logging.getLogger(__name__)


class FusionWorker:
    """Matches frames as they come and runs the pipeline on the newest set, on its own thread.

    A set that is ready while the pipeline is busy waits in a slot of one; a newer one takes its
    place. ``add`` never waits for the pipeline.

    Attributes:
        sets_dropped: sets that a newer one replaced before they were processed.
    """

    def __init__(
        self,
        pipeline: GuardedPipeline,
        config: SynchronizerConfig,
        deliver: Callable[[Results], None],
    ) -> None:
        """Start the thread.

        Args:
            pipeline: used by this worker's thread alone until ``stop``.
            config: how to match frames.
            deliver: called on the worker's thread with each result; its arrays are valid
                until it returns.
        """
        self._pipeline = pipeline
        self._deliver = deliver
        self._wake = threading.Condition()
        self._newest: FrameSet | None = None
        self._stopping = False
        self._last_stamp_ns = -1
        self.sets_dropped = 0
        self._busy_since: float | None = None
        self._synchronizer = Synchronizer(config, self.add_set)
        self._thread = threading.Thread(target=self._work, name="fusion_worker", daemon=True)
        self._thread.start()

    def add(self, frame: Frame) -> None:
        """Take in a frame; call it from one thread."""
        self._synchronizer.add(frame, time.monotonic_ns())
        if frame.modality is Modality.RGB:
            with self._wake:  # the worker keeps the deadline of the set this frame begins
                self._wake.notify()

    def add_set(self, frames: FrameSet) -> None:
        """Take in a set that somebody else has matched; it never waits for the pipeline."""
        with self._wake:
            if self._newest is not None:
                self.sets_dropped += 1
            self._newest = frames
            self._wake.notify()

    def forget(self) -> None:
        """Begin anew: time was set back, and what waits is from before."""
        self._synchronizer.reset()
        with self._wake:
            self._newest = None

    def reconfigure(self, config: SynchronizerConfig) -> None:
        """Match frames by other settings from now on."""
        self._synchronizer.reconfigure(config)

    def busy_s(self) -> float | None:
        """How long the set that is being processed has been, seconds; None if none is."""
        since = self._busy_since
        return None if since is None else time.monotonic() - since

    def statistics(self) -> SynchronizerStatistics:
        """Counts of the synchroniser."""
        return self._synchronizer.statistics()

    def stop(self, timeout_s: float = 10.0) -> None:
        """End the thread after the run it is in.

        Raises:
            MmfusionError: if that run does not end; the thread then still uses the pipeline.
        """
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise MmfusionError(f"the engine has not come back for {timeout_s:g} s")

    def _work(self) -> None:
        while True:
            self._synchronizer.advance(time.monotonic_ns())
            with self._wake:
                if self._newest is None and not self._stopping:
                    self._wake.wait(self._seconds_to_deadline())
                if self._stopping:
                    return
                frames, self._newest = self._newest, None
                if frames is not None:
                    self._busy_since = time.monotonic()
            if frames is not None:
                try:
                    self._process(frames)
                finally:
                    self._busy_since = None

    def _seconds_to_deadline(self) -> float | None:
        deadline = self._synchronizer.next_deadline_ns()
        return None if deadline is None else max(0.0, (deadline - time.monotonic_ns()) * 1e-9)

    def _process(self, frames: FrameSet) -> None:
        if frames.stamp_ns < self._last_stamp_ns:
            self._pipeline.reset()  # time was set back: a looped bag, a simulator's restart
        self._last_stamp_ns = frames.stamp_ns
        results = self._pipeline.run(frames)
        if results is None:
            return
        try:
            self._deliver(results)
        except Exception:  # a dead worker would be a node that hangs
            _logger.exception("results of stamp %d ns could not be published", frames.stamp_ns)
