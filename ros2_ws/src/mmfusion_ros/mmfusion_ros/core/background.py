"""Reading ahead and working behind: what may run beside the engine, in an order that is fixed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")

_POLL_S = 0.1  # how soon an abandoned reader notices


class _End:
    """Last thing in a queue: the source is exhausted, or has failed."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def prefetch(source: Generator[T, None, None], ahead: int) -> Generator[T, None, None]:
    """Iterate in a thread of its own, at most ``ahead`` items in front of the consumer.

    The source is started, advanced and closed by that thread alone. What it raises is raised
    here, after the items before it.
    """
    queue: Queue[T | _End] = Queue(maxsize=ahead)
    abandoned = Event()

    def put(item: T | _End) -> None:
        while not abandoned.is_set():
            try:
                queue.put(item, timeout=_POLL_S)
            except Full:
                continue
            return

    def read() -> None:
        error = None
        try:
            with closing(source):
                for item in source:
                    put(item)
                    if abandoned.is_set():
                        break
        except BaseException as problem:  # noqa: BLE001 (raised where the items are wanted)
            error = problem
        put(_End(error))

    thread = Thread(target=read, name="prefetch", daemon=True)
    thread.start()
    try:
        while not isinstance(item := _get(queue, thread), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        abandoned.set()
        thread.join()


def _get(queue: Queue[T | _End], thread: Thread) -> T | _End:
    # A plain get() would not let Ctrl-C through on every platform.
    while True:
        try:
            return queue.get(timeout=_POLL_S)
        except Empty:
            if not thread.is_alive() and queue.empty():
                return _End(None)


class Background(Generic[T]):
    """Work done by threads, results in the order of submission.

    The backlog is bounded: when it is full, ``submit`` waits, so that a slow disk holds up the
    work before it and not the memory.
    """

    def __init__(self, name: str, threads: int = 1, backlog: int = 8) -> None:
        """Start without threads; they come with the first work.

        Args:
            name: of the threads.
            threads: with one, work is done strictly in order.
            backlog: pieces of work that may wait or be under way.
        """
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._backlog = backlog
        self._pending: deque[Future[T]] = deque()
        self._results: list[T] = []

    def submit(self, work: Callable[..., T], *arguments: Any) -> None:
        """Have a piece of work done; raises what an earlier piece raised."""
        while self._pending and (len(self._pending) >= self._backlog or self._pending[0].done()):
            self._results.append(self._pending.popleft().result())
        self._pending.append(self._pool.submit(work, *arguments))

    def results(self) -> list[T]:
        """Wait for everything submitted; return the results since the last call, in order."""
        while self._pending:
            self._results.append(self._pending.popleft().result())
        results, self._results = self._results, []
        return results

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
