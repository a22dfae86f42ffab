"""How a synchroniser gets on with its callback, with threads and with memory."""

import dataclasses
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from synchronizer_bench import (
    DEPTH,
    HOUR,
    MS,
    RGB,
    THERMAL,
    Bench,
    content,
    frame,
    stock_synchronizer,
)

from mmfusion_ros.core.frames import Modality
from mmfusion_ros.core.synchronizer import (
    DropReason,
    Synchronizer,
    SynchronizerConfig,
)

# --- Callback


class Refusal(Exception):
    pass


def test_an_exception_in_the_callback_harms_nothing():
    """Stock fault 7: an exception leaves its lock locked."""

    def refuse(_):
        raise Refusal

    stock = stock_synchronizer()(1, MS, 5, refuse)
    with pytest.raises(Refusal):
        stock.add(0, 0, None)
    assert stock.lock.locked()

    seen = []

    def on_set(frames):
        seen.append(frames.stamp_ns // MS)
        if len(seen) in (1, 3):
            raise Refusal

    synchronizer = Synchronizer(SynchronizerConfig(max_wait_ns=HOUR * MS), on_set)
    synchronizer.add(frame(DEPTH, 0), 0)
    synchronizer.add(frame(THERMAL, 0), 0)
    with pytest.raises(Refusal):
        synchronizer.add(frame(RGB, 0), 0)
    for stamp in (33, 66, 99):
        synchronizer.add(frame(RGB, stamp), stamp * MS)
    assert seen == [0]
    with pytest.raises(Refusal):
        synchronizer.flush()
    assert seen == [0, 33, 66]
    assert synchronizer.next_deadline_ns() is not None, "one set is left to be given out"
    synchronizer.advance(synchronizer.next_deadline_ns())
    assert seen == [0, 33, 66, 99]
    assert synchronizer.next_deadline_ns() is None
    assert synchronizer.statistics().emitted == 4


def test_the_callback_may_call_back():
    seen = []
    inside = False

    def on_set(frames):
        nonlocal inside
        assert not inside, "one call at a time"
        inside = True
        seen.append(frames.stamp_ns // MS)
        following = seen[-1] + 33
        if following < 330:
            for modality in (DEPTH, THERMAL, RGB):
                synchronizer.add(frame(modality, following), following * MS)
        synchronizer.advance(following * MS)
        synchronizer.flush()
        synchronizer.next_deadline_ns()
        synchronizer.statistics()
        inside = False

    synchronizer = Synchronizer(SynchronizerConfig(), on_set)
    for modality in (DEPTH, THERMAL, RGB):
        synchronizer.add(frame(modality, 0), 0)
    assert seen == list(range(0, 330, 33))


def test_nothing_from_before_a_reset_follows_it():
    seen = []

    def on_set(frames):
        seen.append(frames.stamp_ns // MS)
        if len(seen) == 1:
            synchronizer.reset()

    synchronizer = Synchronizer(SynchronizerConfig(), on_set)
    for stamp in (100, 110, 120):
        synchronizer.add(frame(RGB, stamp), 0)
    synchronizer.add(frame(DEPTH, 100), 0)
    synchronizer.flush()
    assert seen == [100]
    statistics = synchronizer.statistics()
    assert statistics.dropped[RGB][DropReason.RESET] == 2
    assert statistics.dropped[DEPTH][DropReason.RESET] == 1
    assert not any(statistics.queued.values())
    synchronizer.add(frame(RGB, 50), -HOUR * MS)
    assert synchronizer.next_deadline_ns() == (25 - HOUR) * MS
    synchronizer.flush()
    assert seen == [100, 50]


def test_a_slow_callback_blocks_no_input():
    """Stock fault 7: its callback runs under the lock that every input needs."""
    entered, leave = threading.Event(), threading.Event()
    seen = []

    def on_set(frames):
        entered.set()
        assert leave.wait(30)
        seen.append(frames.stamp_ns // MS)

    synchronizer = Synchronizer(SynchronizerConfig(queue_size=8), on_set)

    def feed(stamps):
        for stamp in stamps:
            for modality in (DEPTH, THERMAL, RGB):
                synchronizer.add(frame(modality, stamp), stamp * MS)

    slow = threading.Thread(target=feed, args=([0],), daemon=True)
    slow.start()
    assert entered.wait(30)
    other = threading.Thread(target=feed, args=(range(33, 33 * 21, 33),), daemon=True)
    other.start()
    other.join(30)
    assert not other.is_alive(), "inputs must not wait for the callback"
    assert seen == []
    leave.set()
    slow.join(30)
    assert not slow.is_alive()
    # Of twenty sets the newest are kept; the others are counted.
    kept = seen[1:]
    assert seen[0] == 0
    assert kept == list(range(33, 33 * 21, 33))[-len(kept) :]
    assert 8 <= len(kept) < 20
    statistics = synchronizer.statistics()
    assert statistics.dropped[RGB][DropReason.OVERFLOW] == 20 - len(kept)


def test_threads():
    """A thread per camera and a timer: every RGB frame gives one set, in order, none twice."""
    previous = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        count = 300
        seen = []
        busy = threading.Lock()

        def on_set(frames):
            assert busy.acquire(blocking=False), "one call at a time"
            seen.append(frames)
            busy.release()

        # A wait without end, so that how the threads are scheduled cannot change what matches;
        # a bar every ten frames keeps them near enough to each other for the queues.
        config = SynchronizerConfig(max_wait_ns=HOUR * MS, startup_ns=HOUR * MS, eager=False)
        synchronizer = Synchronizer(config, on_set)
        bar = threading.Barrier(4, timeout=30)

        def feed(modality):
            for index in range(count):
                if index % 10 == 0:
                    bar.wait()
                synchronizer.add(frame(modality, index * 33), index * 33 * MS)

        def tick():
            for index in range(count):
                if index % 10 == 0:
                    bar.wait()
                synchronizer.advance(index * 33 * MS)
                synchronizer.next_deadline_ns()
                synchronizer.statistics()

        with ThreadPoolExecutor(4) as pool:
            for job in [*(pool.submit(feed, m) for m in Modality), pool.submit(tick)]:
                job.result()
        assert [content(s) for s in seen] == [(index * 33,) * 3 for index in range(count)]
    finally:
        sys.setswitchinterval(previous)


# --- Memory and counts


@pytest.mark.parametrize("alone", list(Modality))
def test_memory_is_bounded_when_the_others_are_silent(alone):
    bench = Bench(queue_size=5, max_wait_ns=HOUR * MS, startup_ns=HOUR * MS)
    for index in range(100):
        bench.add(alone, index * 33)
        assert bench.synchronizer.statistics().queued[alone] <= 5
    statistics = bench.synchronizer.statistics()
    if alone is RGB:
        # Instead of a frame the wait is cut short.
        assert statistics.emitted == 95
        assert bench.dropped(RGB) == {}
    else:
        assert bench.dropped(alone) == {"overflow": 95}
        bench.add(alone, 99 * 33)
        bench.add(RGB, 99 * 33)
        bench.synchronizer.flush()
        assert bench.sets[-1].companion(alone).frame is not None


def test_a_stalled_camera_leaves_no_frames_behind():
    bench = Bench()
    bench.rhythm(*Modality)
    bench.rhythm(RGB, DEPTH, start=330, count=300)
    assert sum(bench.synchronizer.statistics().queued.values()) <= 4


def test_statistics_are_a_picture_of_one_moment():
    bench = Bench()
    before = bench.synchronizer.statistics()
    assert set(before.received) == set(before.dropped) == set(before.queued) == set(Modality)
    bench.all(0)
    bench.add(RGB, 33)
    after = bench.synchronizer.statistics()
    assert before.received[RGB] == before.emitted == 0
    assert (after.received[RGB], after.emitted, after.queued[RGB]) == (2, 1, 1)
    assert after.received[DEPTH] == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        after.emitted = 5
    with pytest.raises(TypeError):
        after.received[RGB] = 5
    with pytest.raises(TypeError):
        after.dropped[RGB][DropReason.INVALID] = 5
