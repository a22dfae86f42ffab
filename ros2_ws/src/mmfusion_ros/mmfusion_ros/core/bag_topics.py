"""Which topic of a bag is which camera."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mmfusion_ros.core.errors import BagError, ImageError
from mmfusion_ros.core.frames import Modality, SourceImage
from mmfusion_ros.core.images import decode
from mmfusion_ros.core.transports import RAW, TRANSPORTS

RAW_TYPE = "sensor_msgs/msg/Image"
COMPRESSED_TYPE = "sensor_msgs/msg/CompressedImage"

# Transports of one picture, the better one first.
_TRANSPORTS = ("", *(f"/{transport}" for transport in TRANSPORTS if transport != RAW))
# Looked for in this order: /aligned_depth_to_color is depth, /thermal/visible_range thermal.
_NAMES: dict[Modality, re.Pattern[str]] = {
    Modality.DEPTH: re.compile(r"depth"),
    Modality.THERMAL: re.compile(r"thermal|infrared|lwir|flir|(?<![a-z])ir(?![a-z])"),
    Modality.RGB: re.compile(r"rgb|colou?r|visible"),
}
# What an encoding tells where the name tells nothing.
_TELLING: dict[str, Modality] = {
    "rgb8": Modality.RGB,
    "bgr8": Modality.RGB,
    "rgba8": Modality.RGB,
    "bgra8": Modality.RGB,
    "16UC1": Modality.DEPTH,
    "32FC1": Modality.DEPTH,
    "mono16": Modality.THERMAL,
}
_COLOUR = {"rgb8", "bgr8", "rgba8", "bgra8"}
_GREY = {"mono8", "8UC1"}
_WIDE = {"mono16", "16UC1"}
# What a camera can be made of at all. An unknown encoding speaks neither for nor against.
_POSSIBLE: dict[Modality, set[str]] = {
    Modality.RGB: _COLOUR | _GREY,
    Modality.DEPTH: _WIDE | {"32FC1"},
    Modality.THERMAL: _WIDE | _GREY,
}
_KNOWN = set[str]().union(*_POSSIBLE.values())


@dataclass(frozen=True)
class Topic:
    """A topic of a bag.

    Attributes:
        name: with the leading slash.
        msgtype: like sensor_msgs/msg/Image.
        count: messages, as far as the bag says.
    """

    name: str
    msgtype: str
    count: int

    @property
    def has_images(self) -> bool:
        """Whether its messages are pictures that can be read."""
        return self.msgtype in {RAW_TYPE, COMPRESSED_TYPE}

    @property
    def is_compressed_depth(self) -> bool:
        """Whether it is of the transport that is for depth only."""
        return self.msgtype == COMPRESSED_TYPE and self.name.endswith("/compressedDepth")


@dataclass(frozen=True)
class Look:
    """What the first picture of a topic shows.

    Attributes:
        encoding: of the pixels, as in ``sensor_msgs/Image``; empty if it cannot be read.
        stored: how they lie in the bag: the encoding, or the format of a compressed picture.
        size: (height, width); None if it cannot be read.
        rate: messages a second; None if that is not known.
    """

    encoding: str
    stored: str
    size: tuple[int, int] | None
    rate: float | None

    @classmethod
    def at(cls, image: SourceImage | None, topic: Topic, duration_ns: int) -> Look:
        """Look at the first picture of a topic; None if none can be read."""
        # The duration lies between the first and the last message.
        rate = (topic.count - 1) / (duration_ns / 1e9) if duration_ns and topic.count > 1 else None
        if image is None:
            return cls("", "unreadable", None, rate)
        # An image_transport says what was compressed before what it made of it.
        told = image.encoding.partition(";")[0].strip()
        try:
            pixels, encoding = decode(image)
        except ImageError:
            return cls(told if told in _KNOWN else "", image.encoding, None, rate)
        if image.compressed and told in _KNOWN:
            encoding = told
        height, width = pixels.shape[:2]
        return cls(encoding, image.encoding, (height, width), rate)


@dataclass(frozen=True)
class Choice:
    """The topic of each camera.

    Attributes:
        topics: by camera.
        guesses: why, where neither the user nor the name told.
    """

    topics: Mapping[Modality, Topic]
    guesses: Mapping[Modality, str]


def choose_topics(
    topics: Sequence[Topic],
    wanted: Mapping[Modality, str],
    without: frozenset[Modality],
    look_at: Callable[[Topic], Look],
) -> Choice:
    """The topic of each camera: the one named by the user, else the only one that fits.

    A topic fits whose name speaks of the camera and whose pictures can be its; where there is
    none, one whose name says nothing and whose encoding is the camera's.

    Args:
        topics: all topics of the bag.
        wanted: topics named by the user.
        without: cameras to do without.
        look_at: looks at the first picture of a topic.

    Raises:
        BagError: with a table of the bag's topics, if a named topic is not there, is no picture,
            or if for a camera none or several topics fit.
    """
    looks: dict[Topic, Look] = {}

    def look(topic: Topic) -> Look:
        if topic not in looks:
            looks[topic] = look_at(topic)
        return looks[topic]

    usable = [topic for topic in topics if topic.has_images and topic.count]
    chosen: dict[Modality, Topic] = {}
    for modality, name in wanted.items():
        topic, problem = _named(name, modality, topics, usable)
        if topic is None:
            advice = f"{problem}; pass another --{modality}-topic"
            raise BagError(f"{advice}.\n{topic_table(topics, look)}")
        chosen[modality] = topic
    guesses: dict[Modality, str] = {}
    free = [topic for topic in usable if topic not in chosen.values()]
    for modality in (m for m in Modality if m not in chosen and m not in without):
        own = _best_transports([t for t in free if _may_be(t, modality)])
        fitting = [
            t for t in own if modality_of(t.name) is modality and _contradiction(t, look(t)) is None
        ]
        if not fitting:
            unnamed = [topic for topic in own if modality_of(topic.name) is None]
            fitting = [t for t in unnamed if _TELLING.get(look(t).encoding) is modality]
            if len(fitting) == 1:
                guesses[modality] = f"guessed from its encoding {look(fitting[0]).encoding}"
        if len(fitting) != 1:
            problem = _complaint(modality, fitting)
            raise BagError(f"{problem}.\n{topic_table(topics, look)}")
        chosen[modality] = fitting[0]
    return Choice({m: chosen[m] for m in Modality if m in chosen}, guesses)


def modality_of(name: str) -> Modality | None:
    """The camera that a topic's name speaks of; None if it does not say."""
    lower = base_name(name).lower()
    return next((key for key, pattern in _NAMES.items() if pattern.search(lower)), None)


