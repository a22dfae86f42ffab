"""The files of a bag, each read as far as it goes: one that is damaged does not stop the others."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, NamedTuple, Protocol

import yaml
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from mmfusion_ros.core.errors import BagError
from mmfusion_ros.core.mcap_repair import is_complete, repaired_mcap
from mmfusion_ros.core.ros1_repair import repaired_ros1_bag

STORAGES = (".mcap", ".db3", ".bag")


@dataclass(frozen=True)
class Channel:
    """A topic in one file."""

    topic: str
    msgtype: str
    count: int


class Entry(NamedTuple):
    """A message, or something wrong met on the way.

    Attributes:
        log_time_ns: when it was recorded; of a problem, that of the message before it.
        topic, msgtype: empty for a problem with the file as a whole.
        data: None for a problem.
        problem: empty for a message.
        source: that can deserialise it.
    """

    log_time_ns: int
    topic: str
    msgtype: str
    data: bytes | None
    problem: str
    source: BagSource


class BagSource(Protocol):
    """One file, or what can be read of it.

    Attributes:
        start_ns, end_ns: of the log times; the end lies behind the last message.
    """

    start_ns: int
    end_ns: int

    def channels(self) -> list[Channel]:
        """The topics in it."""

    def entries(
        self, topics: Collection[str], start: int | None, stop: int | None
    ) -> Iterator[Entry]:
        """Messages of some topics in the order of their log times.

        Args:
            topics: names.
            start: messages at or after this log time.
            stop: messages before it.
        """

    def deserialize(self, data: bytes, msgtype: str) -> Any:
        """A message out of its bytes; raises whatever they cause."""

    def close(self) -> None:
        """Close the file."""


@dataclass
class BagSources:
    """The files of a bag, open.

    Attributes:
        sources: those that can be read.
        problems: what is known to be wrong with the others, and with these.
    """

    sources: list[BagSource]
    problems: list[str]

    @property
    def start_ns(self) -> int:
        """First log time."""
        return min(source.start_ns for source in self.sources)

    @property
    def end_ns(self) -> int:
        """After the last log time."""
        return max(source.end_ns for source in self.sources)

    def channels(self) -> list[Channel]:
        """The topics of all files, counts added up; the type of the first where they differ."""
        counts: Counter[str] = Counter()
        types: dict[str, dict[str, None]] = {}
        for source in self.sources:
            for channel in source.channels():
                counts[channel.topic] += channel.count
                types.setdefault(channel.topic, {})[channel.msgtype] = None
        return [
            Channel(topic, next(iter(found)) if len(found) == 1 else "several types", counts[topic])
            for topic, found in sorted(types.items())
        ]

    def entries(
        self, topics: Collection[str], start: int | None = None, stop: int | None = None
    ) -> Iterator[Entry]:
        """Messages of some topics of all files in the order of their log times."""
        parts = [source.entries(topics, start, stop) for source in self.sources]
        return heapq.merge(*parts, key=lambda entry: entry.log_time_ns)


@contextmanager
def open_sources(path: Path) -> Iterator[BagSources]:
    """Open a bag.

    Args:
        path: folder of a ROS 2 bag, or one of its .mcap or .db3 files, or a ROS 1 .bag file.

    Raises:
        BagError: if there is no bag, or nothing of it can be read.
    """
    paths, problems = _files(path)
    sources: list[BagSource] = []
    reasons = []
    try:
        for file in paths:
            try:
                source, problem = _open(file)
            except BagError as error:
                reasons.append(str(error))
                continue
            sources.append(source)
            problems += [problem] if problem else []
        if not sources:
            raise BagError(f"{path} cannot be read: {'; '.join(reasons)}")
        problems += [f"{reason}; left out" for reason in reasons]
        yield BagSources(sources, problems)
    finally:
        for source in sources:
            source.close()


def one_line(error: BaseException) -> str:
    """What an error says, without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


class _Readable:
    """What rosbags reads. Where it fails on the way, a repaired file takes over."""

    def __init__(self, path: Any, repairable: Path | None) -> None:
        """Open.

        Args:
            path: of a file or folder, or a stand-in for one.
            repairable: the file to repair when reading fails; None for none.
        """
        self._name = PurePath(str(path)).name
        self._repairable = repairable
        self._successor: BagSource | None = None
        self._reader = AnyReader([path], default_typestore=get_typestore(Stores.LATEST))
        self._reader.open()
        self.start_ns, self.end_ns = self._reader.start_time, self._reader.end_time

    def channels(self) -> list[Channel]:
        """See `BagSource.channels`."""
        return [
            Channel(name, info.msgtype or "several types", info.msgcount)
            for name, info in self._reader.topics.items()
        ]

    def entries(
        self, topics: Collection[str], start: int | None, stop: int | None
    ) -> Iterator[Entry]:
        """See `BagSource.entries`."""
        connections = [c for c in self._reader.connections if c.topic in topics]
        if not connections:  # without any, rosbags gives all
            return
        last, told = start or 0, Counter[str]()
        try:
            for connection, log_time, data in self._reader.messages(connections, start, stop):
                if log_time != last:
                    last, told = log_time, Counter()
                told[connection.topic] += 1
                yield Entry(log_time, connection.topic, connection.msgtype, data, "", self)
        except Exception as error:  # noqa: BLE001 (a damaged file fails in any way there is)
            problem = f"{self._name} is damaged ({one_line(error)})"
            yield from self._go_on(topics, last, stop, told, problem)

    def deserialize(self, data: bytes, msgtype: str) -> Any:
        """See `BagSource.deserialize`."""
        return self._reader.deserialize(data, msgtype)

    def close(self) -> None:
        """See `BagSource.close`."""
        if self._successor is not None:
            self._successor.close()
        self._reader.close()

    def _go_on(
        self,
        topics: Collection[str],
        start: int,
        stop: int | None,
        told: Counter[str],
        problem: str,
    ) -> Iterator[Entry]:
        """Read on behind the damage; what was read at the last log time is not given again."""
        if self._successor is None and self._repairable is not None:
            try:
                self._successor = _repaired(self._repairable)
            except Exception as error:  # noqa: BLE001 (as above)
                problem += f" and cannot be repaired ({one_line(error)})"
        if self._successor is None:
            yield Entry(start, "", "", None, f"{problem}; read up to there", self)
            return
        yield Entry(start, "", "", None, f"{problem}; what is whole is used", self)
        left = Counter(told)
        for entry in self._successor.entries(topics, start, stop):
            if entry.log_time_ns == start and left[entry.topic]:
                left[entry.topic] -= 1
                continue
            yield entry


