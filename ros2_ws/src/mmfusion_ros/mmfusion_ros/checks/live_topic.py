"""One image topic of a running camera, watched for a while."""

from __future__ import annotations

import importlib.util
import statistics
import time
from dataclasses import dataclass, field
from typing import Any

from mmfusion_ros.checks.finding import Finding, Level, ok
from mmfusion_ros.checks.subject import CameraStream, Setup
from mmfusion_ros.core.frames import Modality

_IMAGE = "sensor_msgs/msg/Image"
_COMPRESSED = "sensor_msgs/msg/CompressedImage"
_NS_PER_MS = 1_000_000
_EARLIEST_NS, _LATEST_NS = -5 * _NS_PER_MS, 1000 * _NS_PER_MS
_RATE_SHARE = 0.8
_GAP = 1.5  # of the usual distance of two stamps: an image is missing in between
_LOST_SHARE = 0.05
# What each input can be made of; the node says the rest.
_ACCEPTED = {
    "rgb8": {"rgb8", "bgr8", "rgba8", "bgra8", "mono8", "8UC1"},
    "32FC1": {"32FC1", "16UC1", "mono16"},
    "16UC1": {"16UC1", "mono16", "mono8", "8UC1"},
    "mono16": {"16UC1", "mono16", "mono8", "8UC1"},
    "mono8": {"mono8", "8UC1"},
}


@dataclass(frozen=True)
class Offer:
    """What a publisher offers."""

    node: str
    type: str
    reliability: str
    durability: str


@dataclass
class TopicWatch:
    """Subscribes to an image topic as the node would, and keeps what the images say.

    Attributes:
        node: that subscribes.
        topic: full name.
        setup: what is examined.
        stamps_ns: of the images, in their order.
        ages_ns: wall time at reception less the stamp.
        encoding, height, width: of the newest image.
    """

    node: Any
    topic: str
    setup: Setup
    stamps_ns: list[int] = field(default_factory=list)
    ages_ns: list[int] = field(default_factory=list)
    encoding: str = ""
    height: int = 0
    width: int = 0
    _subscription: Any = None
    _began: float = 0.0
    _ended: float = 0.0

    @property
    def publishers(self) -> list[Offer]:
        """Who publishes it now."""
        return [
            Offer(
                f"{info.node_namespace.rstrip('/')}/{info.node_name}",
                info.topic_type,
                info.qos_profile.reliability.name.lower(),
                info.qos_profile.durability.name.lower(),
            )
            for info in self.node.get_publishers_info_by_topic(self.topic)
        ]

    @property
    def seconds(self) -> float:
        """How long it has been watched."""
        return time.monotonic() - self._began

    def begin(self) -> None:
        """Subscribe, reliably where all publishers offer it."""
        from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: PLC0415
        from sensor_msgs.msg import CompressedImage, Image  # noqa: PLC0415

        offers = self.publishers
        self._began = time.monotonic()
        kinds = {offer.type for offer in offers}
        if not offers or not kinds <= {_IMAGE, _COMPRESSED} or len(kinds) > 1:
            return
        reliable = all(offer.reliability == "reliable" for offer in offers)
        kind = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        self._subscription = self.node.create_subscription(
            Image if kinds == {_IMAGE} else CompressedImage,
            self.topic,
            self._take,
            QoSProfile(depth=5, reliability=kind),
        )

    def end(self) -> None:
        """Unsubscribe."""
        if self._subscription is not None:
            self.node.destroy_subscription(self._subscription)
            self._subscription = None

    def _take(self, message: Any) -> None:
        stamp = message.header.stamp
        stamp_ns = int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)
        self.stamps_ns.append(stamp_ns)
        self.ages_ns.append(time.time_ns() - stamp_ns)
        self.encoding = getattr(message, "encoding", "") or message.format
        self.height, self.width = getattr(message, "height", 0), getattr(message, "width", 0)

    def rhythm(self) -> tuple[float, int]:
        """The camera's rate by its stamps, and how many images are missing between them."""
        gaps = [
            later - earlier
            for earlier, later in zip(self.stamps_ns, self.stamps_ns[1:], strict=False)
            if later > earlier
        ]
        if not gaps:
            return 0.0, 0
        usual = statistics.median(gaps)
        missing = sum(round(gap / usual) - 1 for gap in gaps if gap > _GAP * usual)
        return 1e9 / usual, missing


