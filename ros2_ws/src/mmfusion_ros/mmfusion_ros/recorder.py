"""Record topics into an MCAP bag: ``ros2 run mmfusion_ros recorder --out BAG TOPIC...``.

For machines without ``ros2 bag``. Messages are written as they come over the wire, of any type
whose package is installed.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rosbags.interfaces import (
    Connection,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer

from mmfusion_ros import argument_types
from mmfusion_ros.core.background import Background
from mmfusion_ros.core.bag_writer import VERSION, abandon, complete
from mmfusion_ros.core.errors import BagError, MmfusionError
from mmfusion_ros.dds_profile import apply_dds_profile
from mmfusion_ros.memory import keep_image_memory
from mmfusion_ros.message_definitions import typestore_for

if TYPE_CHECKING:
    from typing_extensions import Self

_DEPTH = 100  # messages of a topic kept while the disk is busy
_LOOK_S = 0.2  # how often to look for topics, and whether to end
_BACKLOG = 64  # messages of all topics handed to the disk


class Recorder:
    """Subscribes to topics as they appear and writes what they carry.

    Attributes:
        counts: messages received, by topic.
        last_message: monotonic time of the newest one, or of a topic that has appeared since;
            None before the first.
        failure: why nothing more can be written; None if all is well.
    """

    def __init__(self, node: Node, folder: Path, topics: Iterable[str]) -> None:
        """Create the bag.

        Args:
            node: that subscribes.
            folder: of the bag; must not exist.
            topics: to record.

        Raises:
            BagError: if there is something at ``folder`` already, or there cannot be.
        """
        if folder.exists():
            raise BagError(f"{folder} exists already; pass another --out or remove it")
        self._node = node
        self._missing = dict.fromkeys(node.resolve_topic_name(topic) for topic in topics)
        self._writer = Writer(folder, version=VERSION, storage_plugin=StoragePlugin.MCAP)
        try:
            self._writer.open()
        except OSError as error:
            message = f"no bag can be made at {folder}: {error}; pass another --out"
            raise BagError(message) from error
        self._writing: Background[None] = Background("write", backlog=_BACKLOG)
        # A topic may appear while messages of others are written, into the same chunk.
        self._file = threading.Lock()
        self.counts: Counter[str] = Counter(dict.fromkeys(self._missing, 0))
        self.last_message: float | None = None
        self.failure: OSError | None = None

    @property
    def missing(self) -> tuple[str, ...]:
        """Topics that nobody publishes yet."""
        return tuple(self._missing)

    def look(self) -> list[str]:
        """Subscribe to the topics that have appeared; return their names.

        Raises:
            MmfusionError: if a topic's type cannot be recorded here.
        """
        found = []
        for topic in list(self._missing):
            publishers = self._node.get_publishers_info_by_topic(topic)
            # While a publisher is being discovered, its type can be unknown.
            types = sorted({info.topic_type for info in publishers if "/" in info.topic_type})
            if not types:
                continue
            if len(types) > 1:
                raise MmfusionError(f"topic {topic} has several types: {', '.join(types)}")
            self._subscribe(topic, types[0], [info.qos_profile for info in publishers])
            del self._missing[topic]
            found.append(topic)
        return found

    def close(self) -> None:
        """Write what waits and complete the bag.

        Raises:
            BagError: if not all could be written.
        """
        with self._writing:
            self._writing.results()
        try:
            if self.failure is not None:
                abandon(self._writer)
                raise self.failure
            complete(self._writer)
        except OSError as error:
            raise BagError(
                f"{self._writer.path} ends early: {error}; what was written before can be read"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _subscribe(self, topic: str, msgtype: str, offered: list[Any]) -> None:
        message_class = _message_class(topic, msgtype)
        with self._file:
            connection = self._writer.add_connection(
                topic,
                msgtype,
                typestore=typestore_for(msgtype),
                offered_qos_profiles=[_for_bag(profile) for profile in offered],
            )
        self._node.create_subscription(
            message_class,
            topic,
            self._keep(topic, connection),
            _to_ask(offered),
            raw=True,
        )
        if self.last_message is not None:
            self.last_message = time.monotonic()  # a topic that has appeared gets its time too

    def _keep(self, topic: str, connection: Connection) -> Callable[[bytes], None]:
        def keep(data: bytes) -> None:
            self.counts[topic] += 1
            self.last_message = time.monotonic()
            self._writing.submit(self._write, connection, time.time_ns(), data)

        return keep

    def _write(self, connection: Connection, time_ns: int, data: bytes) -> None:
        # After a first failure the file may end within a message: more would be lost in there.
        if self.failure is None:
            try:
                with self._file:
                    self._writer.write(connection, time_ns, data)
            except OSError as error:
                self.failure = error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = _parser().parse_args(arguments)
    stop = threading.Event()
    apply_dds_profile()
    keep_image_memory()
    # Own handlers: a bag must be closed before the context goes.
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    node = rclpy.create_node("recorder")
    try:
        _record(node, options, stop)
    except (MmfusionError, OSError) as error:
        print(f"recorder: {error}", file=sys.stderr)
        return 1
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


def _record(node: Node, options: argparse.Namespace, stop: threading.Event) -> None:
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    with Recorder(node, options.out, options.topics) as recorder:
        _look(recorder)
        if recorder.missing:
            _say(f"waiting for {', '.join(recorder.missing)}: nobody publishes there yet")
        started = next_look = time.monotonic()
        while not stop.is_set() and not _over(recorder, options, started):
            executor.spin_once(timeout_sec=_LOOK_S)
            if recorder.missing and time.monotonic() >= next_look:
                next_look = time.monotonic() + _LOOK_S
                _look(recorder)
        ended = time.monotonic()
        while (left_s := ended + _LOOK_S - time.monotonic()) > 0:
            executor.spin_once(timeout_sec=left_s)  # what has come already belongs to it
    for topic, count in recorder.counts.items():
        _say(f"{count} messages of {topic}")
    if not recorder.counts.total():
        shutil.rmtree(options.out, ignore_errors=True)  # made above, and nothing is in it
        raise MmfusionError(
            f"nothing was recorded, so there is no bag at {options.out}; is somebody publishing "
            "(same ROS_DOMAIN_ID?), and do the topics have these names?"
        )
    _say(f"wrote {options.out}")


def _look(recorder: Recorder) -> None:
    for topic in recorder.look():
        _say(f"recording {topic}")


def _over(recorder: Recorder, options: argparse.Namespace, started: float) -> bool:
    now = time.monotonic()
    if recorder.failure is not None:
        return True
    if options.duration is not None and now - started >= options.duration:
        return True
    if recorder.last_message is None:
        return options.wait is not None and now - started >= options.wait
    return options.idle_timeout is not None and now - recorder.last_message >= options.idle_timeout


def _message_class(topic: str, msgtype: str) -> type:
    package, _, name = msgtype.partition("/msg/")
    try:
        found: type = getattr(importlib.import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError) as error:
        raise MmfusionError(
            f"topic {topic} has type {msgtype}, which is not installed here ({error}); install "
            f"package {package} or leave the topic out"
        ) from error
    return found


def _to_ask(offered: list[Any]) -> QoSProfile:
    """The best that every publisher of a topic offers."""
    reliable = all(profile.reliability is ReliabilityPolicy.RELIABLE for profile in offered)
    latched = all(profile.durability is DurabilityPolicy.TRANSIENT_LOCAL for profile in offered)
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=_DEPTH,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def _for_bag(profile: QoSProfile) -> Qos:
    """What a publisher offers, for players of the bag to offer again."""

    def same(kind: Any, value: Any) -> Any:
        return kind.__members__.get(value.name, kind.UNKNOWN)

    def span(duration: Any) -> QosTime:
        return QosTime(*divmod(duration.nanoseconds, 1_000_000_000))

    return Qos(
        history=same(QosHistory, profile.history),
        depth=profile.depth,
        reliability=same(QosReliability, profile.reliability),
        durability=same(QosDurability, profile.durability),
        deadline=span(profile.deadline),
        lifespan=span(profile.lifespan),
        liveliness=same(QosLiveliness, profile.liveliness),
        liveliness_lease_duration=span(profile.liveliness_lease_duration),
        avoid_ros_namespace_conventions=profile.avoid_ros_namespace_conventions,
    )


def _say(text: str) -> None:
    print(f"recorder: {text}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="recorder", description="Record topics to an MCAP bag.")
    parser.add_argument("topics", nargs="+", metavar="TOPIC")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new bag")
    parser.add_argument(
        "--duration",
        type=argument_types.positive,
        metavar="SECONDS",
        help="stop this long after the start",
    )
    parser.add_argument(
        "--wait",
        type=argument_types.positive,
        metavar="SECONDS",
        help="how long to wait for the first message (default: without end)",
    )
    parser.add_argument(
        "--idle-timeout",
        type=argument_types.positive,
        metavar="SECONDS",
        help="stop when no message has come for this long, once there was a first",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
