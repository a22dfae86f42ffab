"""Which frames a set gets."""

from __future__ import annotations

import random

import pytest
from synchronizer_bench import DEPTH, MS, RGB, THERMAL, Bench, Stock, contents, timing

from mmfusion_ros.core.frames import Absence, Modality


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
