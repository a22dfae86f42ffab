"""Frames out of a recorded bag, in the order in which they were recorded."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection
from rosbags.typesys import Stores, get_typestore

from mmfusion_ros.core.bag_topics import Topic, choose_topics
from mmfusion_ros.core.errors import BagError
from mmfusion_ros.core.frames import Frame, Modality
from mmfusion_ros.core.mcap_repair import RepairedMcap, is_complete
from mmfusion_ros.core.message_frames import frame_of

CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
_STORAGES = (".mcap", ".db3", ".bag")


@dataclass(frozen=True)
class Bag:
    """A bag with its cameras found; nothing stays open.

    Attributes:
        path: folder or file.
        topics: by camera.
        start_ns, duration_ns: of its log times.
        first: first frame of each camera that can be read.
        damaged: what is known to be wrong with the bag's files before reading on.
    """

    path: Path
    topics: Mapping[Modality, Topic]
    start_ns: int
    duration_ns: int
    first: Mapping[Modality, Frame]
    damaged: str | None


@dataclass(frozen=True, eq=False)
class Recorded:
    """One thing met while a bag is read.

    What is wrong travels with the frames rather than being counted where they are read: how far
    a thread reads ahead is chance, what its consumer takes is not.

    Attributes:
        modality: whose message; None if it concerns the bag as a whole.
        log_time_ns: when the message was recorded.
        frame: its frame; None if it holds none.
        restamped: whether the frame had no stamp and got its log time instead.
        problem: why there is no frame, or why reading ends before the end of the bag.
    """

    modality: Modality | None = None
    log_time_ns: int = 0
    frame: Frame | None = None
    restamped: bool = False
    problem: str = ""


@dataclass
class ReadingReport:
    """What was wrong with the part of a bag that was used.

    Attributes:
        skipped: messages that are no images, by "modality: reason".
        restamped: frames without a stamp, which got their log time instead.
        error: why reading ended before the end of the bag; None if it did not.
    """

    skipped: Counter[str] = field(default_factory=Counter)
    restamped: Counter[Modality] = field(default_factory=Counter)
    error: str | None = None

    def frames(self, recorded: Iterable[Recorded]) -> Iterator[tuple[Frame, int]]:
        """The frames and their log times, everything else counted as it is come to."""
        for entry in recorded:
            if entry.modality is None:
                self.error = entry.problem
            elif entry.frame is None:
                self.skipped[f"{entry.modality}: {entry.problem}"] += 1
            else:
                self.restamped.update([entry.modality] * entry.restamped)
                yield entry.frame, entry.log_time_ns


def open_bag(
    path: Path,
    topics: Mapping[Modality, str] | None = None,
    without: frozenset[Modality] = frozenset(),
) -> Bag:
    """Look into a bag and find its cameras.

    Args:
        path: folder of a ROS 2 bag, or one of its .mcap or .db3 files, or a ROS 1 .bag file.
        topics: topics of the cameras, where they are known.
        without: cameras to do without.

    Raises:
        BagError: if there is no bag, it cannot be read at all, or its cameras are not clear.
    """
    path = Path(path)
    with _reader(path) as (reader, damaged):
        found = [
            Topic(name, _full_type(info.msgtype or "several types"), info.msgcount)
            for name, info in reader.topics.items()
        ]
        if not any(topic.count for topic in found):
            raise BagError(f"{path} holds no messages")

        def encoding_of(topic: Topic) -> str | None:
            frame = _first_frame(reader, topic, Modality.RGB)
            return frame.image.encoding if frame else None

        chosen = choose_topics(found, topics or {}, without, encoding_of)
        firsts = {key: _first_frame(reader, topic, key) for key, topic in chosen.items()}
        return Bag(
            path=path,
            topics=chosen,
            start_ns=reader.start_time,
            duration_ns=reader.duration,
            first={key: frame for key, frame in firsts.items() if frame is not None},
            damaged=damaged,
        )


def read_bag(bag: Bag) -> Generator[Recorded, None, None]:
    """Iterate over what a bag's cameras recorded, in the order of the log times.

    Never raises for what the bag holds: a damaged end is an end, and an entry says so.
    Opens files of its own, so any one thread may iterate.
    """
    try:
        with _reader(bag.path) as (reader, damaged):
            if damaged:
                yield Recorded(problem=damaged)
            modalities = {topic.name: modality for modality, topic in bag.topics.items()}
            connections = [c for c in reader.connections if c.topic in modalities]
            for connection, log_time, data in reader.messages(connections):
                yield _recorded(reader, connection, data, modalities[connection.topic], log_time)
    except Exception as error:  # noqa: BLE001 (a damaged file fails in any way there is)
        problem = f"the bag is damaged, read up to there: {_one_line(error)}"
        yield Recorded(problem=problem)


def read_frames(bag: Bag, report: ReadingReport) -> Iterator[tuple[Frame, int]]:
    """Iterate over the frames of a bag's cameras and their log times; see `read_bag`."""
    return report.frames(read_bag(bag))


