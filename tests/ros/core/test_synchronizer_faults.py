"""What disorder, repeats and jumps of time do to a synchroniser."""

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
    frame,
    timing,
)

from mmfusion_ros.core.frames import Absence, Modality

# --- Disorder, repeats, nonsense


def test_output_is_monotone():
    """Stock fault 5: out-of-order input gives sets in decreasing time."""
    order = [index ^ 1 for index in range(40)]  # 1 0 3 2 ...
    bench, stock = Bench(), Stock(slop=10)
    for index in order:
        for synchronizer in (bench, stock):
            for modality in (DEPTH, THERMAL, RGB):
                synchronizer.add(modality, index * 33)
    assert stock.stamps != sorted(stock.stamps)
    assert bench.stamps == sorted(set(bench.stamps))
    assert bench.stamps == [index * 33 for index in range(1, 40, 2)]
    assert bench.dropped(RGB) == {"out_of_order": 20}


def test_an_overtaken_rgb_frame_is_put_in_order_and_delays_nobody():
    bench = Bench(max_wait_ns=25 * MS)
    bench.add(RGB, 33, now=0)
    bench.add(RGB, 0, now=20)
    bench.advance(24.9)
    assert not bench.sets
    bench.advance(25)
    assert bench.stamps == [0, 33]


def test_a_camera_known_to_send_out_of_order_is_waited_for():
    """Else the frame after the right one, coming first, would be taken for the next best."""
    bench = Bench(depth=timing(window=40), thermal=timing(window=40), max_wait_ns=40 * MS)
    for stamp in range(0, 33 * 40, 33):
        bench.add(THERMAL, stamp)
        bench.add(RGB, stamp)
        bench.add(DEPTH, stamp + 33, now=stamp + 1)
        if stamp % 2:  # every other one is overtaken
            bench.add(DEPTH, stamp, now=stamp + 2)
    bench.synchronizer.flush()
    depths = {rgb: depth for rgb, depth, _ in contents(bench)}
    assert all(depths[rgb] == rgb for rgb in range(99, 33 * 40, 66))

    bench = Bench()
    bench.rhythm(*Modality, count=20)
    bench.add(DEPTH, 640)  # once, long ago
    stamp = bench.rhythm(*Modality, start=660, count=100)
    bench.add(DEPTH, stamp + 33)
    bench.add(THERMAL, stamp)
    bench.add(RGB, stamp)
    assert contents(bench)[-1] == (stamp, Absence.STALE, stamp)


def test_an_overtaken_companion_is_used_if_it_comes_in_time():
    bench = Bench()
    bench.add(THERMAL, 100)
    bench.add(RGB, 100)
    bench.add(DEPTH, 80, now=101)
    bench.add(DEPTH, 60, now=102)
    bench.add(DEPTH, 90, now=103)
    bench.advance(125)
    assert contents(bench) == [(100, 90, 100)]


def test_companion_stamps_never_go_backwards():
    bench = Bench()
    bench.all(100)
    for modality in (DEPTH, THERMAL):
        bench.add(modality, 99, now=101)  # nearer to 99.4 than 100 is
        assert bench.dropped(modality) == {"out_of_order": 1}
    bench.synchronizer.reset()
    bench.add(DEPTH, 104)
    bench.add(THERMAL, 104)
    bench.add(RGB, 100)
    bench.add(DEPTH, 101)
    bench.add(RGB, 102)
    bench.synchronizer.flush()
    assert contents(bench)[1:] == [(100, 104, 104), (102, 104, 104)]


def test_repeats_count_once():
    """Stock fault 6: a repeated stamp replaces the message and can pair again."""
    bench, stock = Bench(), Stock(slop=10)
    for stamp in (0, 33, 66):
        for _ in range(2):
            for modality in Modality:
                bench.add(modality, stamp)
                stock.add(modality, stamp)
    assert len(stock.sets) == 6
    assert bench.stamps == [0, 33, 66]
    for modality in Modality:
        assert bench.dropped(modality) == {"duplicate": 3}


def test_the_first_of_two_equal_stamps_is_kept():
    bench = Bench()
    first, second = frame(RGB, 100), frame(RGB, 100)
    bench.synchronizer.add(first, 0)
    bench.synchronizer.add(second, 0)
    bench.synchronizer.flush()
    assert [s.rgb for s in bench.sets] == [first]
    assert bench.dropped(RGB) == {"duplicate": 1}


@pytest.mark.parametrize("modality", list(Modality))
def test_negative_stamps_are_refused(modality):
    bench = Bench()
    bench.add(modality, -1, now=0)
    assert bench.dropped(modality) == {"invalid": 1}
    bench.all(33)
    assert contents(bench) == [(33, 33, 33)]


# --- Time set back


@pytest.mark.parametrize("first", list(Modality))
def test_looped_bag(first):
    """Stock fault 3: after a jump back with full queues it never fires again."""
    order = sorted(Modality, key=lambda modality: modality is not first)
    bench, stock = Bench(), Stock(slop=10, queue_size=3)
    bench.rhythm(*Modality, count=200)
    for stamp in range(0, 6600, 33):  # full queues, as when another topic was late
        stock.add(RGB, stamp)
    for lap in range(3):
        for stamp in range(33, 3300, 33):
            for modality in order:
                bench.add(modality, stamp, now=10_000 * lap + 7000 + stamp)
                stock.add(modality, stamp)
    lap = [(stamp, stamp, stamp) for stamp in range(33, 3300, 33)]
    assert contents(bench)[-3 * len(lap) :] == lap * 3
    assert bench.synchronizer.statistics().time_jumps == 3
    assert stock.sets == []


