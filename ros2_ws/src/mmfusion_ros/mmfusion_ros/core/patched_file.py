"""A file as it would be with another beginning and another end, without a copy of it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO


class PatchedFile(io.RawIOBase):
    """The first bytes of a file, some of them replaced, followed by others."""

    def __init__(self, file: BinaryIO, length: int, beginning: bytes, ending: bytes) -> None:
        """Take over an open file.

        Args:
            file: closed with this one.
            length: of the part to keep.
            beginning: stands in place of the first bytes of that part.
            ending: follows it.
        """
        super().__init__()
        self._file = file
        self._length = length
        self._beginning = beginning
        self._ending = ending
        self._position = 0

    def readable(self) -> bool:
        """As of any file."""
        return True

    def seekable(self) -> bool:
        """As of any file."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As of any file."""
        origin = {
            io.SEEK_SET: 0,
            io.SEEK_CUR: self._position,
            io.SEEK_END: self._length + len(self._ending),
        }[whence]
        self._position = origin + offset
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """As of any file."""
        place = self._position
        if place < len(self._beginning):
            data = self._beginning[place : place + len(buffer)]
        elif place < self._length:
            self._file.seek(place)
            data = self._file.read(min(len(buffer), self._length - place))
        else:
            start = place - self._length
            data = self._ending[start : start + len(buffer)]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        """Close the file it was made of."""
        self._file.close()
        super().close()


class RepairedPath:
    """Stands in for the path of a damaged file where rosbags expects one."""

    def __init__(self, path: Path, length: int, beginning: bytes, ending: bytes) -> None:
        self._path = path
        self._parts = (length, beginning, ending)
        self.suffix = path.suffix

    def __str__(self) -> str:
        return str(self._path)

    def exists(self) -> bool:
        """As of a path."""
        return self._path.exists()

    def is_dir(self) -> bool:
        """As of a path."""
        return False

    def open(self, _mode: str = "rb") -> BinaryIO:
        """The file as it would be if it were whole."""
        return io.BufferedReader(PatchedFile(self._path.open("rb"), *self._parts))
