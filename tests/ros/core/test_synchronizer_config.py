"""Settings of the synchroniser: what is allowed, and changing them on the way."""

from __future__ import annotations

import dataclasses

import pytest
from synchronizer_bench import DEPTH, MS, RGB, THERMAL, Bench, contents

from mmfusion_ros.core.synchronizer import SensorTiming, SynchronizerConfig


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: SensorTiming(window_ns=-1), ValueError, "window_ns must be at least 0"),
        (lambda: SensorTiming(window_ns=0.015), TypeError, "window_ns must be a whole number"),
        (lambda: SensorTiming(offset_ns=1.5), TypeError, "offset_ns must be a whole number"),
        (lambda: SynchronizerConfig(max_wait_ns=-1), ValueError, "max_wait_ns must be at least 0"),
        (lambda: SynchronizerConfig(max_wait_ns=True), TypeError, "whole number of nanoseconds"),
        (lambda: SynchronizerConfig(frozen_after_ns=-1), ValueError, "frozen_after_ns must be"),
        (lambda: SynchronizerConfig(startup_ns=-1), ValueError, "startup_ns must be"),
        (lambda: SynchronizerConfig(stalled_periods=0), ValueError, "at least 1 frame periods"),
        (lambda: SynchronizerConfig(queue_size=0), ValueError, "queue_size must be at least 1"),
        (lambda: SynchronizerConfig(jump_back_ns=15 * MS), ValueError, "both match windows"),
    ],
)
def test_wrong_settings_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_settings_cannot_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SynchronizerConfig().max_wait_ns = 0
    assert SynchronizerConfig() == SynchronizerConfig()


def test_new_settings_apply_from_then_on_and_stamps_still_increase():
    bench = Bench(thermal=SensorTiming(window_ns=5 * MS))
    bench.add(THERMAL, 110)
    bench.add(RGB, 100)
    bench.synchronizer.reconfigure(SynchronizerConfig(thermal=SensorTiming(window_ns=20 * MS)))
    assert contents(bench)[0][0] == 100  # what waited came out
    for stamp in (100, 200):
        bench.add(DEPTH, stamp)
        bench.add(THERMAL, stamp + 10)
        bench.add(RGB, stamp)
    bench.synchronizer.flush()
    assert bench.stamps == [100, 200]
    assert bench.sets[-1].thermal.frame is not None