def rgb_stamps(bag: Bag) -> list[int | None]:
    """Stamps of all RGB messages of a bag, in order; None for a message that is no image.

    As `read_bag` gives them: where a message has no stamp, its log time.
    """
    alone = dataclasses.replace(bag, topics={Modality.RGB: bag.topics[Modality.RGB]})
    return [
        None if entry.frame is None else entry.frame.stamp_ns
        for entry in read_bag(alone)
        if entry.modality is not None
    ]


def rgb_camera_info(bag: Bag) -> Any | None:
    """First ``sensor_msgs/CameraInfo`` beside the RGB images; None if there is none to read."""
    folder = bag.topics[Modality.RGB].name.removesuffix("/compressed").rpartition("/")[0]
    with _reader(bag.path) as (reader, _):
        connections = [
            connection
            for connection in reader.connections
            if connection.topic == f"{folder}/camera_info"
            and _full_type(connection.msgtype) == CAMERA_INFO
        ]
        try:
            # Without connections rosbags would give all messages of the bag.
            first = next(reader.messages(connections), None) if connections else None
            return None if first is None else reader.deserialize(first[2], CAMERA_INFO)
        except Exception:  # noqa: BLE001 (a damaged file fails in any way there is)
            return None


@contextmanager
def _reader(path: Path) -> Iterator[tuple[AnyReader, str | None]]:
    sources, damaged = _sources(path)
    try:
        reader = AnyReader(sources, default_typestore=get_typestore(Stores.LATEST))
        reader.open()
    except Exception as error:  # its exceptions share no other base
        raise BagError(f"{path} cannot be read: {_one_line(error)}") from error
    try:
        yield reader, damaged
    finally:
        reader.close()


def _sources(path: Path) -> tuple[list[Any], str | None]:
    """What to open: the bag, or its files one by one where it was not closed cleanly."""
    if not path.exists():
        raise BagError(f"there is no bag at {path}; expected a folder, or a .mcap or .db3 file")
    if path.is_file():
        if path.suffix not in _STORAGES:
            raise BagError(f"{path} is no bag; expected a folder, or a .mcap or .db3 file")
        files = [path]
    else:
        files = sorted(file for file in path.iterdir() if file.suffix in _STORAGES)
        if not files and not (path / "metadata.yaml").is_file():
            raise BagError(
                f"{path} is no bag: it holds neither metadata.yaml nor .mcap or .db3 files"
            )
    broken = [file for file in files if file.suffix == ".mcap" and not is_complete(file)]
    if broken:
        sources = [RepairedMcap(file) if file in broken else file for file in files]
        names = ", ".join(file.name for file in broken)
        return sources, f"{names} ends early, as after a crash or a full disk; read up to there"
    if path.is_dir() and (path / "metadata.yaml").is_file():
        return [path], None
    return list(files), None


def _first_frame(reader: AnyReader, topic: Topic, modality: Modality) -> Frame | None:
    connections = [c for c in reader.connections if c.topic == topic.name]
    try:
        for connection, log_time, data in reader.messages(connections):
            frame = _recorded(reader, connection, data, modality, log_time).frame
            if frame is not None:
                return frame
    except Exception:  # noqa: BLE001 (reading in earnest will meet it again and report it)
        return None
    return None


def _recorded(
    reader: AnyReader, connection: Connection, data: bytes, modality: Modality, log_time: int
) -> Recorded:
    msgtype = _full_type(connection.msgtype)
    try:
        message: Any = reader.deserialize(data, msgtype)
    except Exception:  # noqa: BLE001 (bytes that are no message fail in any way there is)
        problem = f"the bytes of a message are no {msgtype}"
        return Recorded(modality, log_time, problem=problem)
    frame = frame_of(message, modality)
    if frame.stamp_ns:
        return Recorded(modality, log_time, frame)
    stamped = dataclasses.replace(frame, stamp_ns=log_time)
    return Recorded(modality, log_time, stamped, restamped=True)


def _full_type(name: str) -> str:
    # The first ROS 2 distributions left the middle out.
    package, _, message = name.partition("/")
    return name if "/" in message else f"{package}/msg/{message}"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
