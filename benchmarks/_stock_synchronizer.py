"""The usual approximate-time algorithm, restated, to measure ours against and to show its limits.

Written from the observed behaviour of the Python ``ApproximateTimeSynchronizer`` of ROS 2's
message_filters 6, not from its code. It behaves so:

- Each topic has a queue keyed by stamp; a repeated stamp replaces the queued message; when a
  queue is too long, its smallest stamp goes, even if that is the one which just came.
- Each message looks, in every other queue, for the stamps closer to it than the slop, and tries
  their combinations, nearest first. The first whose spread is below the slop (strictly) fires
  and its messages leave the queues. No time limit, no notion of a better combination to come.
- All of this, the callback too, happens under one plain lock that an exception leaves locked.
"""

from __future__ import annotations

from itertools import product
from threading import Lock
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

M = TypeVar("M")


class StockSynchronizer(Generic[M]):
    """Emits a tuple with one message of every topic, or nothing."""

    def __init__(
        self,
        topics: int,
        slop_ns: int,
        queue_size: int,
        callback: Callable[[Sequence[M]], None],
    ) -> None:
        self.queues: list[dict[int, M]] = [{} for _ in range(topics)]
        self.lock = Lock()
        self._slop_ns = slop_ns
        self._queue_size = queue_size
        self._callback = callback

    def add(self, topic: int, stamp_ns: int, message: M) -> None:
        """Take in a message of one topic."""
        self.lock.acquire()
        own = self.queues[topic]
        own[stamp_ns] = message
        while len(own) > self._queue_size:
            del own[min(own)]
        choices = []
        for index, queue in enumerate(self.queues):
            if index == topic:
                choices.append([stamp_ns])
                continue
            distances = sorted((abs(stamp - stamp_ns), stamp) for stamp in queue)
            near = [stamp for distance, stamp in distances if distance < self._slop_ns]
            if not near:
                self.lock.release()
                return
            choices.append(near)
        for stamps in product(*choices):
            fits = max(stamps) - min(stamps) < self._slop_ns
            if fits and all(s in queue for s, queue in zip(stamps, self.queues, strict=True)):
                messages = [q.pop(s) for s, q in zip(stamps, self.queues, strict=True)]
                self._callback(messages)
                break
        self.lock.release()
