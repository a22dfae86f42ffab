"""Reads what is left of a ROS 1 bag: one that was not closed, or with damage in the middle.

`repaired_ros1_bag` looks to rosbags like the same file with a fresh index of all chunks that are
whole. Nothing is copied or changed on disk. ROS 1 bags have no checksums: a chunk counts as whole
if all its records can be followed.
"""

from __future__ import annotations

import bz2
import mmap
import re
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from mmfusion_ros.core.errors import BagError
from mmfusion_ros.core.patched_file import RepairedPath

_MAGIC = b"#ROSBAG V2.0\n"
_MESSAGE, _BAG_HEADER, _INDEX, _CHUNK, _CHUNK_INFO, _CONNECTION = 2, 3, 4, 5, 6, 7
_BAG_HEADER_SIZE = 4096  # with padding, by the format
_CHUNK_FIELD = re.compile(rb"\x04\0{3}op=\x05", re.DOTALL)
_CHUNK_HEADER_SIZE = 80  # what the fields of a chunk's header take at most, with room to spare

Header = Mapping[bytes, bytes]


def repaired_ros1_bag(path: Path) -> RepairedPath:
    """What rosbags can read in place of a damaged bag; reads all of it once.

    Raises:
        BagError: if nothing in it can be read.
    """
    status = path.stat()
    survey = _survey(path, status.st_size, status.st_mtime_ns)
    if not survey.chunks:
        raise BagError(f"{path.name} holds no message that can be read")
    return RepairedPath(path, survey.whole, survey.beginning(), survey.ending())


@dataclass
class _Chunk:
    """What the index says about a chunk, by what is in it; log times as two numbers."""

    offset: int
    start: tuple[int, int] = (2**32 - 1, 0)
    end: tuple[int, int] = (0, 0)
    counts: Counter[int] = field(default_factory=Counter)  # messages by connection
    connections: dict[int, bytes] = field(default_factory=dict)  # whole records

    def info(self) -> bytes:
        fields = {
            b"ver": struct.pack("<I", 1),
            b"chunk_pos": struct.pack("<Q", self.offset),
            b"start_time": struct.pack("<II", *self.start),
            b"end_time": struct.pack("<II", *self.end),
            b"count": struct.pack("<I", len(self.counts)),
            b"op": bytes([_CHUNK_INFO]),
        }
        counts = b"".join(struct.pack("<II", *item) for item in sorted(self.counts.items()))
        return _record(fields, counts)


@dataclass
class _Survey:
    chunks: list[_Chunk] = field(default_factory=list)
    connections: dict[int, bytes] = field(default_factory=dict)
    whole: int = 0

    def beginning(self) -> bytes:
        fields = {
            b"op": bytes([_BAG_HEADER]),
            b"index_pos": struct.pack("<Q", self.whole),
            b"conn_count": struct.pack("<I", len(self.connections)),
            b"chunk_count": struct.pack("<I", len(self.chunks)),
        }
        return _MAGIC + _record(fields, b"")

    def ending(self) -> bytes:
        known = (self.connections[key] for key in sorted(self.connections))
        return b"".join([*known, *(chunk.info() for chunk in self.chunks)])


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
    outside: dict[int, bytes] = {}
    offset: int | None = len(_MAGIC)
    known = min(len(_MAGIC) + _BAG_HEADER_SIZE, len(data))  # up to here nothing is looked for
    while offset is not None and offset < len(data):
        try:
            header, content, end = _parse(data, offset)
            operation = header[b"op"][0]
        except (ValueError, struct.error, LookupError):
            offset = _next_chunk(data, known)
            known = offset + 1 if offset is not None else known
            continue
        if operation == _CHUNK:
            chunk, after = _chunk(data, offset)
            if chunk is None:
                offset = _next_chunk(data, offset + 1)
                continue
            survey.chunks.append(chunk)
            survey.connections.update(chunk.connections)
            survey.whole = known = end = after
        elif operation == _CONNECTION:
            outside[_integer(header, b"conn")] = data[offset:end]
        elif operation not in {_BAG_HEADER, _INDEX, _CHUNK_INFO}:
            offset = _next_chunk(data, known)
            continue
        del content
        offset = end
    survey.connections = {**outside, **survey.connections}
    wanted = {key for chunk in survey.chunks for key in chunk.counts}
    # A message whose connection is nowhere told cannot be read.
    survey.chunks = [c for c in survey.chunks if c.counts.keys() <= survey.connections.keys()]
    survey.connections = {k: v for k, v in survey.connections.items() if k in wanted}
    return survey


