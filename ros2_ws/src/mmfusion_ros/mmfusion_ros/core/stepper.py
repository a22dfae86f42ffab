"""Frames of a bag through the synchroniser and the pipeline, one set after the other."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from mmfusion_ros.core.frames import Frame, FrameSet, Modality
from mmfusion_ros.core.pipeline import Pipeline
from mmfusion_ros.core.results import Results
from mmfusion_ros.core.synchronizer import (
    Synchronizer,
    SynchronizerConfig,
    SynchronizerStatistics,
)


@dataclass(frozen=True, eq=False)
class Step:
    """One frame set and what came of it.

    Attributes:
        number: of the set in the bag, from 0; with a stride, numbers are left out.
        log_time_ns: when the RGB frame was recorded.
        results: with arrays of their own, which outlive the next step.
    """

    number: int
    log_time_ns: int
    results: Results


class Stepper:
    """Does what the node does, at the speed of the engine and without leaving out a set.

    The log time of the messages stands for the clock, so a message that came late on the robot
    is late here too.
    """

    def __init__(self, pipeline: Pipeline, config: SynchronizerConfig, stride: int = 1) -> None:
        """Prepare.

        Args:
            pipeline: freshly made or reset.
            config: of the synchroniser, as in the node.
            stride: run every so manieth set.
        """
        self._pipeline = pipeline
        self._stride = stride
        self._sets: deque[FrameSet] = deque()
        self._synchronizer = Synchronizer(config, self._sets.append)
        # By the frame itself, as stamps can repeat; a frame that is dropped takes its entry along.
        self._log_times: WeakKeyDictionary[Frame, int] = WeakKeyDictionary()
        self._number = 0
        self._last_stamp_ns = -1

    def run(self, frames: Iterable[tuple[Frame, int]]) -> Iterator[Step]:
        """Step through frames and their log times; ends with the sets that still wait."""
        for frame, log_time in frames:
            if frame.modality is Modality.RGB:
                self._log_times[frame] = log_time
            self._synchronizer.add(frame, log_time)
            yield from self._steps()
        self._synchronizer.flush()
        yield from self._steps()

    def statistics(self) -> SynchronizerStatistics:
        """Counts of the synchroniser up to now."""
        return self._synchronizer.statistics()

    def _steps(self) -> Iterator[Step]:
        while self._sets:
            frames = self._sets.popleft()
            number, self._number = self._number, self._number + 1
            log_time = self._log_times.pop(frames.rgb)
            if frames.stamp_ns < self._last_stamp_ns:
                self._pipeline.reset()  # time was set back: a looped bag
            self._last_stamp_ns = frames.stamp_ns
            if number % self._stride == 0:
                yield Step(number, log_time, _own(self._pipeline.run(frames)))


def _own(results: Results) -> Results:
    # Detections have arrays of their own already.
    pictures = ("fused", "registered_thermal", "saliency")
    copies = {
        name: picture.copy() for name in pictures if (picture := getattr(results, name)) is not None
    }
    return dataclasses.replace(results, **copies)
