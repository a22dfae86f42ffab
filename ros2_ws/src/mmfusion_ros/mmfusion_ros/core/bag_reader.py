"""Frames out of a recorded bag, in the order in which they were recorded."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmfusion_ros.core.bag_sources import BagSources, Entry, one_line, open_sources
from mmfusion_ros.core.bag_topics import Look, Topic, base_name, choose_topics
from mmfusion_ros.core.camera_info import CAMERA_INFO, CameraInfo
from mmfusion_ros.core.errors import BagError
from mmfusion_ros.core.frames import Frame, Modality
from mmfusion_ros.core.message_frames import frame_of


@dataclass(frozen=True)
class Bag:
    """A bag with its cameras found; nothing stays open.

    Attributes:
        path: folder or file.
        topics: by camera.
        start_ns, duration_ns: of its log times.
        first: first frame of each camera that can be read.
        damaged: what is known to be wrong with the bag's files before reading on.
        guesses: why a topic was taken for a camera, where its name does not tell.
        range_ns: log times to read, the second one excluded; None for the whole bag.
    """

    path: Path
    topics: Mapping[Modality, Topic]
    start_ns: int
    duration_ns: int
    first: Mapping[Modality, Frame]
    damaged: str | None
    guesses: Mapping[Modality, str] = field(default_factory=dict)
    range_ns: tuple[int, int] | None = None


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
        problem: why there is no frame, or why a part of the bag is not read.
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
        error: what is damaged, so that not all of the bag was read; None if nothing is.
    """

    skipped: Counter[str] = field(default_factory=Counter)
    restamped: Counter[Modality] = field(default_factory=Counter)
    error: str | None = None

    def frames(self, recorded: Iterable[Recorded]) -> Iterator[tuple[Frame, int]]:
        """The frames and their log times, everything else counted as it is come to."""
        for entry in recorded:
            if entry.modality is None:
                self.error = "; ".join(filter(None, (self.error, entry.problem)))
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
    with open_sources(path) as files:
        found = [
            Topic(channel.topic, _full_type(channel.msgtype), channel.count)
            for channel in files.channels()
        ]
        if not any(topic.count for topic in found):
            raise BagError(f"{path} holds no messages")
        duration_ns = max(0, files.end_ns - files.start_ns)

        def look_at(topic: Topic) -> Look:
            frame = _first_frame(files, topic, Modality.RGB)
            return Look.at(None if frame is None else frame.image, topic, duration_ns)

        choice = choose_topics(found, topics or {}, without, look_at)
        firsts = {key: _first_frame(files, topic, key) for key, topic in choice.topics.items()}
        return Bag(
            path=path,
            topics=choice.topics,
            start_ns=files.start_ns,
            duration_ns=duration_ns,
            first={key: frame for key, frame in firsts.items() if frame is not None},
            damaged="; ".join(files.problems) or None,
            guesses=choice.guesses,
        )


def read_bag(bag: Bag) -> Generator[Recorded, None, None]:
    """Iterate over what a bag's cameras recorded, in the order of the log times.

    Never raises for what the bag holds: damage is gone around where the format allows, else it
    is an end, and an entry says so. Opens files of its own, so any one thread may iterate.
    """
    modalities = {topic.name: modality for modality, topic in bag.topics.items()}
    start, stop = bag.range_ns or (None, None)
    try:
        with open_sources(bag.path) as files:
            for problem in files.problems:
                yield Recorded(problem=problem)
            for entry in files.entries(modalities.keys(), start, stop):
                if entry.data is None:
                    yield Recorded(problem=entry.problem)
                else:
                    yield _recorded(entry, modalities[entry.topic])
    except Exception as error:  # noqa: BLE001 (a damaged file fails in any way there is)
        yield Recorded(problem=f"the bag is damaged, read up to there: {one_line(error)}")


def read_frames(bag: Bag, report: ReadingReport) -> Iterator[tuple[Frame, int]]:
    """Iterate over the frames of a bag's cameras and their log times; see `read_bag`."""
    return report.frames(read_bag(bag))


def rgb_stamps(bag: Bag) -> list[int | None]:
    """Stamps of all RGB messages of a bag, in order; None for a message that is no image.

    As `read_bag` gives them: where a message has no stamp, its log time.
    """
    rgb = {Modality.RGB: bag.topics[Modality.RGB]}
    alone = dataclasses.replace(bag, topics=rgb, range_ns=None)
    return [
        None if entry.frame is None else entry.frame.stamp_ns
        for entry in read_bag(alone)
        if entry.modality is not None
    ]


def camera_info_beside(bag: Bag, modality: Modality) -> CameraInfo | None:
    """First ``sensor_msgs/CameraInfo`` beside a camera's images; None if there is none to read."""
    name = f"{base_name(bag.topics[modality].name).rpartition('/')[0]}/camera_info"
    with open_sources(bag.path) as files:
        for entry in files.entries({name}):
            if entry.data is None or _full_type(entry.msgtype) != CAMERA_INFO:
                continue
            try:
                return CameraInfo.told_by(entry.source.deserialize(entry.data, CAMERA_INFO))
            except Exception:  # noqa: BLE001 (bytes that are no message fail in any way there is)
                return None
    return None


def _first_frame(files: BagSources, topic: Topic, modality: Modality) -> Frame | None:
    # What is wrong on the way is met again and reported when the bag is read in earnest.
    for entry in files.entries({topic.name}):
        frame = None if entry.data is None else _recorded(entry, modality).frame
        if frame is not None:
            return frame
    return None


def _recorded(entry: Entry, modality: Modality) -> Recorded:
    msgtype, log_time = _full_type(entry.msgtype), entry.log_time_ns
    try:
        message: Any = entry.source.deserialize(entry.data or b"", msgtype)
        frame = frame_of(message, modality)
    except Exception:  # noqa: BLE001 (bytes that are no message fail in any way there is)
        problem = f"the bytes of a message are no {msgtype}"
        return Recorded(modality, log_time, problem=problem)
    if frame.stamp_ns:
        return Recorded(modality, log_time, frame)
    stamped = dataclasses.replace(frame, stamp_ns=log_time)
    return Recorded(modality, log_time, stamped, restamped=True)


def _full_type(name: str) -> str:
    # The first ROS 2 distributions left the middle out.
    package, _, message = name.partition("/")
    return name if "/" in message else f"{package}/msg/{message}"