def _next_chunk(data: mmap.mmap, start: int) -> int | None:
    while found := _CHUNK_FIELD.search(data, start):
        # The field may be any of the header's: it begins at most that far in front of it.
        for offset in range(found.start() - 4, found.start() - _CHUNK_HEADER_SIZE, -1):
            if offset >= len(_MAGIC) and _chunk(data, offset)[0] is not None:
                return offset
        start = found.start() + 1
    return None


def _chunk(data: mmap.mmap, offset: int) -> tuple[_Chunk | None, int]:
    """A chunk and where its indexes end; None unless all is whole."""
    try:
        header, content, end = _parse(data, offset)
        if header[b"op"] != bytes([_CHUNK]):
            return None, 0
        body = _decompress(header[b"compression"], content)
        if len(body) != _integer(header, b"size"):
            return None, 0
        chunk = _filled(_Chunk(offset), body)
        indexed: Counter[int] = Counter()
        while indexed != chunk.counts:
            index, _, after = _parse(data, end)
            if index[b"op"] != bytes([_INDEX]):
                return None, 0
            indexed[_integer(index, b"conn")] += _integer(index, b"count")
            end = after
    except Exception:  # noqa: BLE001 (damage shows in any way there is)
        return None, 0
    return (chunk, end) if chunk.counts else (None, 0)


def _filled(chunk: _Chunk, body: bytes) -> _Chunk:
    offset = 0
    while offset < len(body):
        header, _, end = _parse(body, offset)
        operation = header[b"op"][0]
        if operation == _CONNECTION:
            chunk.connections[_integer(header, b"conn")] = body[offset:end]
        elif operation == _MESSAGE:
            chunk.counts[_integer(header, b"conn")] += 1
            seconds, nanoseconds = struct.unpack("<II", header[b"time"])
            chunk.start = min(chunk.start, (seconds, nanoseconds))
            chunk.end = max(chunk.end, (seconds, nanoseconds))
        else:
            raise ValueError(f"a record of type {operation} in a chunk")
        offset = end
    return chunk


def _parse(data: bytes | mmap.mmap, offset: int) -> tuple[Header, bytes, int]:
    """Header, content and end of a record."""
    start, size = offset + 4, _length(data, offset)
    header = dict(_fields(data[start : start + size]))
    content, length = start + size + 4, _length(data, start + size)
    return header, data[content : content + length], content + length


def _length(data: bytes | mmap.mmap, offset: int) -> int:
    (length,) = struct.unpack_from("<I", data, offset)
    if offset + 4 + length > len(data):
        raise ValueError("a record is cut")
    return int(length)


def _fields(header: bytes) -> Iterator[tuple[bytes, bytes]]:
    offset = 0
    while offset < len(header):
        length = _length(header, offset)
        name, separator, value = header[offset + 4 : offset + 4 + length].partition(b"=")
        if not separator:
            raise ValueError("a field without a value")
        yield name, value
        offset += 4 + length


def _integer(header: Header, name: bytes) -> int:
    return int.from_bytes(header[name], "little")


def _decompress(compression: bytes, data: bytes) -> bytes:
    if compression == b"none":
        return data
    if compression == b"bz2":
        return bz2.decompress(data)
    if compression == b"lz4":
        import lz4.frame  # noqa: PLC0415 (few bags need it)

        return bytes(lz4.frame.decompress(data))
    raise ValueError(f"unknown compression {compression!r}")


def _record(fields: Header, content: bytes) -> bytes:
    header = b"".join(
        struct.pack("<I", len(name) + 1 + len(value)) + name + b"=" + value
        for name, value in fields.items()
    )
    return struct.pack("<I", len(header)) + header + struct.pack("<I", len(content)) + content
