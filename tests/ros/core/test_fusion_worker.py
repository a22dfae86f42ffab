"""The worker's thread: newest set first, deadlines kept, time jumps noticed, always an end."""

from __future__ import annotations

import threading
import time

import pytest

from mmfusion_ros.core.errors import MmfusionError
from mmfusion_ros.core.frames import Frame, Modality, SourceImage
from mmfusion_ros.core.fusion_worker import FusionWorker
from mmfusion_ros.core.synchronizer import SynchronizerConfig

SECOND = 1_000_000_000
PATIENCE_S = 60
IMAGE = SourceImage(b"", 0, 0, "mono8", 0)
AT_ONCE = SynchronizerConfig(max_wait_ns=0)


class Pipeline:
    """Gives the stamp of what it runs on; waits while ``gate`` is closed."""

    def __init__(self):
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.resets = 0

    def run(self, frames):
        self.entered.set()
        assert self.gate.wait(PATIENCE_S)
        return frames.stamp_ns

    def reset(self):
        self.resets += 1


class Delivered:
    def __init__(self):
        self.stamps: list[int] = []
        self._more = threading.Condition()

    def __call__(self, stamp: int) -> None:
        with self._more:
            self.stamps.append(stamp)
            self._more.notify_all()

    def wait_for(self, stamp: int) -> None:
        with self._more:
            assert self._more.wait_for(lambda: stamp in self.stamps, PATIENCE_S), self.stamps


@pytest.fixture
def pipeline():
    return Pipeline()


@pytest.fixture
def delivered():
    return Delivered()


def rgb(stamp: int) -> Frame:
    return Frame(Modality.RGB, stamp, "camera", IMAGE)


def test_a_lone_frame_is_delivered_when_its_wait_is_over(pipeline, delivered):
    worker = FusionWorker(pipeline, SynchronizerConfig(max_wait_ns=30_000_000), delivered)
    worker.add(rgb(SECOND))
    delivered.wait_for(SECOND)
    worker.stop()


def test_the_newest_set_wins_and_the_others_are_counted(pipeline, delivered):
    worker = FusionWorker(pipeline, AT_ONCE, delivered)
    pipeline.gate.clear()
    worker.add(rgb(SECOND))
    assert pipeline.entered.wait(PATIENCE_S)
    for index in range(1, 6):
        worker.add(rgb(SECOND + index))
    worker._synchronizer.flush()
    pipeline.gate.set()
    delivered.wait_for(SECOND + 5)
    worker.stop()
    assert delivered.stamps == [SECOND, SECOND + 5]
    assert worker.sets_dropped == 4


def test_it_is_busy_as_long_as_a_set_is_processed(pipeline, delivered):
    pipeline.gate.clear()
    worker = FusionWorker(pipeline, AT_ONCE, delivered)
    assert worker.busy_s() is None
    worker.add(rgb(SECOND))
    assert pipeline.entered.wait(PATIENCE_S)
    first, second = worker.busy_s(), worker.busy_s()
    assert 0 <= first <= second < PATIENCE_S
    pipeline.gate.set()
    delivered.wait_for(SECOND)
    worker.stop()
    assert worker.busy_s() is None


def test_time_set_back_resets_the_pipeline(pipeline, delivered):
    worker = FusionWorker(pipeline, AT_ONCE, delivered)
    for stamp in (100 * SECOND, 101 * SECOND, 5 * SECOND, 6 * SECOND):
        worker.add(rgb(stamp))
        delivered.wait_for(stamp)
    worker.stop()
    assert pipeline.resets == 1


def test_new_settings_lose_no_frame(pipeline, delivered):
    worker = FusionWorker(pipeline, SynchronizerConfig(max_wait_ns=3600 * SECOND), delivered)
    worker.add(rgb(SECOND))
    worker.reconfigure(AT_ONCE)
    delivered.wait_for(SECOND)
    worker.add(rgb(SECOND))  # repeated: the output must not go back in time
    worker.add(rgb(2 * SECOND))
    delivered.wait_for(2 * SECOND)
    assert worker.statistics().emitted == 2
    worker.stop()


def test_a_delivery_that_fails_does_not_stop_it(pipeline, caplog):
    delivered = Delivered()

    def deliver(stamp):
        if stamp == SECOND:
            raise RuntimeError("no paper")
        delivered(stamp)

    worker = FusionWorker(pipeline, AT_ONCE, deliver)
    worker.add(rgb(SECOND))
    deadline = time.monotonic() + 30
    while "no paper" not in caplog.text:
        assert worker._thread.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    worker.add(rgb(2 * SECOND))
    delivered.wait_for(2 * SECOND)
    worker.stop()


def test_stop_says_so_if_the_engine_hangs(pipeline, delivered):
    worker = FusionWorker(pipeline, AT_ONCE, delivered)
    pipeline.gate.clear()
    worker.add(rgb(SECOND))
    assert pipeline.entered.wait(PATIENCE_S)
    with pytest.raises(MmfusionError, match="has not come back"):
        worker.stop(timeout_s=0.01)
    pipeline.gate.set()
    worker.stop()
