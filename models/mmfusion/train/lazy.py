"""Sequences whose items are read when they are used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar, overload

Item = TypeVar("Item")


class LazySequence(Sequence[Item], Generic[Item]):
    """A data set that may be larger than memory: an item is read at each access, and not kept.

    It holds no open files and never changes, so threads and worker processes can share it; it
    can be pickled if its readers can.
    """

    def __init__(self, readers: Sequence[Callable[[], Item]]) -> None:
        """Take what reads each item."""
        self._readers = readers

    def __len__(self) -> int:
        return len(self._readers)

    @overload
    def __getitem__(self, index: int) -> Item: ...

    @overload
    def __getitem__(self, index: slice) -> LazySequence[Item]: ...

    def __getitem__(self, index: int | slice) -> Item | LazySequence[Item]:
        """Read an item, or take a part of the sequence, which is not read yet."""
        if isinstance(index, slice):
            return LazySequence(self._readers[index])
        return self._readers[index]()
