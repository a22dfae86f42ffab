"""A folder of images or a bag, as pictures that fall due one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from mmfusion_ros.core.bag_reader import Bag, ReadingReport, open_bag, read_frames
from mmfusion_ros.core.errors import BagError, ImageError
from mmfusion_ros.core.frames import Frame, Modality
from mmfusion_ros.core.image_folder import (
    FolderCamera,
    ImageFolder,
    Size,
    open_image_folder,
    read_shot_image,
)
from mmfusion_ros.core.images import decode, to_encoding


@dataclass(frozen=True, eq=False)
class Picture:
    """One image of one camera.

    Attributes:
        due_ns: when it falls due, counted from the first RGB picture.
        modality: which camera.
        pixels: C-contiguous, as `encoding` says.
        encoding: as in ``sensor_msgs/Image``.
    """

    due_ns: int
    modality: Modality
    pixels: NDArray[Any]
    encoding: str


class Playback(Protocol):
    """What a player plays.

    Attributes:
        modalities: cameras there are.
        cameras: their intrinsics, as far as they are known.
        duration_ns: from the first RGB picture to where a second round would begin.
        total: RGB pictures.
    """

    modalities: tuple[Modality, ...]
    cameras: Mapping[Modality, FolderCamera]
    duration_ns: int
    total: int

    def pictures(self) -> Iterator[Picture]:
        """The pictures in the order in which they were taken, read as they are asked for.

        Raises:
            ImageError: when it comes to a picture that cannot be read.
        """


def open_playback(
    source: Path,
    *,
    size: Size | None = None,
    rate: float | None = None,
    frames: int | None = None,
    without: frozenset[Modality] = frozenset(),
) -> Playback:
    """Open a folder of images or a bag.

    Args:
        source: see `open_image_folder` and `open_bag`.
        size: (height, width) to resize every picture to; None to leave them.
        rate: RGB pictures per second; None for the recorded rate. Folders only.
        frames: play at most this many RGB pictures.
        without: cameras to leave out.

    Raises:
        BagError, ImageError: if there is nothing to play, or a bag is to change its rate.
    """
    if _is_bag(source):
        if rate is not None:
            raise BagError(f"{source} is a bag and plays at its recorded rate; leave out --rate")
        return _BagPlayback(open_bag(source, without=without), size, frames)
    return _FolderPlayback(open_image_folder(source), size, rate, frames, without)


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
        size: Size | None,
        rate: float | None,
        frames: int | None,
        without: frozenset[Modality],
    ) -> None:
        self._shots = folder.shots[:frames]
        self._size = size
        self._period_ns = round(1e9 / rate) if rate else folder.period_ns
        self.modalities = tuple(m for m in folder.modalities if m not in without)
        self.cameras = folder.cameras
        self.total = len(self._shots)
        self.duration_ns = self.total * self._period_ns

    def pictures(self) -> Iterator[Picture]:
        """See `Playback.pictures`."""
        for index, shot in enumerate(self._shots):
            offsets = {m: shot.stamps_ns[m] - shot.stamps_ns[Modality.RGB] for m in shot.paths}
            for modality in sorted(offsets, key=lambda m: offsets[m]):
                if modality in self.modalities:
                    path = shot.paths[modality]
                    pixels, encoding = read_shot_image(path, modality, self._size)
                    due_ns = index * self._period_ns + offsets[modality]
                    yield Picture(due_ns, modality, pixels, encoding)


class _BagPlayback:
    """Frames as far apart as their stamps."""

    def __init__(self, bag: Bag, size: Size | None, frames: int | None) -> None:
        self._bag = bag
        self._size = size
        self._start_ns = bag.first[Modality.RGB].stamp_ns
        self.modalities = tuple(bag.topics)
        self.cameras: Mapping[Modality, FolderCamera] = {}
        recorded = bag.topics[Modality.RGB].count
        self.total = min(recorded, frames or recorded)
        self.duration_ns = bag.duration_ns * self.total // max(1, recorded - 1)

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
            pixels = _resized(pixels, frame.modality, self._size)
            yield Picture(frame.stamp_ns - self._start_ns, frame.modality, pixels, encoding)
        if report.error:
            raise ImageError(report.error)


def _pixels(frame: Frame) -> tuple[NDArray[Any], str]:
    if frame.modality is Modality.RGB:
        return to_encoding(frame.image, "rgb8"), "rgb8"
    pixels, encoding = decode(frame.image)
    if frame.modality is Modality.DEPTH and encoding == "mono16":
        encoding = "16UC1"
    return pixels, encoding


def _resized(pixels: NDArray[Any], modality: Modality, size: Size | None) -> NDArray[Any]:
    if size is not None and pixels.shape[:2] != size:
        # Depth must not be mixed across edges: that would make up surfaces in mid-air.
        method = cv2.INTER_NEAREST if modality is Modality.DEPTH else cv2.INTER_AREA
        pixels = cv2.resize(pixels, (size[1], size[0]), interpolation=method)
    return np.ascontiguousarray(pixels)
