"""Stands in for the package message_filters, by the interface its documentation gives.

The package itself is not on PyPI. Only what is documented is here: filters have callbacks, a
subscriber is a source of messages, synchronisers give one message of each input, those of equal
stamps or of stamps less than so far apart. Of how they work inside, one thing: their queues are
kept by stamp, not by arrival. How well they match is no matter here.
"""

from __future__ import annotations

from types import ModuleType
from typing import ClassVar

NS = 1_000_000_000


def stamp_ns(message) -> int:
    return message.header.stamp.sec * NS + message.header.stamp.nanosec


class SimpleFilter:
    def __init__(self):
        self.callbacks = {}

    def registerCallback(self, cb, *args):
        self.callbacks[len(self.callbacks)] = (cb, args)
        return len(self.callbacks) - 1

    def signalMessage(self, *msg):
        for cb, args in self.callbacks.values():
            cb(*(msg + args))


class Subscriber(SimpleFilter):
    made: ClassVar[list[str]] = []

    def __init__(self, *args, **kwargs):
        super().__init__()
        node, message_type, topic = args
        kwargs.setdefault("qos_profile", 10)
        self.made.append(topic)  # first: a test knows of the subscription as soon as it is there
        self.sub = node.create_subscription(message_type, topic, self.signalMessage, **kwargs)


class TimeSynchronizer(SimpleFilter):
    def __init__(self, fs, queue_size):
        super().__init__()
        self.queue_size = queue_size
        self.queues = [{} for _ in fs]
        for source, queue in zip(fs, self.queues, strict=True):
            source.registerCallback(self.add, queue)

    def near(self, _one, _other):
        """Whether stamps that differ belong together."""
        return False

    def add(self, message, queue):
        stamp = stamp_ns(message)
        queue[stamp] = message
        # As the package does: what is oldest by its stamp makes room, be it the newest to come.
        while len(queue) > self.queue_size:
            queue.pop(min(queue))
        chosen = []
        for others in self.queues:
            fitting = [s for s in others if s == stamp or self.near(s, stamp)]
            if not fitting:
                return
            chosen.append(min(fitting, key=lambda s: abs(s - stamp)))
        if stamp in queue and (len(set(chosen)) == 1 or self.near(min(chosen), max(chosen))):
            self.signalMessage(*(q.pop(s) for q, s in zip(self.queues, chosen, strict=True)))


class ApproximateTimeSynchronizer(TimeSynchronizer):
    def __init__(self, fs, queue_size, slop, allow_headerless=False):
        super().__init__(fs, queue_size)
        self.slop_ns = round(slop * NS)

    def near(self, one, other):
        return abs(one - other) < self.slop_ns


def module() -> ModuleType:
    """The package."""
    made = ModuleType("message_filters")
    for kind in (SimpleFilter, Subscriber, TimeSynchronizer, ApproximateTimeSynchronizer):
        setattr(made, kind.__name__, kind)
    Subscriber.made.clear()
    return made