def test_what_waits_at_a_jump_leaves_before_it():
    bench = Bench()
    bench.rhythm(*Modality, count=100)
    bench.add(RGB, 3300)
    bench.add(DEPTH, 3301)
    bench.add(RGB, 0, now=3310)
    assert contents(bench)[-1] == (3300, 3301, Absence.LATE)
    bench.add(DEPTH, 0, now=3311)
    bench.add(THERMAL, 0, now=3312)
    assert contents(bench)[-1] == (0, 0, 0)


@pytest.mark.parametrize("first", list(Modality))
def test_one_camera_jumps_before_the_others(first):
    """Stragglers neither pair with new frames nor count as a jump of their own."""
    bench = Bench()
    others = [modality for modality in Modality if modality is not first]
    end = bench.rhythm(*Modality, count=100)
    count = len(bench.sets)
    bench.add(first, 0, now=end)
    for modality in others:
        bench.add(modality, end, now=end + 1)
        assert bench.dropped(modality) == {"before_jump": 1}
    for modality in others:
        bench.add(modality, 0, now=end + 2)
    for stamp in range(33, 3300, 33):
        bench.all(stamp, now=end + stamp)
    assert contents(bench)[count:] == [(s, s, s) for s in range(0, 3300, 33)]
    assert bench.synchronizer.statistics().time_jumps == 1


@pytest.mark.parametrize("offset", [-10_000, 10_000])
def test_a_jump_is_seen_through_a_large_offset(offset):
    """A camera that stamps by a clock of its own, ten seconds off."""
    bench = Bench(depth=timing(offset=offset))
    start = 20_000
    for lap in range(2):
        for stamp in range(start, start + 3300, 33):
            bench.add(RGB, stamp, now=lap * 10_000 + stamp)
            bench.add(DEPTH, stamp + offset, now=lap * 10_000 + stamp)
            bench.add(THERMAL, stamp, now=lap * 10_000 + stamp)
    lap = [(stamp, stamp + offset, stamp) for stamp in range(start, start + 3300, 33)]
    assert contents(bench) == lap * 2


def test_frames_from_before_a_jump_never_pair_with_those_after():
    """Thermal dies at the end of the first lap; its last frames must not return in the second."""
    bench = Bench()
    end = bench.rhythm(*Modality, count=100)
    for stamp in range(0, end + 330, 33):
        bench.add(DEPTH, stamp, now=end + stamp)
        bench.add(RGB, stamp, now=end + stamp)
    bench.synchronizer.flush()
    assert {s.thermal.absence for s in bench.sets[100:]} == {Absence.ABSENT}


def test_a_camera_that_died_long_ago_comes_back_after_a_jump():
    """Its newest stamp is too low to show the jump; the other cameras' jump must do."""
    bench = Bench()
    bench.rhythm(*Modality, count=10)
    bench.rhythm(RGB, DEPTH, start=330, count=200)
    bench.add(RGB, 0, now=7000)
    bench.add(DEPTH, 0, now=7000)
    bench.add(THERMAL, 0, now=7000)
    assert contents(bench)[-1] == (0, 0, 0)


@pytest.mark.parametrize("modality", list(Modality))
@pytest.mark.parametrize("glitch", [0, HOUR])
def test_a_single_wrong_stamp_does_not_stop_the_sets(modality, glitch):
    bench = Bench()
    bench.rhythm(*Modality, start=10_000)
    bench.add(modality, glitch, now=10_320)
    bench.synchronizer.advance(10_360 * MS)
    for stamp in range(10_363, 11_000, 33):
        bench.all(stamp)
    expected = [(stamp, stamp, stamp) for stamp in range(10_363 + 66, 11_000, 33)]
    assert contents(bench)[-len(expected) :] == expected


def test_a_wrong_stamp_from_a_dying_camera_shuts_nobody_out_for_good():
    bench = Bench(startup_ns=500 * MS)
    bench.rhythm(*Modality, start=10_000)
    bench.add(THERMAL, 0, now=10_330)
    for stamp in range(10_330, 12_000, 33):
        bench.add(DEPTH, stamp)
        bench.add(RGB, stamp)
    assert bench.stamps[-1] == 12_000 - 20
    assert bench.stamps[10] < 10_330 + 500 + 2 * 33


def test_a_jump_is_a_step_back_by_the_full_amount():
    bench = Bench(jump_back_ns=1000 * MS)
    bench.add(RGB, 5000)
    bench.synchronizer.flush()
    bench.add(RGB, 4001)
    assert bench.dropped(RGB) == {"out_of_order": 1}
    assert bench.synchronizer.statistics().time_jumps == 0
    bench.add(RGB, 4000)
    bench.synchronizer.flush()
    assert bench.stamps == [5000, 4000]
    assert bench.synchronizer.statistics().time_jumps == 1


def test_the_clock_of_arrivals_may_jump_with_the_stamps():
    """A bag read twice: log time starts over, and waits must end by the new clock."""
    bench = Bench()
    bench.rhythm(*Modality, count=100)
    bench.add(RGB, 0)
    bench.add(DEPTH, 0)
    assert bench.synchronizer.next_deadline_ns() == 25 * MS
    bench.advance(25)
    assert contents(bench)[-1] == (0, 0, Absence.ABSENT)
