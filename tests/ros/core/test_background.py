"""Work beside the main thread keeps its order, its bounds and its errors."""

from __future__ import annotations

import threading
import time

import pytest

from mmfusion_ros.core.background import Background, prefetch


def test_prefetch_keeps_the_order():
    assert list(prefetch((n for n in range(100)), 3)) == list(range(100))


def test_prefetch_raises_after_what_came_before():
    def source():
        yield 1
        raise OSError("gone")

    items = prefetch(source(), 3)
    assert next(items) == 1
    with pytest.raises(OSError, match="gone"):
        next(items)


def test_prefetch_reads_a_bounded_number_ahead():
    read = []
    waiting = threading.Event()

    def source():
        for number in range(100):
            read.append(number)
            if number == 4:  # one is consumed, three are queued: this one finds no room
                waiting.set()
            yield number

    items = prefetch(source(), 3)
    assert next(items) == 0
    assert waiting.wait(60)
    time.sleep(0.05)  # for a reader that knows no bounds; one that does cannot fail by it
    assert read == [0, 1, 2, 3, 4]
    items.close()


def test_an_abandoned_source_is_closed_by_its_thread():
    closed = []

    def source():
        try:
            yield from range(1000)
        finally:
            closed.append(threading.current_thread())

    items = prefetch(source(), 2)
    next(items)
    items.close()
    assert len(closed) == 1
    assert closed[0] is not threading.main_thread()


def test_results_come_in_the_order_of_submission():
    with Background("test", threads=4, backlog=50) as work:
        for number in range(30):
            work.submit(lambda n: time.sleep(0.001 * (n % 3)) or n, number)
        assert work.results() == list(range(30))
        assert work.results() == []


def test_a_full_backlog_holds_up_the_submitter():
    gate = threading.Event()
    with Background("test", backlog=2) as work:
        work.submit(gate.wait)
        work.submit(gate.wait)
        submitted = threading.Event()

        def submit() -> None:
            work.submit(gate.wait)
            submitted.set()

        submitter = threading.Thread(target=submit)
        submitter.start()
        assert not submitted.wait(0.1)
        gate.set()
        assert submitted.wait(60)
        submitter.join()


def test_an_error_comes_out():
    with Background("test") as work:
        work.submit(lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            work.results()
