"""Plays a folder of images or a bag as if it were cameras."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import rclpy
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from tqdm import tqdm

from mmfusion_ros.core.background import prefetch
from mmfusion_ros.core.errors import MmfusionError
from mmfusion_ros.core.frames import Modality
from mmfusion_ros.core.image_folder import Size
from mmfusion_ros.core.playback import Picture, Playback, open_playback, rounds
from mmfusion_ros.dds_profile import apply_dds_profile
from mmfusion_ros.memory import keep_image_memory
from mmfusion_ros.messages import camera_info_of, image_message, set_stamp

_AHEAD = 24  # pictures decoded before they are due
_COMPANIONS_WAIT_S = 2.0
_STANDSTILL_NS = 1_000_000_000
_LOOK_S = 0.1  # how soon a signal ends a long pause


class CameraPlayer(Node):
    """Publishes a recording: ``rgb/image``, ``rgb/camera_info`` and so on for each camera."""

    def __init__(self, playback: Playback, qos: QoSProfile) -> None:
        super().__init__("camera_player")
        self._playback = playback
        self._images: dict[Modality, Publisher[Any]] = {}
        self._infos: dict[Modality, Publisher[Any]] = {}
        for modality in playback.modalities:
            self._images[modality] = self.create_publisher(Image, f"{modality}/image", qos)
            self._infos[modality] = self.create_publisher(
                CameraInfo, f"{modality}/camera_info", qos
            )

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

    def play(self, pictures: Iterable[Picture], total: int | None) -> None:
        """Publish every picture at its time, with that time as its stamp; ends with ROS.

        Args:
            pictures: in their order.
            total: how many RGB pictures there will be, for the progress bar; None if endless.
        """
        start_ns: int | None = None
        with tqdm(total=total, unit="frame", desc="playing") as progress:
            for picture in pictures:
                now_ns = self._now_ns()
                if start_ns is None or now_ns - start_ns - picture.due_ns > _STANDSTILL_NS:
                    # The start, or a standstill: go on from here, not in a burst.
                    start_ns = now_ns - picture.due_ns
                stamp_ns = start_ns + picture.due_ns
                if not _sleep((stamp_ns - now_ns) * 1e-9):
                    return
                self._publish(picture, stamp_ns)
                progress.update(picture.modality is Modality.RGB)

    def _publish(self, picture: Picture, stamp_ns: int) -> None:
        header = Header(frame_id=f"{picture.modality}_optical_frame")
        set_stamp(header, stamp_ns)
        message = image_message(picture.pixels, picture.encoding, header)
        self._images[picture.modality].publish(message)
        self._infos[picture.modality].publish(self._info(message, picture.modality))

    def _info(self, image: Image, modality: Modality) -> CameraInfo:
        camera = self._playback.cameras.get(modality)
        if camera is None:
            # K of zeros: not calibrated, as sensor_msgs has it
            return CameraInfo(header=image.header, height=image.height, width=image.width)
        info = camera_info_of(camera.scaled(image.width, image.height))
        info.header = image.header
        return info

    def _unheard(self, listeners: int) -> list[str]:
        publishers = self._images.values()
        return [p.topic_name for p in publishers if p.get_subscription_count() < listeners]

    def _now_ns(self) -> int:
        now: int = self.get_clock().now().nanoseconds
        return now


def _sleep(seconds: float) -> bool:
    """Sleep, but not longer than ROS is up; return whether it still is."""
    end = time.monotonic() + seconds
    while rclpy.ok() and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, _LOOK_S))
    return rclpy.ok()


def _wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while rclpy.ok():
        if condition():
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return False


def _size(text: str) -> Size:
    try:
        width, height = map(int, text.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no WIDTHxHEIGHT, e.g. 640x480") from None
    if min(width, height) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} has no pixels")
    return height, width


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="camera_player",
        description="Play images or a bag as cameras; ROS arguments come after --ros-args.",
    )
    parser.add_argument(
        "source",
        type=Path,
        help="a bag, or a folder that holds rgb (or visible, vi) and, if there are, depth and "
        "thermal (or infrared, ir); files are matched by stem; stamps.csv and cameras.yaml are "
        "used if they are there",
    )
    parser.add_argument(
        "--rate",
        type=_positive,
        help="RGB pictures per second; default: as in stamps.csv, else 30; a bag keeps its own",
    )
    parser.add_argument("--frames", type=_count, help="play at most this many RGB pictures")
    parser.add_argument(
        "--without",
        choices=("depth", "thermal"),
        action="append",
        default=[],
        help="leave this camera out; may be given twice",
    )
    parser.add_argument(
        "--loop",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="begin again at the end; stamps go on, so it looks like one long recording",
    )
    parser.add_argument(
        "--size", type=_size, metavar="WIDTHxHEIGHT", help="resize all images to this"
    )
    for camera in ("depth", "thermal"):
        parser.add_argument(
            f"--{camera}-size",
            type=_size,
            metavar="WIDTHxHEIGHT",
            help=f"resize {camera} images to this instead",
        )
    parser.add_argument(
        "--reliability",
        choices=("reliable", "best_effort"),
        default="reliable",
        help="what the publishers offer (default: reliable)",
    )
    parser.add_argument(
        "--listeners",
        type=_count,
        default=1,
        help="begin when the images have this many subscribers (default: 1)",
    )
    parser.add_argument(
        "--wait",
        type=_positive,
        default=30.0,
        metavar="SECONDS",
        help="how long to wait for a subscriber to the RGB images (default: 30)",
    )
    return parser


def main(args: list[str] | None = None) -> int:
    """Play until the end, or until interrupted.

    Returns:
        Exit status: 1 if the source cannot be played.
    """
    arguments = sys.argv if args is None else ["camera_player", *args]
    options = _parser().parse_args(remove_ros_args(arguments)[1:])
    apply_dds_profile()
    keep_image_memory()
    rclpy.init(args=arguments)
    pictures = None
    try:
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
        reliability = ReliabilityPolicy[options.reliability.upper()]
        player = CameraPlayer(playback, QoSProfile(depth=5, reliability=reliability))
        pictures = prefetch(rounds(playback, loop=options.loop), _AHEAD)
        player.wait_for_listeners(options.listeners, options.wait)
        player.play(pictures, None if options.loop else playback.total)
        for publisher in player.publishers:
            publisher.wait_for_all_acked(Duration(seconds=2))
    except (KeyboardInterrupt, ExternalShutdownException):
        return 0
    except Exception as error:
        if not rclpy.ok():
            return 0  # a signal took ROS away from under whatever was being done with it
        if not isinstance(error, (MmfusionError, OSError)):
            raise
        rclpy.logging.get_logger("camera_player").error(str(error))
        return 1
    finally:
        if pictures is not None:
            pictures.close()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