def judge_topic(
    name: str, watch: TopicWatch, setup: Setup, modality: Modality, *, simulated: bool
) -> Finding:
    """What is right or wrong with a topic that was watched.

    Args:
        name: of the finding.
        watch: has watched it.
        setup: what is examined.
        modality: the camera.
        simulated: whether stamps are of a simulated clock.
    """
    offers = watch.publishers
    if not offers:
        return Finding(
            name,
            Level.WARNING,
            f"nobody publishes {watch.topic}",
            f"the driver of the {modality} camera",
            f"start it, remap it, or set the parameter {modality}_topic; "
            "drivers in another ROS_DOMAIN_ID are not seen",
        )
    wrong = sorted({offer.type for offer in offers} - {_IMAGE, _COMPRESSED})
    if wrong:
        return Finding(
            name,
            Level.ERROR,
            f"{watch.topic} has type {', '.join(wrong)}",
            f"{_IMAGE} or {_COMPRESSED}",
            f"set the parameter {modality}_topic to the image topic",
        )
    shown = ", ".join(f"{offer.node} {offer.reliability} {offer.durability}" for offer in offers)
    if not watch.stamps_ns:
        return Finding(
            name,
            Level.ERROR,
            f"{watch.topic}: {shown}, but no image came in {watch.seconds:.1f} s",
            "images",
            "the driver stands still, or its images are lost on the way: is the DDS profile set "
            "for the driver (streams.without_profile, docs/dds.md)?",
        )
    return _judge_images(name, watch, setup, modality, shown, simulated=simulated)


def _judge_images(
    name: str, watch: TopicWatch, setup: Setup, modality: Modality, shown: str, *, simulated: bool
) -> Finding:
    rate, missing = watch.rhythm()
    size = f"{watch.width}x{watch.height} " if watch.width else ""
    found = f"{watch.topic}: {size}{watch.encoding}, {rate:.3g} Hz, {shown}"
    age_ns = statistics.median(watch.ages_ns)
    values = {
        "topic": watch.topic,
        "images": len(watch.stamps_ns),
        "missing": missing,
        "rate": round(rate, 2),
        "encoding": watch.encoding,
        "width": watch.width,
        "height": watch.height,
        "age_ms": round(age_ns / _NS_PER_MS, 1),
    }
    camera = next(one for one in setup.cameras if one.modality is modality)
    fault = (
        _wrong_kind(watch, setup, camera)
        or _wrong_stamps(watch, age_ns, simulated=simulated)
        or _too_few(watch, setup, rate, missing)
    )
    if fault is None:
        return ok(name, found, **values)
    return Finding(
        name, fault.level, f"{found}; {fault.problem}", fault.expected, fault.advice, values
    )


@dataclass(frozen=True)
class _Fault:
    """What is wrong with the images of a topic."""

    level: Level
    problem: str
    expected: str
    advice: str


def _wrong_kind(watch: TopicWatch, setup: Setup, camera: CameraStream) -> _Fault | None:
    if not watch.width:
        return None  # compressed: only the node decodes it
    sized = setup.artifact is not None or setup.size is not None
    if sized and (watch.height, watch.width) != (camera.height, camera.width):
        return _Fault(
            Level.ERROR,
            "images of this size are left out",
            f"{camera.width}x{camera.height}",
            "set the driver to that size, or export an artifact for this one (docs/export.md)",
        )
    accepted = _ACCEPTED[camera.encoding]
    # The node hands on to cv_bridge, where that is installed, what it does not know itself.
    foreign = watch.encoding not in set().union(*_ACCEPTED.values())
    if foreign and importlib.util.find_spec("cv_bridge") is not None:
        return None
    if watch.encoding not in accepted:
        return _Fault(
            Level.ERROR,
            "images of this encoding are left out",
            f"one of {', '.join(sorted(accepted))}",
            "set the driver to one of these (docs/your-cameras.md)",
        )
    return None


def _wrong_stamps(watch: TopicWatch, age_ns: float, *, simulated: bool) -> _Fault | None:
    if not any(watch.stamps_ns):
        return _Fault(
            Level.WARNING,
            "images carry no stamp",
            "the time of exposure",
            "let the driver stamp them; the node takes the time they arrive at",
        )
    if not simulated and not _EARLIEST_NS <= age_ns <= _LATEST_NS:
        return _Fault(
            Level.WARNING,
            f"stamps are {abs(age_ns) / 1e9:.3g} s {'ahead of' if age_ns < 0 else 'behind'} this "
            "machine's clock",
            "stamps of this clock, less than a second old",
            "synchronise the clocks (PTP, NTP); with a bag or a simulator it is as it should be: "
            "set use_sim_time where there is a /clock",
        )
    return None


def _too_few(watch: TopicWatch, setup: Setup, rate: float, missing: int) -> _Fault | None:
    due = len(watch.stamps_ns) + missing
    if missing > _LOST_SHARE * due:
        return _Fault(
            Level.WARNING,
            f"{missing} of {due} images are missing between the stamps",
            "none",
            "set the DDS profile for the driver (docs/dds.md), let it offer reliable delivery",
        )
    if rate < _RATE_SHARE * setup.rate:
        return _Fault(
            Level.NOTE,
            f"slower than {setup.rate:g} Hz",
            f"{setup.rate:g} Hz, as --rate says",
            "pass the camera's own --rate; a depth or thermal camera slower than the RGB one "
            "serves every RGB frame with window_ms of half its period",
        )
    return None
