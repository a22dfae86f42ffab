"""Stands in for the package message_filters, by the interface its documentation gives.

The package itself is not on PyPI. Only what is documented is here: filters have callbacks, a
subscriber is a source of messages, synchronisers give one message of each input, those of equal
stamps or of stamps at most so far apart. How well they match is no matter here.
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
        self.sub = node.create_subscription(message_type, topic, self.signalMessage, **kwargs)
        self.made.append(topic)


class TimeSynchronizer(SimpleFilter):
    slop_ns = 0

    def __init__(self, fs, queue_size):
        super().__init__()
        self.queue_size = queue_size
        self.queues = [[] for _ in fs]
        for source, queue in zip(fs, self.queues, strict=True):
            source.registerCallback(self.add, queue)

    def add(self, message, queue):
        queue.append(message)
        del queue[: -self.queue_size]
        found = []
        for others in self.queues:
            near = [m for m in others if abs(stamp_ns(m) - stamp_ns(message)) <= self.slop_ns]
            if not near:
                return
            found.append(near[0])
        for one, others in zip(found, self.queues, strict=True):
            others.remove(one)
        self.signalMessage(*found)


class ApproximateTimeSynchronizer(TimeSynchronizer):
    def __init__(self, fs, queue_size, slop, allow_headerless=False):
        super().__init__(fs, queue_size)
        self.slop_ns = round(slop * NS)


def module() -> ModuleType:
    """The package."""
    made = ModuleType("message_filters")
    for kind in (SimpleFilter, Subscriber, TimeSynchronizer, ApproximateTimeSynchronizer):
        setattr(made, kind.__name__, kind)
    Subscriber.made.clear()
    return made
