"""Sets are stepped through in order, each with the log time of its own RGB frame."""

from __future__ import annotations

import numpy as np

from mmfusion_ros.core.frames import Frame, FrameSet, Modality, SourceImage
from mmfusion_ros.core.results import Results
from mmfusion_ros.core.stepper import Step, Stepper
from mmfusion_ros.core.synchronizer import SynchronizerConfig

S = 10**9


class Pipeline:
    """Gives the same array again and again, as the real one does."""

    def __init__(self) -> None:
        self.fused = np.zeros((1, 1, 3), np.uint8)
        self.resets = 0

    def run(self, frames: FrameSet) -> Results:
        self.fused += 1
        pictures = {"registered_thermal": self.fused[..., 0], "saliency": self.fused[..., 0]}
        return Results(
            frames,
            self.fused,
            thermal_range=(0.0, 1.0),
            present=frozenset(),
            stages={},
            problems={},
            **pictures,
        )

    def reset(self) -> None:
        self.resets += 1


def recorded(*times: tuple[float, float]) -> list[tuple[Frame, int]]:
    """RGB frames with (stamp, log time) in seconds."""
    image = SourceImage(b"", 0, 0, "rgb8", 0)
    return [(Frame(Modality.RGB, round(t * S), "", image), round(log * S)) for t, log in times]


def seconds(steps: list[Step]) -> list[tuple[float, float]]:
    return [(step.results.frames.stamp_ns / S, step.log_time_ns / S) for step in steps]


def test_results_outlive_the_next_step():
    steps = list(Stepper(Pipeline(), SynchronizerConfig()).run(recorded((1, 1), (2, 2), (3, 3))))
    for name in ("fused", "registered_thermal", "saliency"):
        assert [step.results.images[name].max() for step in steps] == [1, 2, 3]
    assert [step.number for step in steps] == [0, 1, 2]


def test_a_stride_leaves_out_sets_but_not_their_numbers():
    frames = recorded(*((n, n) for n in range(1, 6)))
    steps = list(Stepper(Pipeline(), SynchronizerConfig(), stride=2).run(frames))
    assert [step.number for step in steps] == [0, 2, 4]
    assert seconds(steps) == [(1, 1), (3, 3), (5, 5)]


def test_a_stamp_repeated_after_a_jump_while_the_first_one_waits():
    frames = recorded((1, 5), (3, 5.01), (1, 5.02))
    pipeline = Pipeline()
    steps = list(Stepper(pipeline, SynchronizerConfig(startup_ns=10 * S)).run(frames))
    assert seconds(steps) == [(1, 5), (3, 5.01), (1, 5.02)]
    assert pipeline.resets == 1


def test_a_dropped_frame_leaves_no_log_time_behind():
    drive = [(1, 1), (2, 2), (4, 4)]
    again = [(t, log + 10) for t, log in drive]
    # Of no use: one repeats a stamp that waits, one a stamp whose set is out already.
    first = [*drive[:2], (2, 2.5), (2, 2.6), *drive[2:]]
    stepper = Stepper(Pipeline(), SynchronizerConfig())
    steps = list(stepper.run(recorded(*first, *again)))
    assert seconds(steps) == [*drive, *again]
    assert not stepper._log_times
