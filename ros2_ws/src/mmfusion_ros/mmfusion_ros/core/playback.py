"""A folder of images or a bag, as pictures that fall due one after the other."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mmfusion_ros.core.bag_reader import (
    Bag,
    ReadingReport,
    camera_info_beside,
    open_bag,
    read_frames,
)
from mmfusion_ros.core.camera_info import CameraInfo
from mmfusion_ros.core.errors import BagError, ImageError
from mmfusion_ros.core.frames import Frame, Modality
from mmfusion_ros.core.image_folder import (
    DEFAULT_PERIOD_NS,
    ImageFolder,
    Size,
    open_image_folder,
    read_shot_image,
    resized,
)
from mmfusion_ros.core.images import decode, to_encoding

CACHE_BYTES = 512 << 20
_FIRST_NS = 1_000_000_000  # where a recording has no stamps; in ROS a stamp of zero is none
_RATE_SAMPLE = 100  # RGB frames that tell the rate of a bag
_READERS = min(4, os.cpu_count() or 1)  # files decoded at a time


@dataclass(frozen=True, eq=False)
class Picture:
    """One image of one camera.

    Attributes:
        due_ns: when it is to be sent, counted from the first RGB picture.
        stamp_ns: when it was taken; on the recording's clock or counted as `due_ns`, see `rounds`.
        modality: which camera.
        pixels: C-contiguous, as `encoding` says.
        encoding: as in ``sensor_msgs/Image``.
        round_ns: when the first RGB picture of its round through the recording fell due.
        sent: share of its bytes that are sent.
    """

    due_ns: int
    stamp_ns: int
    modality: Modality
    pixels: NDArray[Any]
    encoding: str
    round_ns: int = 0
    sent: float = 1.0


class Playback(Protocol):
    """What a player plays.

    Attributes:
        modalities: cameras there are.
        cameras: what is known of them.
        period_ns: between two RGB pictures, where they do not tell themselves.
        total: RGB pictures.
        start_ns: stamp of the first RGB picture on the recording's clock.
        speed: how fast the recording's clock runs when it is played.
    """

    modalities: tuple[Modality, ...]
    cameras: Mapping[Modality, CameraInfo]
    period_ns: int
    total: int
    start_ns: int
    speed: float

    def pictures(self) -> Iterator[Picture]:
        """The pictures in the order in which they were taken, read as they are asked for.

        Their stamps are those of the recording.

        Raises:
            ImageError: when it comes to a picture that cannot be read.
        """


def open_playback(
    source: Path,
    *,
    sizes: Mapping[Modality, Size] | None = None,
    rate: float | None = None,
    frames: int | None = None,
    without: frozenset[Modality] = frozenset(),
) -> Playback:
    """Open a folder of images or a bag.

    Args:
        source: see `open_image_folder` and `open_bag`.
        sizes: (height, width) to resize the pictures of a camera to; those not named stay.
        rate: RGB pictures per second; None for the recorded rate. A bag's time is stretched
            evenly for it; in a folder the cameras of a shot stay as far apart as they are.
        frames: play at most this many RGB pictures.
        without: cameras to leave out.

    Raises:
        BagError, ImageError: if there is nothing to play.
    """
    if _is_bag(source):
        return _BagPlayback(open_bag(source, without=without), sizes or {}, rate, frames)
    return _FolderPlayback(open_image_folder(source), sizes or {}, rate, frames, without)


def rounds(
    playback: Playback, *, loop: bool, recorded_stamps: bool = False
) -> Generator[Picture, None, None]:
    """The pictures of a playback, again and again if looped.

    When looped, up to `CACHE_BYTES` are read before the first picture comes, so that the start is
    not held up; a recording that takes less is read once.

    Args:
        playback: to play.
        loop: whether to begin again at the end.
        recorded_stamps: keep the stamps of the recording, which go back with each round. If not,
            a picture is stamped with the time at which it falls due: one long recording.

    Raises:
        ImageError: when it comes to a picture that cannot be read.
    """
    start_ns = 0
    reading = playback.pictures()
    kept, whole = _read_ahead(reading, CACHE_BYTES) if loop else ([], False)
    source: Iterable[Picture] = kept if whole else itertools.chain(kept, reading)
    while True:
        last_ns = seen = 0
        for picture in source:
            if picture.modality is Modality.RGB:
                last_ns, seen = max(last_ns, picture.due_ns), seen + 1
            due_ns = start_ns + picture.due_ns
            yield dataclasses.replace(
                picture,
                due_ns=due_ns,
                stamp_ns=picture.stamp_ns if recorded_stamps else due_ns,
                round_ns=start_ns,
            )
        if not loop or not seen:
            return
        gap_ns = last_ns // max(1, seen - 1)
        start_ns += last_ns + (gap_ns or playback.period_ns)
        if not whole:
            kept = []  # its memory is given back
        source = kept or playback.pictures()


def _read_ahead(pictures: Iterator[Picture], most_bytes: int) -> tuple[list[Picture], bool]:
    """The first pictures, and whether they are all there are."""
    read = []
    for picture in pictures:
        read.append(picture)
        most_bytes -= picture.pixels.nbytes
        if most_bytes < 0:
            return read, False
    return read, True


def _is_bag(source: Path) -> bool:
    if not source.is_dir():
        return source.suffix in {".mcap", ".db3", ".bag"}
    return (source / "metadata.yaml").is_file() or any(
        file.suffix in {".mcap", ".db3"} for file in source.iterdir()
    )


class _FolderPlayback:
    """Shots at even intervals, the cameras of each as far apart as their stamps."""

    def __init__(
        self,
        folder: ImageFolder,
        sizes: Mapping[Modality, Size],
        rate: float | None,
        frames: int | None,
        without: frozenset[Modality],
    ) -> None:
        self._shots = folder.shots[:frames]
        self._sizes = sizes
        self.period_ns = round(1e9 / rate) if rate else folder.period_ns
        self.modalities = tuple(m for m in folder.modalities if m not in without)
        self.cameras: Mapping[Modality, CameraInfo] = folder.cameras
        self.total = len(self._shots)
        # Evenly spread from there on, at the given rate.
        self.start_ns = self._shots[0].stamps_ns[Modality.RGB] or _FIRST_NS
        self.speed = 1.0

    def pictures(self) -> Iterator[Picture]:
        """See `Playback.pictures`."""
        reading: deque[tuple[int, Modality, Future[tuple[NDArray[Any], str]]]] = deque()
        with ThreadPoolExecutor(_READERS, thread_name_prefix="read") as pool:
            for due_ns, modality, path in self._files():
                if len(reading) > _READERS:
                    yield self._picture(*reading.popleft())
                size = self._sizes.get(modality)
                future = pool.submit(read_shot_image, path, modality, size)
                reading.append((due_ns, modality, future))
            while reading:
                yield self._picture(*reading.popleft())

    def _files(self) -> Iterator[tuple[int, Modality, Path]]:
        """When each picture falls due, its camera, its file."""
        for index, shot in enumerate(self._shots):
            offsets = {m: shot.stamps_ns[m] - shot.stamps_ns[Modality.RGB] for m in shot.paths}
            for modality in sorted(offsets, key=lambda m: offsets[m]):
                if modality in self.modalities:
                    due_ns = index * self.period_ns + offsets[modality]
                    yield due_ns, modality, shot.paths[modality]

    def _picture(
        self, due_ns: int, modality: Modality, reading: Future[tuple[NDArray[Any], str]]
    ) -> Picture:
        return Picture(due_ns, self.start_ns + due_ns, modality, *reading.result())


class _BagPlayback:
    """Frames as far apart as their stamps, or evenly closer or wider for another rate."""

    def __init__(
        self, bag: Bag, sizes: Mapping[Modality, Size], rate: float | None, frames: int | None
    ) -> None:
        self._bag = bag
        self._sizes = sizes
        first = bag.first.get(Modality.RGB)
        if first is None:
            raise BagError(f"no RGB image of {bag.path} can be read")
        self.start_ns = first.stamp_ns
        self.period_ns = round(1e9 / rate) if rate else DEFAULT_PERIOD_NS
        self.speed = _recorded_period_ns(bag) / self.period_ns if rate else 1.0
        self.modalities = tuple(bag.topics)
        self.cameras: Mapping[Modality, CameraInfo] = {
            modality: info
            for modality in bag.topics
            if (info := camera_info_beside(bag, modality)) and info.width and info.height
        }
        recorded = bag.topics[Modality.RGB].count
        self.total = min(recorded, frames or recorded)

    def pictures(self) -> Iterator[Picture]:
        """See `Playback.pictures`."""
        seen = 0
        report = ReadingReport()
        for frame, _ in read_frames(self._bag, report):
            if frame.modality is Modality.RGB:
                seen += 1
                if seen > self.total:
                    return
            pixels, encoding = _pixels(frame)
            pixels = resized(pixels, frame.modality, self._sizes.get(frame.modality))
            due_ns = round((frame.stamp_ns - self.start_ns) / self.speed)
            yield Picture(due_ns, frame.stamp_ns, frame.modality, pixels, encoding)
        if report.error:
            raise ImageError(report.error)


def _recorded_period_ns(bag: Bag) -> float:
    """Median time between the first RGB frames of a bag."""
    alone = dataclasses.replace(bag, topics={Modality.RGB: bag.topics[Modality.RGB]})
    first = itertools.islice(read_frames(alone, ReadingReport()), _RATE_SAMPLE)
    gaps = np.diff([frame.stamp_ns for frame, _ in first])
    between = gaps[gaps > 0]
    return float(np.median(between)) if between.size else DEFAULT_PERIOD_NS


def _pixels(frame: Frame) -> tuple[NDArray[Any], str]:
    if frame.modality is Modality.RGB:
        return to_encoding(frame.image, "rgb8"), "rgb8"
    pixels, encoding = decode(frame.image)
    if frame.modality is Modality.DEPTH and encoding == "mono16":
        encoding = "16UC1"
    # A bag may be from a machine of the other byte order, which neither OpenCV nor a player of
    # these pixels expects.
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False), encoding
