"""Which frames a set gets, when it leaves, and what it says about what is missing."""

import dataclasses
import random

import pytest
from synchronizer_bench import (
    DEPTH,
    HOUR,
    MS,
    RGB,
    THERMAL,
    Bench,
    Stock,
    contents,
    timing,
)

from mmfusion_ros.core.frames import Absence, Modality
from mmfusion_ros.core.synchronizer import (
    SensorTiming,
    SynchronizerConfig,
)

# --- Matching


def test_exact_match_leaves_at_once():
    bench = Bench()
    bench.add(DEPTH, 100)
    bench.add(THERMAL, 100)
    assert not bench.sets
    bench.add(RGB, 100)
    assert contents(bench) == [(100, 100, 100)]
    assert bench.sets[0].depth.age_ns == 0
    assert bench.synchronizer.next_deadline_ns() is None


def test_the_rgb_frame_may_come_first():
    bench = Bench()
    bench.add(RGB, 100)
    bench.add(THERMAL, 98, now=110)
    bench.add(DEPTH, 103, now=111)
    assert not bench.sets, "thermal could still send a nearer one"
    bench.add(THERMAL, 131, now=120)
    assert contents(bench) == [(100, 103, 98)]
    assert bench.sets[0].depth.age_ns == -3 * MS
    assert bench.sets[0].thermal.age_ns == 2 * MS


def test_the_nearest_of_many_wins_whatever_the_order():
    bench = Bench()
    for stamp in (86, 114, 91, 104, 109, 97):
        bench.add(DEPTH, stamp, now=100)
    bench.add(THERMAL, 100)
    bench.add(RGB, 100)
    bench.synchronizer.flush()
    assert contents(bench) == [(100, 97, 100)]


def test_the_earlier_of_two_equally_near_wins():
    bench = Bench()
    for modality in (DEPTH, THERMAL):
        bench.add(modality, 95, now=100)
        bench.add(modality, 105, now=100)
    bench.add(RGB, 100)
    assert contents(bench) == [(100, 95, 95)]


@pytest.mark.parametrize(("away", "inside"), [(15, True), (-15, True), (16, False), (-16, False)])
def test_the_window_is_inclusive(away, inside):
    bench = Bench()
    bench.add(THERMAL, 100)
    bench.add(DEPTH, 100 + away)
    bench.add(RGB, 100, now=100)
    bench.synchronizer.flush()
    depth = bench.sets[0].depth
    assert (depth.frame is not None) is inside
    assert depth.age_ns == -away * MS


def test_one_nanosecond_outside_the_window_is_outside():
    bench = Bench(depth=timing(window=15))
    bench.add(DEPTH, 115 + 1e-6, now=0)
    bench.add(THERMAL, 100, now=0)
    bench.add(RGB, 100, now=0)
    assert bench.sets[0].depth.absence is Absence.STALE


def test_window_of_zero_takes_equal_stamps():
    """Stock fault 4: with a strict comparison a slop of zero never fires."""
    bench = Bench(depth=timing(window=0), thermal=timing(window=0))
    stock = Stock(slop=0)
    for synchronizer in (bench, stock):
        for stamp in (0, 33, 66):
            for modality in Modality:
                synchronizer.add(modality, stamp)
    assert contents(bench) == [(s, s, s) for s in (0, 33, 66)]
    assert stock.sets == []


@pytest.mark.parametrize("offset", [-40, 25])
def test_offset_shifts_what_is_expected(offset):
    bench = Bench(depth=timing(offset=offset, window=5))
    for stamp in sorted([100, 100 + offset - 3, 100 + offset + 33]):
        bench.add(DEPTH, stamp, now=0)
    bench.add(THERMAL, 100, now=0)
    bench.add(RGB, 100, now=0)
    assert contents(bench) == [(100, 100 + offset - 3, 100)]
    assert bench.sets[0].depth.age_ns == 3 * MS


def test_slow_camera_serves_several_rgb_frames():
    bench = Bench(thermal=timing(window=60), max_wait_ns=60 * MS)
    for stamp in range(0, 1000, 10):
        if stamp % 110 == 0:
            bench.add(THERMAL, stamp)
        if stamp % 30 == 0:
            bench.add(DEPTH, stamp)
            bench.add(RGB, stamp)
    bench.synchronizer.flush()
    used = [thermal for _, _, thermal in contents(bench)]
    assert used == [min(range(0, 1000, 110), key=lambda t: abs(t - s)) for s in bench.stamps]


