"""Reads what is left of an SQLite bag whose database is damaged.

Rows are looked up one by one by their number, which goes around the pages that cannot be read.
Nothing is copied or changed on disk.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import apsw
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from mmfusion_ros.core.errors import BagError

_STEPS = 1024  # rows that are looked for one by one before larger steps are taken
_LAST = 2**62  # no row is numbered higher


class SalvagedBag:
    """A damaged database, open for reading.

    Attributes:
        topics: number to name and type.
        lost: rows that could not be read, as far as they are known.
    """

    def __init__(self, path: Path) -> None:
        """Find all rows that can be read.

        Raises:
            BagError: if there are none.
        """
        self._path = path
        self.topics: dict[int, tuple[str, str]] = {}
        self.lost = 0
        try:
            self._database = apsw.Connection(
                f"{path.resolve().as_uri()}?immutable=1",
                flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI,
            )
            # Else SQLite refuses a file that is shorter than its header says.
            self._database.execute("PRAGMA writable_schema = ON")
            self.topics = {
                number: (name, msgtype)
                for number, name, msgtype in self._ask("SELECT id, name, type FROM topics")
            }
        except apsw.Error as error:
            raise BagError(f"{path.name} holds no list of topics ({error})") from error
        # Log time, number, topic: in memory, in the order in which they were recorded.
        self._rows = sorted(self._readable_rows())
        if not self._rows:
            self.close()
            raise BagError(f"{path.name} holds no message that can be read")

    @property
    def start_ns(self) -> int:
        """First log time."""
        return self._rows[0][0]

    @property
    def end_ns(self) -> int:
        """After the last log time."""
        return self._rows[-1][0] + 1

    def count(self, topic: int) -> int:
        """Messages of a topic."""
        return sum(row[2] == topic for row in self._rows)

    def messages(
        self, topics: Collection[int], start: int | None, stop: int | None
    ) -> Iterator[tuple[int, int, bytes | None]]:
        """Topic, log time and bytes of each message; None for bytes that cannot be read."""
        for log_time, number, topic in self._rows:
            if topic not in topics or (start is not None and log_time < start):
                continue
            if stop is not None and log_time >= stop:
                return
            yield topic, log_time, self._data(number)

    def typestore(self) -> Typestore:
        """With the definitions of the bag, or the standard ones where it has none."""
        try:
            told = list(
                self._ask(
                    "SELECT topic_type, encoding, encoded_message_definition "
                    "FROM message_definitions"
                )
            )
        except apsw.Error:
            told = []
        known: dict[str, Any] = {}
        for name, encoding, text in told:
            if encoding == "ros2msg":
                known.update(get_types_from_msg(text, name))
            elif encoding == "ros2idl":
                known.update(get_types_from_idl(text))
        if not known:
            return get_typestore(Stores.LATEST)
        store = get_typestore(Stores.EMPTY)
        store.register(known)
        return store

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _ask(self, query: str, *values: int) -> Iterator[Any]:
        return iter(self._database.execute(query, values))

    def _data(self, number: int) -> bytes | None:
        try:
            row = next(self._ask("SELECT data FROM messages WHERE id = ?", number), None)
        except apsw.Error:
            return None
        return None if row is None else row[0]

    def _readable_rows(self) -> Iterator[tuple[int, int, int]]:
        number: int | None = 0
        while number is not None:
            try:
                for found, topic, log_time in self._ask(
                    "SELECT id, topic_id, timestamp FROM messages NOT INDEXED "
                    "WHERE id > ? ORDER BY id",
                    number,
                ):
                    number = found
                    if topic in self.topics and isinstance(log_time, int):
                        yield log_time, found, topic
            except apsw.Error:
                after = self._next_row(number)
                if after is not None:
                    self.lost += after - number - 1
                    yield from self._row(after)
                number = after
            else:
                return

    def _next_row(self, number: int) -> int | None:
        """The number of the next row that can be read, seen from the last one before damage."""
        step = 1
        probe = number + 1
        while probe < _LAST:
            if self._row(probe):
                while probe - 1 > number and self._row(probe - 1):
                    probe -= 1
                return probe
            if probe - number >= _STEPS:
                step *= 2
            probe += step
        return None

    def _row(self, number: int) -> list[tuple[int, int, int]]:
        try:
            return [
                (log_time, number, topic)
                for topic, log_time in self._ask(
                    "SELECT topic_id, timestamp FROM messages WHERE id = ?", number
                )
                if topic in self.topics and isinstance(log_time, int)
            ]
        except apsw.Error:
            return []
