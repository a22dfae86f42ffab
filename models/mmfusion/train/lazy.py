"""Sequences whose items are read when they are used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, NamedTuple, TypeVar, overload

Item = TypeVar("Item")


class Entry(NamedTuple, Generic[Item]):
    """An item that is not read yet.

    Attributes:
        name: of the item.
        size: (height, width) of its pictures.
        read: it.
    """

    name: str
    size: tuple[int, int]
    read: Callable[[], Item]


class LazySequence(Sequence[Item], Generic[Item]):
    """A data set that may be larger than memory: an item is read at each access, and not kept.

    It holds no open files and never changes, so threads and worker processes can share it; it
    can be pickled if its readers can.
    """

    def __init__(self, entries: Sequence[Entry[Item]]) -> None:
        """Take what is known of each item."""
        self._entries = entries

    @property
    def names(self) -> list[str]:
        """Of all items, which are not read for it."""
        return [entry.name for entry in self._entries]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of all items, which are not read for it."""
        return [entry.size for entry in self._entries]

    def take(self, places: Iterable[int]) -> LazySequence[Item]:
        """The items at some places, which are not read yet."""
        return LazySequence([self._entries[place] for place in places])

    def some(self, most: int) -> LazySequence[Item]:
        """At most so many of the items, evenly spaced."""
        count = min(len(self), most)
        return self.take(number * len(self) // count for number in range(count))

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, index: int) -> Item: ...

    @overload
    def __getitem__(self, index: slice) -> LazySequence[Item]: ...

    def __getitem__(self, index: int | slice) -> Item | LazySequence[Item]:
        """Read an item, or take a part of the sequence, which is not read yet."""
        if isinstance(index, slice):
            return LazySequence(self._entries[index])
        return self._entries[index].read()
