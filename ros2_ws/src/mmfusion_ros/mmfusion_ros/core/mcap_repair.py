"""Reads what is left of an MCAP file: after a crash, a full disk, or with damage in the middle.

A file that was not closed lacks the index at its end. A damaged one has chunks whose content is
not what was written. `repaired_mcap` looks to rosbags like the same file with a fresh index of all
chunks that are whole. Nothing is copied or changed on disk.
"""

from __future__ import annotations

import importlib
import io
import mmap
import re
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from zlib import crc32

from mmfusion_ros.core.errors import BagError
from mmfusion_ros.core.patched_file import RepairedPath

_MAGIC = b"\x89MCAP0\r\n"
_FOOTER_SIZE = 1 + 8 + 20 + len(_MAGIC)
_HEADER, _FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK = 1, 2, 3, 4, 5, 6
_CHUNK_INDEX, _STATISTICS, _DATA_END, _LAST_KNOWN = 8, 11, 15, 15
_NOTHING = 0  # no opcode
_PRIVATE = 0x80  # records from here on are left to applications
_CHUNK_HEAD = struct.Struct("<QQQII")  # start, end, uncompressed size, CRC, length of compression
# Where a chunk might begin: a length below a terabyte, two times, the uncompressed size, a CRC,
# a known compression; without compression, the two sizes are equal.
_CHUNK_START = re.compile(
    rb"\x06.{5}\0{3}.{16}(?:.{5}\0{3}.{4}(?:\x04\0{3}zstd|\x03\0{3}lz4)"
    rb"|(.{5}\0{3}).{4}\0{4}\1)",
    re.DOTALL,
)


def is_complete(path: Path) -> bool:
    """Whether an MCAP file ends as it should."""
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        if size < len(_MAGIC) + _FOOTER_SIZE:
            return False
        file.seek(size - _FOOTER_SIZE)
        tail = file.read()
    return tail[0] == _FOOTER and tail.endswith(_MAGIC)


def repaired_mcap(path: Path) -> RepairedPath:
    """What rosbags can read in place of a damaged file; reads all of it once.

    Raises:
        BagError: if nothing in it can be read.
    """
    status = path.stat()
    survey = _survey(path, status.st_size, status.st_mtime_ns)
    if not survey.chunks and not survey.messages:
        raise BagError(f"{path.name} holds no message that can be read")
    # Without chunks, readers go through the file from its beginning.
    beginning = _MAGIC + _record(_HEADER, _text("ros2") + _text("")) if survey.chunks else b""
    return RepairedPath(path, survey.whole, beginning, survey.ending())


@dataclass
class _Chunk:
    """What the index says about a chunk, by what is in it."""

    offset: int
    length: int
    uncompressed: int
    compressed: int
    compression: bytes
    start: int = 2**64 - 1
    end: int = 0
    counts: Counter[int] = field(default_factory=Counter)  # messages by channel
    kinds: dict[tuple[int, int], bytes] = field(default_factory=dict)  # schemas and channels

    def index(self) -> bytes:
        # Readers take the number of messages from how far apart the indexes of the channels are.
        # Those need not be whole, so the offsets say where they would be.
        place, offsets = self.offset + self.length, []
        for channel, count in sorted(self.counts.items()):
            offsets.append(struct.pack("<HQ", channel, place))
            place += 15 + 16 * count
        packed = b"".join(offsets)
        return _record(
            _CHUNK_INDEX,
            struct.pack("<QQQQ", self.start, self.end, self.offset, self.length)
            + struct.pack("<I", len(packed))
            + packed
            + struct.pack("<Q", place - self.offset - self.length)
            + struct.pack("<I", len(self.compression))
            + self.compression
            + struct.pack("<QQ", self.compressed, self.uncompressed),
        )


@dataclass
class _Survey:
    """What is whole in a file.

    Attributes:
        chunks: in the order of the file.
        kinds: schema and channel records, by opcode and id.
        messages: how many lie outside of chunks.
        whole: length of the part to keep.
    """

    chunks: list[_Chunk] = field(default_factory=list)
    kinds: dict[tuple[int, int], bytes] = field(default_factory=dict)
    messages: int = 0
    whole: int = len(_MAGIC)

    def ending(self) -> bytes:
        if not self.chunks:
            return _record(_FOOTER, struct.pack("<QQI", 0, 0, 0)) + _MAGIC
        counts: Counter[int] = sum((chunk.counts for chunk in self.chunks), Counter())
        packed = b"".join(struct.pack("<HQ", *item) for item in sorted(counts.items()))
        filled = [chunk for chunk in self.chunks if chunk.counts]
        statistics = struct.pack(
            "<QHIIIIQQI",
            counts.total(),
            sum(opcode == _SCHEMA for opcode, _ in self.kinds),
            sum(opcode == _CHANNEL for opcode, _ in self.kinds),
            0,
            0,
            len(self.chunks),
            min((chunk.start for chunk in filled), default=0),
            max((chunk.end for chunk in filled), default=0),
            len(packed),
        )
        summary = b"".join(
            [
                *(_record(key[0], self.kinds[key]) for key in sorted(self.kinds)),
                *(chunk.index() for chunk in self.chunks),
                _record(_STATISTICS, statistics + packed),
            ]
        )
        return summary + _record(_FOOTER, struct.pack("<QQI", self.whole, 0, 0)) + _MAGIC