def test_slow_camera_with_a_narrow_window_is_stale_in_between():
    bench = Bench(thermal=timing(window=15))
    for stamp in range(0, 2000, 10):
        if stamp % 110 == 0:
            bench.add(THERMAL, stamp)
        if stamp % 30 == 0:
            bench.add(DEPTH, stamp)
            bench.add(RGB, stamp)
    bench.synchronizer.flush()
    settled = [s for s in contents(bench) if s[0] > 600]  # once the rhythm is known
    for rgb, _, thermal in settled:
        near = [t for t in range(0, 2000, 110) if abs(t - rgb) <= 15]
        assert thermal == (near[0] if near else Absence.STALE)


def test_first_fit_is_not_good_enough():
    """Stock fault 1: streams aligned exactly, arriving 0 to 60 ms late, slop 100 ms."""
    rng = random.Random(3)
    events = sorted(
        (stamp + rng.uniform(0, 60), modality, stamp)
        for stamp in range(0, 300 * 33, 33)
        for modality in Modality
    )
    bench = Bench(depth=timing(window=100), thermal=timing(window=100), max_wait_ns=61 * MS)
    stock = Stock(slop=100)
    for now, modality, stamp in events:
        bench.add(modality, stamp, now)
        stock.add(modality, stamp)
    bench.synchronizer.flush()
    mixed = [s for s in contents(bench) if s != (s[0],) * 3]
    assert len(bench.sets) > 280
    assert len(mixed) <= 2  # once per camera, until it is known to send out of order
    assert sum(spread > 0 for spread in stock.spreads) > 50


def test_even_phases_give_the_smallest_spread():
    """Stock fault 1: streams at 0, 16, 33 ms pair 33 ms apart, where 17 ms are possible."""
    bench = Bench(depth=timing(window=50), thermal=timing(window=50), max_wait_ns=60 * MS)
    stock = Stock(slop=50)
    for index in range(30):
        for synchronizer in (bench, stock):
            for modality, phase in ((RGB, 0), (DEPTH, 16), (THERMAL, 33)):
                synchronizer.add(modality, index * 33.4 + phase)
    bench.synchronizer.flush()
    for frames in bench.sets[2:]:
        assert abs(frames.depth.age_ns) <= 16.1 * MS
        assert abs(frames.thermal.age_ns) <= 0.5 * MS
    assert min(stock.spreads) > 32


# --- When a set leaves


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


# --- Absences


def test_absent_before_the_first_frame():
    bench = Bench()
    bench.add(RGB, 100)
    bench.advance(125)
    assert contents(bench) == [(100, Absence.ABSENT, Absence.ABSENT)]
    assert bench.sets[0].depth.age_ns is None
    absences = bench.synchronizer.statistics().absences
    assert absences[DEPTH][Absence.ABSENT] == absences[THERMAL][Absence.ABSENT] == 1


def test_late_with_the_age_of_the_newest():
    bench = Bench()
    stamp = bench.rhythm(*Modality)
    bench.add(DEPTH, stamp)
    bench.add(RGB, stamp)
    bench.advance(stamp + 25)
    assert contents(bench)[-1] == (stamp, stamp, Absence.LATE)
    assert bench.sets[-1].thermal.age_ns == 33 * MS


def test_stale_at_once_when_the_next_frame_is_already_there():
    bench = Bench()
    stamp = bench.rhythm(*Modality)
    bench.add(DEPTH, stamp)
    bench.add(THERMAL, stamp + 20)
    bench.add(RGB, stamp)
    assert contents(bench)[-1] == (stamp, stamp, Absence.STALE)
    assert bench.sets[-1].thermal.age_ns == -20 * MS


