"""Reads an MCAP file that was not closed: what a crash, a full disk or a pulled plug leaves.

Such a file lacks the index at its end. `RepairedMcap` looks to rosbags like the same file with
everything after the last whole record replaced by a fresh index. Nothing is copied or changed
on disk.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

_MAGIC = b"\x89MCAP0\r\n"
_FOOTER_SIZE = 1 + 8 + 20 + len(_MAGIC)
_FOOTER, _CHUNK, _MESSAGE_INDEX, _CHUNK_INDEX, _STATISTICS, _DATA_END = 2, 6, 7, 8, 11, 15
_CHUNK_HEAD = struct.Struct("<QQQII")  # start, end, uncompressed size, CRC, length of compression


def is_complete(path: Path) -> bool:
    """Whether an MCAP file ends as it should."""
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        if size < len(_MAGIC) + _FOOTER_SIZE:
            return False
        file.seek(size - _FOOTER_SIZE)
        tail = file.read()
    return tail[0] == _FOOTER and tail.endswith(_MAGIC)


@dataclass
class _Chunk:
    """What the index says about a chunk."""

    offset: int
    length: int
    start: int
    end: int
    uncompressed: int
    compressed: int
    compression: bytes
    indexes: dict[int, int] = field(default_factory=dict)  # offset by channel
    indexes_length: int = 0

    def record(self) -> bytes:
        offsets = b"".join(struct.pack("<HQ", *item) for item in self.indexes.items())
        return _record(
            _CHUNK_INDEX,
            struct.pack("<QQQQ", self.start, self.end, self.offset, self.length)
            + struct.pack("<I", len(offsets))
            + offsets
            + struct.pack("<QI", self.indexes_length, len(self.compression))
            + self.compression
            + struct.pack("<QQ", self.compressed, self.uncompressed),
        )


class RepairedMcap:
    """Stands in for the path of an incomplete MCAP file where rosbags expects one."""

    def __init__(self, path: Path) -> None:
        self._path = path
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
        """The file as it would be if it had been closed after its last whole record."""
        file = self._path.open("rb")
        try:
            whole, chunks = _survey(file)
        except BaseException:
            file.close()
            raise
        return io.BufferedReader(_Joined(file, whole, _ending(whole, chunks)))


def _survey(file: BinaryIO) -> tuple[int, list[_Chunk]]:
    """Length of the part made of whole records, and the chunks in it."""
    chunks: list[_Chunk] = []
    whole = len(_MAGIC)
    for opcode, offset, length in _records(file):
        if opcode in {_FOOTER, _DATA_END}:  # what follows is the index, which is not whole
            break
        if opcode == _CHUNK:
            chunks.append(_chunk(file, offset, length))
        elif opcode == _MESSAGE_INDEX and chunks:
            chunks[-1].indexes[struct.unpack("<H", file.read(2))[0]] = offset
            chunks[-1].indexes_length += length
        whole = offset + length
    # A chunk counts once its indexes are there: they say which channels it holds.
    if chunks and not chunks[-1].indexes:
        whole = chunks.pop().offset
    return whole, chunks


def _records(file: BinaryIO) -> Iterator[tuple[int, int, int]]:
    """Yield opcode, offset and length of each whole record, the file standing at its content."""
    size = file.seek(0, io.SEEK_END)
    offset = len(_MAGIC)
    while offset + 9 <= size:
        file.seek(offset)
        opcode, content = struct.unpack("<BQ", file.read(9))
        if opcode == 0 or offset + 9 + content > size:
            return
        yield opcode, offset, 9 + content
        offset += 9 + content


def _chunk(file: BinaryIO, offset: int, length: int) -> _Chunk:
    start, end, uncompressed, _, name_length = _CHUNK_HEAD.unpack(file.read(_CHUNK_HEAD.size))
    compression = file.read(name_length)
    (compressed,) = struct.unpack("<Q", file.read(8))
    return _Chunk(offset, length, start, end, uncompressed, compressed, compression)


def _ending(whole: int, chunks: list[_Chunk]) -> bytes:
    if not chunks:  # readers then go through the file from its beginning
        return _record(_FOOTER, struct.pack("<QQI", 0, 0, 0)) + _MAGIC
    # Empty statistics: readers that see no schemas here count for themselves.
    statistics = _record(_STATISTICS, struct.pack("<QHIIIIQQI", *[0] * 9))
    index = b"".join(chunk.record() for chunk in chunks) + statistics
    return index + _record(_FOOTER, struct.pack("<QQI", whole, 0, 0)) + _MAGIC


def _record(opcode: int, content: bytes) -> bytes:
    return struct.pack("<BQ", opcode, len(content)) + content


class _Joined(io.RawIOBase):
    """The first bytes of a file, followed by others."""

    def __init__(self, file: BinaryIO, length: int, ending: bytes) -> None:
        super().__init__()
        self._file = file
        self._length = length
        self._ending = ending
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {
            io.SEEK_SET: 0,
            io.SEEK_CUR: self._position,
            io.SEEK_END: self._length + len(self._ending),
        }[whence]
        self._position = origin + offset
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        left = self._length - self._position
        if left > 0:
            self._file.seek(self._position)
            data = self._file.read(min(len(buffer), left))
        else:
            data = self._ending[-left : -left + len(buffer)]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