def base_name(name: str) -> str:
    """A topic's name without that of its transport."""
    return name[: len(name) - len(_transport(name))]


def topic_table(topics: Sequence[Topic], look: Callable[[Topic], Look]) -> str:
    """The topics of a bag for people: those with pictures, and how many others."""
    shown = [topic for topic in topics if topic.has_images]
    rest = len(topics) - len(shown)
    head = ("topic", "type", "encoding", "size", "messages", "rate", "looks like", "option")
    rows = [head, *(_row(topic, look) for topic in shown)] if shown else []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  "
        + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    others = f"  {rest} other topic{'s' if rest != 1 else ''} without readable pictures"
    return "\n".join([*lines, others] if rest or not shown else lines)


def _row(topic: Topic, look: Callable[[Topic], Look]) -> tuple[str, ...]:
    kind = topic.msgtype
    if not topic.count:
        return (topic.name, kind, "", "", "0", "", "no messages", "")
    seen = look(topic)
    modality, why = _guess(topic, seen)
    size = f"{seen.size[1]}x{seen.size[0]}" if seen.size else "?"
    rate = f"{seen.rate:.1f} Hz" if seen.rate is not None else "?"
    looks_like = f"{modality} ({why})" if modality else why
    option = f"--{modality}-topic {topic.name}" if modality else ""
    return (topic.name, kind, seen.stored, size, str(topic.count), rate, looks_like, option)


def _guess(topic: Topic, seen: Look) -> tuple[Modality | None, str]:
    """Which camera a topic might be, and why."""
    named = modality_of(topic.name)
    if named is not None:
        problem = _contradiction(topic, seen)
        return (named, "name") if problem is None else (None, problem)
    told = _TELLING.get(seen.encoding)
    return (told, "encoding") if told else (None, "unclear")


def _contradiction(topic: Topic, seen: Look) -> str | None:
    """Why a topic is not what its name says; None if it may be."""
    named = modality_of(topic.name)
    if named is None or seen.encoding not in _KNOWN or seen.encoding in _POSSIBLE[named]:
        return None
    return f"named like {named}, but {seen.encoding} is not"


def _may_be(topic: Topic, modality: Modality) -> bool:
    return modality is Modality.DEPTH or not topic.is_compressed_depth


def _named(
    name: str, modality: Modality, topics: Sequence[Topic], usable: list[Topic]
) -> tuple[Topic | None, str]:
    full = name if name.startswith("/") else f"/{name}"
    topic = next((topic for topic in topics if topic.name in {name, full}), None)
    if topic is None:
        return None, f"the bag has no topic {name}"
    if topic not in usable:
        what = f"{topic.msgtype}, {topic.count} messages"
        expected = "sensor_msgs/msg/Image or CompressedImage"
        return None, f"topic {name} ({what}) holds no usable pictures, expected {expected}"
    if not _may_be(topic, modality):
        return None, f"topic {name} is compressed depth, which cannot be {modality}"
    return topic, ""


def _best_transports(topics: list[Topic]) -> list[Topic]:
    """Of the transports of a picture, the best one."""
    best: dict[str, Topic] = {}
    for topic in sorted(topics, key=lambda topic: _TRANSPORTS.index(_transport(topic.name))):
        best.setdefault(base_name(topic.name), topic)
    return [topic for topic in topics if topic in best.values()]


def _transport(name: str) -> str:
    return next(end for end in reversed(_TRANSPORTS) if name.endswith(end))


def _complaint(modality: Modality, fitting: list[Topic]) -> str:
    if fitting:
        names = ", ".join(topic.name for topic in fitting)
        problem = f"several topics could be {modality}: {names}; choose one"
    else:
        problem = f"no topic looks like {modality}; say which one it is"
    advice = f" with --{modality}-topic"
    if modality is not Modality.RGB:
        advice += f", or do without with --without {modality}"
    return f"{problem}{advice}"
