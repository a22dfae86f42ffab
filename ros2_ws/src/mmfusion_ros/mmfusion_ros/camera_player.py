"""Plays a folder of images or a bag as if it were cameras."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from typing import Any

import rclpy
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from tqdm import tqdm

from mmfusion_ros.core.background import prefetch
from mmfusion_ros.core.errors import MmfusionError
from mmfusion_ros.core.faults import ALL_CAMERAS, Fault, with_faults
from mmfusion_ros.core.frames import Modality, SourceImage
from mmfusion_ros.core.playback import Picture, Playback, open_playback, rounds
from mmfusion_ros.core.sent_image import Sender
from mmfusion_ros.core.transports import RAW
from mmfusion_ros.dds_profile import apply_dds_profile
from mmfusion_ros.memory import keep_image_memory
from mmfusion_ros.messages import info_message, set_stamp
from mmfusion_ros.player_options import player_parser
from mmfusion_ros.quality_of_service import publisher_qos, warn_of_idle_overrides
from mmfusion_ros.starting import destroyed_on_failure, ended_by_signals, own_arguments, start_ros

_AHEAD = 24  # pictures decoded before they are due
_DEPTH = 5
_COMPANIONS_WAIT_S = 2.0
_LATE_NS = 50_000_000  # more of a delay shifts all that follows
_LOOK_S = 0.1  # how soon a signal ends a long pause


class CameraPlayer(Node):
    """Publishes a recording: ``rgb/image``, ``rgb/camera_info`` and so on for each camera."""

    def __init__(
        self,
        playback: Playback,
        sender: Sender,
        reliability: ReliabilityPolicy,
        clock_hz: float | None = None,
    ) -> None:
        """Create the publishers.

        Args:
            playback: says which cameras there are.
            sender: says how their images are sent.
            reliability: that all offer, unless a ``qos_overrides`` parameter says otherwise.
            clock_hz: how often to publish the recording's time, which the stamps of the pictures
                then are; None to publish none, and stamp with the time of this machine.

        Raises:
            MmfusionError: if a ``qos_overrides`` parameter has a value that is not allowed; the
                node is destroyed.
        """
        super().__init__("camera_player")
        self._playback = playback
        self._images: dict[Modality, Publisher[Any]] = {}
        self._infos: dict[Modality, Publisher[Any]] = {}
        self._known_infos: dict[tuple[Modality, int, int], CameraInfo] = {}
        self._time: Publisher[Any] | None = None
        with destroyed_on_failure(self):
            self._advertise_all(sender, reliability, clock=clock_hz is not None)
        self._look_s = _LOOK_S if clock_hz is None else min(_LOOK_S, 1 / clock_hz)
        # Of this machine's steady and wall clocks, where the recording's first RGB picture is.
        self._start_ns = self._wall_start_ns = 0
        self._round_ns = self._clock_ns = 0
        self._apart_ns = playback.period_ns // 4
        self._sent: Counter[Modality] = Counter(dict.fromkeys(playback.modalities, 0))

    @property
    def sent(self) -> str:
        """How many images of each camera were sent so far, for people."""
        return ", ".join(f"{count} {modality}" for modality, count in self._sent.items())

    def wait_for_listeners(self, listeners: int, timeout_s: float) -> None:
        """Return once every image topic has enough subscribers, or the RGB one has and time is up.

        Raises:
            MmfusionError: if too few subscribe to the RGB images in time.
        """
        rgb = self._images[Modality.RGB]
        if not _wait_until(lambda: rgb.get_subscription_count() >= listeners, timeout_s):
            raise MmfusionError(
                f"{rgb.get_subscription_count()} of {listeners} subscribers to {rgb.topic_name} "
                f"within {timeout_s:g} s; start the node first (same ROS_DOMAIN_ID?) or wait "
                "longer with --wait"
            )
        _wait_until(lambda: not self._unheard(listeners), _COMPANIONS_WAIT_S)
        for topic in self._unheard(1):
            self.get_logger().info(f"nobody listens to {topic}")

    def play(self, images: Iterable[tuple[Picture, SourceImage]], total: int | None) -> None:
        """Publish every image at its time; ends with ROS.

        Args:
            images: with the pictures they are made of, in the order in which they fall due.
            total: how many RGB pictures there will be, for the progress bar; None if endless.
        """
        last_due_ns: int | None = None
        with tqdm(total=total, unit="frame", desc="playing") as progress:
            for picture, image in images:
                late_ns = time.monotonic_ns() - self._start_ns - picture.due_ns
                if last_due_ns is None or (
                    late_ns > _LATE_NS and picture.due_ns - last_due_ns > self._apart_ns
                ):
                    # The start, or a standstill: go on from here, not in a burst. What was taken
                    # at one instant stays together.
                    self._start_ns += late_ns
                    self._wall_start_ns = time.time_ns() - picture.due_ns
                last_due_ns = picture.due_ns
                if not self._sleep_until(self._start_ns + picture.due_ns):
                    return
                self._publish(picture, image)
                progress.update(picture.modality is Modality.RGB)

    def _publish(self, picture: Picture, image: SourceImage) -> None:
        stamp_ns = picture.stamp_ns
        if self._time is None:
            stamp_ns += self._wall_start_ns
        else:
            if picture.round_ns > self._round_ns:
                self._round_ns, self._clock_ns = picture.round_ns, 0
            self._publish_clock()
        header = Header(frame_id=f"{picture.modality}_optical_frame")
        set_stamp(header, max(0, stamp_ns))  # ROS knows no time before
        self._images[picture.modality].publish(_message(image, header))
        self._sent[picture.modality] += 1  # now: a signal may end ROS before the next line
        self._infos[picture.modality].publish(self._info(picture, header))

    def _publish_clock(self) -> None:
        if self._time is None:
            return
        played_ns = time.monotonic_ns() - self._start_ns - self._round_ns
        message = Clock()
        recorded_ns = self._playback.start_ns + round(played_ns * self._playback.speed)
        # After a standstill the pictures go on from where they were: this waits for them.
        self._clock_ns = max(self._clock_ns, recorded_ns)
        message.clock.sec, message.clock.nanosec = divmod(self._clock_ns, 1_000_000_000)
        self._time.publish(message)

    def _info(self, picture: Picture, header: Header) -> CameraInfo:
        height, width = picture.pixels.shape[:2]
        key = (picture.modality, height, width)
        if key not in self._known_infos:
            camera = self._playback.cameras.get(picture.modality)
            self._known_infos[key] = (
                # K of zeros: not calibrated, as sensor_msgs has it.
                CameraInfo(height=height, width=width)
                if camera is None
                else info_message(camera.scaled(width, height))
            )
        info = self._known_infos[key]
        info.header = header
        return info

    def _advertise_all(
        self, sender: Sender, reliability: ReliabilityPolicy, *, clock: bool
    ) -> None:
        for modality in self._playback.modalities:
            transport = sender.transport(modality)
            topic = f"{modality}/image"
            if transport == RAW:
                self._images[modality] = self._advertise(Image, topic, reliability)
            else:
                self._images[modality] = self._advertise(
                    CompressedImage, f"{topic}/{transport}", reliability
                )
            self._infos[modality] = self._advertise(
                CameraInfo, f"{modality}/camera_info", reliability
            )
        if clock:
            # Its publisher is reliable whatever the images are: nobody can go without.
            self._time = self._advertise(Clock, "/clock", ReliabilityPolicy.RELIABLE)
        warn_of_idle_overrides(self)

    def _advertise(self, kind: type, topic: str, reliability: ReliabilityPolicy) -> Publisher[Any]:
        qos = QoSProfile(depth=_DEPTH, reliability=reliability)
        return self.create_publisher(
            kind, topic, publisher_qos(self, self.resolve_topic_name(topic), qos)
        )

    def _sleep_until(self, end_ns: int) -> bool:
        """Sleep, but not longer than ROS is up; return whether it still is."""
        while rclpy.ok() and (left_ns := end_ns - time.monotonic_ns()) > 0:
            time.sleep(min(left_ns * 1e-9, self._look_s))
            self._publish_clock()
        return rclpy.ok()

    def _unheard(self, listeners: int) -> list[str]:
        publishers = self._images.values()
        return [p.topic_name for p in publishers if p.get_subscription_count() < listeners]


def _message(image: SourceImage, header: Header) -> Image | CompressedImage:
    if image.compressed:
        message = CompressedImage(header=header, format=image.encoding)
    else:
        message = Image(
            header=header,
            height=image.height,
            width=image.width,
            encoding=image.encoding,
            step=image.step,
            is_bigendian=int(sys.byteorder == "big"),
        )
    # The one fast way: assigning an ndarray or a list walks through the bytes one by one.
    message.data.frombytes(image.data.data)
    return message


def _wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while rclpy.ok():
        if condition():
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return False


def _check_faults(faults: Sequence[Fault], playback: Playback) -> None:
    for fault in faults:
        if fault.text.startswith(ALL_CAMERAS):
            continue
        if fault.cameras[0] not in playback.modalities:
            there = ", ".join(map(str, playback.modalities))
            raise MmfusionError(
                f"--fault {fault.text}: there is no such camera to play; expected one of {there}"
            )


def _images(
    playback: Playback, options: argparse.Namespace, sender: Sender
) -> Generator[tuple[Picture, SourceImage], None, None]:
    pictures = rounds(playback, loop=options.loop, recorded_stamps=options.clock is not None)
    if options.fault:
        pictures = with_faults(pictures, options.fault, options.seed)
    for picture in pictures:
        yield picture, sender.image(picture)


def main(args: list[str] | None = None) -> int:
    """Play until the end, or until interrupted.

    Returns:
        Exit status: 1 if the source cannot be played.
    """
    arguments = sys.argv if args is None else ["camera_player", *args]
    player = None
    try:
        options = player_parser().parse_args(own_arguments(arguments))
        apply_dds_profile()
        keep_image_memory()
        start_ros(arguments)
        with ended_by_signals():
            playback = _open(options)
            sender = Sender(dict(options.transport), dict(options.encoding), options.row_padding)
            reliability = ReliabilityPolicy[options.reliability.upper()]
            player = CameraPlayer(playback, sender, reliability, options.clock)
            _play(player, playback, sender, options)
    except KeyboardInterrupt:
        return 0
    except (MmfusionError, OSError) as error:
        rclpy.logging.get_logger("camera_player").error(str(error))
        return 1
    finally:
        if player is not None:
            _say(f"sent {player.sent}")
            player.destroy_node()
        rclpy.try_shutdown()
    return 0


def _open(options: argparse.Namespace) -> Playback:
    sizes = {
        Modality.RGB: options.size,
        Modality.DEPTH: options.depth_size or options.size,
        Modality.THERMAL: options.thermal_size or options.size,
    }
    playback = open_playback(
        options.source,
        sizes={m: size for m, size in sizes.items() if size is not None},
        rate=options.rate,
        frames=options.frames,
        without=frozenset(map(Modality, options.without)),
    )
    _check_faults(options.fault, playback)
    return playback


def _play(
    player: CameraPlayer, playback: Playback, sender: Sender, options: argparse.Namespace
) -> None:
    with closing(prefetch(_images(playback, options, sender), _AHEAD)) as images:
        player.wait_for_listeners(options.listeners, options.wait)
        player.play(images, None if options.loop else playback.total)
        for publisher in player.publishers:
            publisher.wait_for_all_acked(Duration(seconds=2))


def _say(text: str) -> None:
    """Tell how it went: after a signal ROS is down, and its log would complain of that."""
    if rclpy.ok():
        rclpy.logging.get_logger("camera_player").info(text)
    else:
        print(f"camera_player: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
