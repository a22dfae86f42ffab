"""What a set says about what is missing."""

from __future__ import annotations

from synchronizer_bench import DEPTH, HOUR, MS, RGB, THERMAL, Bench, Stock, contents

from mmfusion_ros.core.frames import Absence, Modality


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


def test_a_latecomer_does_not_thaw_a_frozen_camera():
    bench = Bench(frozen_after_ns=100 * MS)
    for stamp in (0, 50, 100, 150):
        bench.add(THERMAL, stamp, fingerprint=5)
    bench.add(THERMAL, 75, fingerprint=4)
    bench.add(THERMAL, 200, fingerprint=5)
    bench.add(DEPTH, 200)
    bench.add(RGB, 200)
    assert contents(bench) == [(200, 200, Absence.FROZEN)]