class _Salvaged:
    """An SQLite bag whose database is damaged."""

    def __init__(self, path: Path) -> None:
        from mmfusion_ros.core.sqlite_salvage import SalvagedBag  # noqa: PLC0415 (rarely needed)

        self._name = path.name
        self._bag = SalvagedBag(path)
        self._store = self._bag.typestore()
        self.start_ns, self.end_ns = self._bag.start_ns, self._bag.end_ns

    def channels(self) -> list[Channel]:
        """See `BagSource.channels`."""
        return [
            Channel(name, msgtype, self._bag.count(number))
            for number, (name, msgtype) in self._bag.topics.items()
        ]

    def entries(
        self, topics: Collection[str], start: int | None, stop: int | None
    ) -> Iterator[Entry]:
        """See `BagSource.entries`."""
        wanted = {number for number, (name, _) in self._bag.topics.items() if name in topics}
        for number, log_time, data in self._bag.messages(wanted, start, stop):
            name, msgtype = self._bag.topics[number]
            # Bytes that cannot be read are counted with those that are no message.
            yield Entry(log_time, name, msgtype, b"" if data is None else data, "", self)

    def deserialize(self, data: bytes, msgtype: str) -> Any:
        """See `BagSource.deserialize`."""
        return self._store.deserialize_cdr(data, msgtype)

    def close(self) -> None:
        """See `BagSource.close`."""
        self._bag.close()


def _open(path: Path) -> tuple[BagSource, str | None]:
    """A file, repaired where it must be, and what is wrong with it then."""
    if path.is_dir():
        try:
            return _Readable(path, None), None
        except Exception as error:  # its exceptions share no other base
            raise BagError(one_line(error)) from error
    if not path.stat().st_size:
        raise BagError(f"{path.name} is empty")
    problem = f"{path.name} ends early, as after a crash or a full disk; what is whole is used"
    if path.suffix != ".mcap" or is_complete(path):
        try:
            source: BagSource = _Readable(path, path)
            waiting = path.with_name(f"{path.name}-wal")
            if path.suffix == ".db3" and waiting.is_file() and waiting.stat().st_size:
                return source, (
                    f"{waiting.name} holds messages that are not in the file yet; open and close "
                    "it once with sqlite3 to have them in it"
                )
            return source, None
        except Exception as error:  # noqa: BLE001 (as above)
            problem = f"{path.name} is damaged ({one_line(error)}); what is whole is used"
    try:
        return _repaired(path), problem
    except Exception as error:  # as above
        raise BagError(f"{problem.partition(';')[0]}, and {one_line(error)}") from error


def _repaired(path: Path) -> BagSource:
    if path.suffix == ".db3":
        return _Salvaged(path)
    return _Readable(
        repaired_mcap(path) if path.suffix == ".mcap" else repaired_ros1_bag(path), None
    )


def _files(path: Path) -> tuple[list[Path], list[str]]:
    """What to open one by one, and what is wrong so far."""
    if not path.exists():
        raise BagError(
            f"there is no bag at {path}; expected a folder, or a .mcap, .db3 or .bag file"
        )
    if path.is_file():
        if path.suffix not in STORAGES:
            raise BagError(f"{path} is no bag; expected a folder, or a .mcap, .db3 or .bag file")
        return [path], []
    found = sorted(file for file in path.iterdir() if file.suffix in STORAGES)
    listing = path / "metadata.yaml"
    if not listing.is_file():
        if found:
            return found, []
        raise BagError(f"{path} is no bag: it holds neither metadata.yaml nor .mcap or .db3 files")
    try:
        told = yaml.safe_load(listing.read_bytes())["rosbag2_bagfile_information"]
        compressed = str(told.get("compression_mode") or "none").lower() != "none"
        names = [PurePath(name).name for name in told["relative_file_paths"]]
    except Exception as error:
        if found:
            return found, [f"metadata.yaml is damaged ({one_line(error)[:120]}) and not used"]
        raise BagError(
            f"{path}/metadata.yaml is damaged ({one_line(error)[:120]}), and the folder holds "
            "neither .mcap nor .db3 files"
        ) from error
    if compressed:  # only rosbags knows how, and the whole folder at once
        return [path], []
    missing = [name for name in names if not (path / name).is_file()]
    problems = [f"{name}, which metadata.yaml lists, is missing" for name in missing]
    present: Sequence[Path] = [path / name for name in names if name not in missing]
    if not present:
        raise BagError(f"{path} cannot be read: {'; '.join(problems) or 'it lists no files'}")
    return list(present), problems
