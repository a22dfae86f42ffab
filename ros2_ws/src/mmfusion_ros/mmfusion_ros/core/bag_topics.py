"""Which topic of a bag is which camera."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mmfusion_ros.core.errors import BagError
from mmfusion_ros.core.frames import Modality

RAW_TYPE = "sensor_msgs/msg/Image"
COMPRESSED_TYPE = "sensor_msgs/msg/CompressedImage"

# Looked for in this order: /aligned_depth_to_color is depth, /thermal/visible_range thermal.
_NAMES: dict[Modality, re.Pattern[str]] = {
    Modality.DEPTH: re.compile(r"depth"),
    Modality.THERMAL: re.compile(r"thermal|infrared|lwir|flir|(?<![a-z])ir(?![a-z])"),
    Modality.RGB: re.compile(r"rgb|colou?r|visible"),
}
_ENCODINGS: dict[str, Modality] = {
    "rgb8": Modality.RGB,
    "bgr8": Modality.RGB,
    "rgba8": Modality.RGB,
    "bgra8": Modality.RGB,
    "16UC1": Modality.DEPTH,
    "32FC1": Modality.DEPTH,
    "mono16": Modality.THERMAL,
}


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
        return self.msgtype in {RAW_TYPE, COMPRESSED_TYPE} and not self.name.endswith(
            "/compressedDepth"  # a format of its own, declared as CompressedImage
        )


def choose_topics(
    topics: Sequence[Topic],
    wanted: Mapping[Modality, str],
    without: frozenset[Modality],
    encoding_of: Callable[[Topic], str | None],
) -> dict[Modality, Topic]:
    """The topic of each camera: the one named by the user, else the only one that fits.

    Args:
        topics: all topics of the bag.
        wanted: topics named by the user.
        without: cameras to do without.
        encoding_of: gives the encoding of the first picture of a topic, for topics whose name
            says nothing.

    Raises:
        BagError: with a table of the bag's topics, if a named topic is not there, is no picture,
            or if for a camera none or several topics fit.
    """
    usable = [topic for topic in topics if topic.has_images and topic.count]
    chosen = {modality: _named(name, modality, topics, usable) for modality, name in wanted.items()}
    missing = [m for m in Modality if m not in chosen and m not in without]
    free = [topic for topic in usable if topic not in chosen.values()]
    named = {topic.name: modality_of(topic.name) for topic in free}
    for modality in missing:
        fitting = _prefer_raw([topic for topic in free if named[topic.name] is modality])
        if not fitting:
            unnamed = [topic for topic in free if named[topic.name] is None]
            fitting = _prefer_raw(
                [t for t in unnamed if _ENCODINGS.get(encoding_of(t) or "") is modality]
            )
        if len(fitting) != 1:
            raise BagError(_complaint(modality, fitting, topics))
        chosen[modality] = fitting[0]
    return {modality: chosen[modality] for modality in Modality if modality in chosen}


def modality_of(name: str) -> Modality | None:
    """The camera that a topic's name speaks of; None if it does not say."""
    lower = name.lower()
    return next((key for key, pattern in _NAMES.items() if pattern.search(lower)), None)


def _named(name: str, modality: Modality, topics: Sequence[Topic], usable: list[Topic]) -> Topic:
    full = name if name.startswith("/") else f"/{name}"
    topic = next((topic for topic in topics if topic.name in {name, full}), None)
    if topic is None:
        problem = f"the bag has no topic {name}"
    elif topic not in usable:
        problem = f"topic {name} ({topic.msgtype}, {topic.count} messages) holds no usable pictures"
    else:
        return topic
    raise BagError(f"{problem}; pass another --{modality}-topic.\n{topic_table(topics)}")


def _prefer_raw(topics: list[Topic]) -> list[Topic]:
    """Of a picture and its compressed transport, keep the picture."""
    names = {topic.name for topic in topics}
    return [
        topic
        for topic in topics
        if topic.name.removesuffix("/compressed") == topic.name
        or topic.name.removesuffix("/compressed") not in names
    ]


def _complaint(modality: Modality, fitting: list[Topic], topics: Sequence[Topic]) -> str:
    if fitting:
        names = ", ".join(topic.name for topic in fitting)
        problem = f"several topics could be {modality}: {names}; choose one"
    else:
        problem = f"no topic looks like {modality}; say which one it is"
    advice = f" with --{modality}-topic"
    if modality is not Modality.RGB:
        advice += f", or do without with --without {modality}"
    return f"{problem}{advice}.\n{topic_table(topics)}"


def topic_table(topics: Sequence[Topic]) -> str:
    """The topics of a bag for people: those with pictures, and how many others."""
    shown = [topic for topic in topics if topic.has_images]
    rest = len(topics) - len(shown)
    width = max((len(topic.name) for topic in shown), default=0)
    lines = [f"  {t.name:<{width}}  {t.msgtype}  {t.count} messages" for t in shown]
    others = f"  {rest} other topic{'s' if rest != 1 else ''} without readable pictures"
    return "\n".join([*lines, others] if rest or not shown else lines)