def test_a_stall_silences_nothing_and_costs_the_wait_only_briefly():
    """Stock fault 2: a stalled topic stops all output for as long as it lasts."""
    bench, stock = Bench(), Stock(slop=100)
    start = bench.rhythm(*Modality, count=20)
    for index in range(20):
        for modality in Modality:
            stock.add(modality, index * 33)
    before = len(bench.sets), len(stock.sets)
    waited = []
    for stamp in range(start, start + 100 * 33, 33):
        for modality in (DEPTH, RGB):
            bench.add(modality, stamp)
            stock.add(modality, stamp)
        waited.append(bench.stamps[-1] != stamp)
        bench.advance(stamp + 25)
        assert bench.stamps[-1] == stamp
    assert len(bench.sets) == before[0] + 100
    assert len(stock.sets) == before[1]
    assert waited == [True] * 3 + [False] * 97  # three periods and the longest wait
    reasons = [s.thermal.absence for s in bench.sets[before[0] :]]
    assert reasons == [Absence.LATE] * 3 + [Absence.STALE] * 97
    assert bench.sets[-1].thermal.age_ns == 100 * 33 * MS

    # It comes back: used at once, waited for again.
    stamp = start + 100 * 33
    for modality in (THERMAL, DEPTH, RGB):
        bench.add(modality, stamp)
    bench.add(DEPTH, stamp + 33)
    bench.add(RGB, stamp + 33)
    assert bench.stamps[-1] == stamp
    bench.add(THERMAL, stamp + 33, now=stamp + 40)
    assert contents(bench)[-2:] == [(s, s, s) for s in (stamp, stamp + 33)]


def test_a_pause_long_ago_does_not_make_a_stall_look_short():
    bench = Bench()
    bench.rhythm(*Modality)
    start = bench.rhythm(*Modality, start=5000)
    for stamp in range(start, start + 5 * 33, 33):
        bench.add(DEPTH, stamp)
        bench.add(RGB, stamp)
    assert bench.sets[-1].stamp_ns == stamp * MS
    assert bench.sets[-1].thermal.absence is Absence.STALE


def test_a_camera_that_never_comes_is_waited_for_only_at_the_start():
    bench = Bench(startup_ns=1000 * MS)
    waited = []
    for stamp in range(0, 3000, 50):
        bench.add(DEPTH, stamp)
        bench.add(RGB, stamp)
        waited.append(bench.stamps[-1:] != [stamp])
        bench.advance(stamp + 25)
    assert waited == [stamp <= 1025 for stamp in range(0, 3000, 50)]
    assert {s.thermal.absence for s in bench.sets} == {Absence.ABSENT}


def test_a_camera_with_a_wrong_clock_costs_no_wait():
    """Alive, but an hour behind: nothing to be gained by waiting."""
    bench = Bench()
    for index in range(30):
        stamp = HOUR + index * 33
        bench.add(THERMAL, index * 33, now=stamp)
        bench.add(DEPTH, stamp)
        bench.add(RGB, stamp)
        assert bench.stamps[-1] == stamp
    assert bench.sets[-1].thermal.absence is Absence.STALE
    assert bench.sets[-1].thermal.age_ns == HOUR * MS


def test_frozen_picture():
    bench = Bench(frozen_after_ns=250 * MS)
    pictures = [1, 2, 3] + [7] * 12 + [8, 9]
    for index, picture in enumerate(pictures):
        stamp = index * 50
        bench.add(DEPTH, stamp)
        bench.add(THERMAL, stamp, fingerprint=picture)
        bench.add(RGB, stamp)
    frozen = [s.thermal.absence is Absence.FROZEN for s in bench.sets]
    # 7 was first seen at 150; 400 - 150 is 250.
    assert frozen == [400 <= stamp <= 700 for stamp in bench.stamps]
    assert all(s.thermal.frame is not None for s in bench.sets if not s.thermal.absence)
    assert bench.synchronizer.statistics().absences[THERMAL][Absence.FROZEN] == 7


def test_without_fingerprints_nothing_is_frozen():
    bench = Bench(frozen_after_ns=1)
    bench.rhythm(*Modality, count=30)
    assert all(s.thermal.frame is not None for s in bench.sets)


def test_watching_for_frozen_cameras_can_be_turned_off():
    bench = Bench(frozen_after_ns=0)
    for stamp in range(0, 2000, 50):
        bench.add(THERMAL, stamp, fingerprint=5)
        bench.add(DEPTH, stamp)
        bench.add(RGB, stamp)
    assert all(s.thermal.frame is not None for s in bench.sets)


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


def test_a_latecomer_does_not_thaw_a_frozen_camera():
    bench = Bench(frozen_after_ns=100 * MS)
    for stamp in (0, 50, 100, 150):
        bench.add(THERMAL, stamp, fingerprint=5)
    bench.add(THERMAL, 75, fingerprint=4)
    bench.add(THERMAL, 200, fingerprint=5)
    bench.add(DEPTH, 200)
    bench.add(RGB, 200)
    assert contents(bench) == [(200, 200, Absence.FROZEN)]


# --- Configuration


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
