"""When a set leaves: at once, after a wait, or with the next frame."""

from __future__ import annotations

import pytest
from synchronizer_bench import DEPTH, HOUR, MS, RGB, THERMAL, Bench, contents, timing

from mmfusion_ros.core.frames import Absence, Modality


def test_a_set_waits_no_longer_than_the_deadline():
    bench = Bench(max_wait_ns=25 * MS)
    bench.add(DEPTH, 90)
    bench.add(THERMAL, 90)
    bench.add(RGB, 100, now=1000)
    assert bench.synchronizer.next_deadline_ns() == 1025 * MS
    bench.advance(1024.9)
    assert not bench.sets
    bench.advance(1025)
    assert contents(bench) == [(100, 90, 90)]
    assert bench.synchronizer.next_deadline_ns() is None


def test_a_frame_keeps_the_deadline_without_a_timer():
    bench = Bench()
    bench.all(0)
    bench.add(RGB, 33)
    bench.add(DEPTH, 33, now=33 + 25)  # arrives as the wait ends: too late
    assert bench.stamps == [0, 33]
    assert bench.sets[1].depth.absence is Absence.LATE


def test_a_frame_shortly_before_is_taken_at_once_when_the_rhythm_is_known():
    bench = Bench()
    stamp = bench.rhythm(*Modality)
    bench.add(DEPTH, stamp - 5)
    bench.add(THERMAL, stamp - 5)
    bench.add(RGB, stamp)
    assert contents(bench)[-1] == (stamp, stamp - 5, stamp - 5)


def test_a_patient_synchronizer_waits_for_the_next_frame():
    bench = Bench(eager=False)
    stamp = bench.rhythm(*Modality)
    count = len(bench.sets)
    bench.add(DEPTH, stamp - 5)
    bench.add(THERMAL, stamp - 5)
    bench.add(RGB, stamp)
    bench.add(THERMAL, stamp + 28, now=stamp)
    assert len(bench.sets) == count
    bench.add(DEPTH, stamp + 1)
    assert contents(bench)[-1] == (stamp, stamp + 1, stamp - 5)


def test_a_frame_far_before_waits_for_the_next_one():
    bench = Bench()
    stamp = bench.rhythm(*Modality)
    bench.add(THERMAL, stamp)
    bench.add(DEPTH, stamp - 14)
    bench.add(RGB, stamp)
    assert bench.stamps[-1] < stamp
    bench.add(DEPTH, stamp + 12)
    assert contents(bench)[-1] == (stamp, stamp + 12, stamp)


def test_the_rhythm_rules_out_no_frame_on_the_edge_of_the_window():
    bench = Bench(depth=timing(window=4))
    last = bench.rhythm(*Modality, period=32) - 32
    bench.add(THERMAL, last + 20)
    bench.add(RGB, last + 20)  # three quarters of a period after the last lie 4 ms ahead
    bench.add(DEPTH, last + 24, now=last + 21)
    assert contents(bench)[-1] == (last + 20, last + 24, last + 20)


def test_no_wait_at_all_can_be_asked_for():
    bench = Bench(max_wait_ns=0)
    bench.add(DEPTH, 95)
    bench.add(RGB, 100)
    assert contents(bench) == [(100, 95, Absence.ABSENT)]


def test_stamps_and_arrival_times_need_no_common_clock():
    for clock in (0, -5 * HOUR, 400_000 * HOUR):
        bench = Bench()
        for stamp in range(0, 990, 33):
            bench.all(400_000 * HOUR + stamp, now=clock + stamp)
        assert len(bench.sets) == 30
        assert all(s.depth.age_ns == 0 == s.thermal.age_ns for s in bench.sets)


@pytest.mark.parametrize("speed", [0.05, 20])
def test_time_lapse(speed):
    """Simulated time may run at any speed; frames in time are used, none is taken for stalled."""
    bench = Bench()
    for stamp in range(0, 3300, 33):
        bench.all(stamp, now=stamp / speed)
    assert contents(bench) == [(stamp, stamp, stamp) for stamp in range(0, 3300, 33)]