@lru_cache(maxsize=16)  # a replay opens a bag several times
def _survey(path: Path, _size: int, _modified_ns: int) -> _Survey:
    with path.open("rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # an empty file
            return _Survey()
    with data:
        return _walk(data)


def _walk(data: mmap.mmap) -> _Survey:
    survey = _Survey()
    outside: dict[tuple[int, int], bytes] = {}
    known = len(_MAGIC)  # up to here all is known to be whole
    offset: int | None = known
    ended = False
    while offset is not None:
        opcode, length = _head(data, offset)
        end = offset + 9 + length
        if opcode == _CHUNK:
            chunk = _chunk(data, offset, length)
            if chunk is None:
                offset = _next_chunk(data, offset + 1)
                continue
            survey.chunks.append(chunk)
            survey.kinds.update(chunk.kinds)
            survey.whole = known = end
        elif opcode == _NOTHING:
            # A wrong length may have led here, past chunks that are whole.
            offset = _next_chunk(data, known)
            known = offset or known
            continue
        elif opcode == _FOOTER:
            break
        elif opcode in {_SCHEMA, _CHANNEL} and length >= 2:
            content = data[offset + 9 : end]
            outside[opcode, struct.unpack_from("<H", content)[0]] = content
        ended = ended or opcode == _DATA_END
        if not ended:
            survey.messages += opcode == _MESSAGE
            if not survey.chunks:
                survey.whole = end
        offset = end
    # Nothing vouches for what lies outside of chunks, so it only fills gaps.
    survey.kinds = {**outside, **survey.kinds}
    return survey


def _head(data: mmap.mmap, offset: int) -> tuple[int, int]:
    """Opcode and length of a record; _NOTHING for what can be none."""
    if offset + 9 > len(data):
        return _NOTHING, 0
    opcode, length = struct.unpack_from("<BQ", data, offset)
    known = 0 < opcode <= _LAST_KNOWN or opcode >= _PRIVATE
    return (opcode, length) if known and offset + 9 + length <= len(data) else (_NOTHING, 0)


def _next_chunk(data: mmap.mmap, start: int) -> int | None:
    while found := _CHUNK_START.search(data, start):
        opcode, length = _head(data, found.start())
        if opcode == _CHUNK and _chunk(data, found.start(), length) is not None:
            return found.start()
        start = found.start() + 1
    return None


def _chunk(data: mmap.mmap, offset: int, length: int) -> _Chunk | None:
    """A chunk; None unless it is whole."""
    place, end = offset + 9, offset + 9 + length
    try:
        _, _, uncompressed, crc, name_length = _CHUNK_HEAD.unpack_from(data, place)
        place += _CHUNK_HEAD.size
        compression = data[place : place + name_length]
        (compressed,) = struct.unpack_from("<Q", data, place + name_length)
        place += name_length + 8
        if place + compressed != end:
            return None
        content = _decompress(compression, data[place:end])
        if len(content) != uncompressed or (crc and crc32(content) != crc):
            return None
        chunk = _Chunk(offset, 9 + length, uncompressed, compressed, compression)
        for opcode, record in _records(content):
            if opcode == _MESSAGE:
                channel, _, log_time = struct.unpack_from("<HIQ", record)
                chunk.counts[channel] += 1
                chunk.start, chunk.end = min(chunk.start, log_time), max(chunk.end, log_time)
            elif opcode in {_SCHEMA, _CHANNEL}:
                chunk.kinds[opcode, struct.unpack_from("<H", record)[0]] = bytes(record)
    except Exception:  # noqa: BLE001 (damage shows in any way there is)
        return None
    if not chunk.counts:
        chunk.start = 0
    return chunk


def _records(content: bytes) -> Iterator[tuple[int, memoryview]]:
    view, offset = memoryview(content), 0
    while offset < len(content):
        if offset + 9 > len(content):
            raise ValueError("a record is cut")
        opcode, length = struct.unpack_from("<BQ", content, offset)
        offset += 9
        if offset + length > len(content):
            raise ValueError("a record is cut")
        yield opcode, view[offset : offset + length]
        offset += length


def _decompress(compression: bytes, data: bytes) -> bytes:
    if compression == b"":
        return data
    if compression == b"lz4":
        import lz4.frame  # noqa: PLC0415 (few bags need it)

        return bytes(lz4.frame.decompress(data))
    if compression == b"zstd":
        return bytes(_zstd().decompress(data))
    raise ValueError(f"unknown compression {compression!r}")


@lru_cache
def _zstd() -> Any:
    """The library of it: rosbags brings one, which one depends on its version and Python's."""
    for name in ("compression.zstd", "backports.zstd", "zstandard"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise ImportError("no library for zstd")


def _text(text: str) -> bytes:
    return struct.pack("<I", len(text)) + text.encode()


def _record(opcode: int, content: bytes) -> bytes:
    return struct.pack("<BQ", opcode, len(content)) + content
