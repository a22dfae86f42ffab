"""A folder of images or a bag, as pictures that fall due one after the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from mmfusion_ros.core.bag_reader import Bag, ReadingReport, open_bag, read_frames
from mmfusion_ros.core.errors import BagError, ImageError
from mmfusion_ros.core.frames import Frame, Modality
from mmfusion_ros.core.image_folder import (
    DEFAULT_PERIOD_NS,
    FolderCamera,
    ImageFolder,
    Size,
    open_image_folder,
    read_shot_image,
    resized,
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
        period_ns: between two RGB pictures, where they do not tell themselves.
        total: RGB pictures.
    """

    modalities: tuple[Modality, ...]
    cameras: Mapping[Modality, FolderCamera]
    period_ns: int
    total: int

    def pictures(self) -> Iterator[Picture]:
        """The pictures in the order in which they were taken, read as they are asked for.

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
        rate: RGB pictures per second; None for the recorded rate. Folders only.
        frames: play at most this many RGB pictures.
        without: cameras to leave out.

    Raises:
        BagError, ImageError: if there is nothing to play, or a bag is to change its rate.
    """
    if _is_bag(source):
        # Said rather than ignored: whoever gives a rate relies on it.
        if rate is not None:
            raise BagError(f"{source} is a bag and plays at its recorded rate; leave out --rate")
        return _BagPlayback(open_bag(source, without=without), sizes or {}, frames)
    return _FolderPlayback(open_image_folder(source), sizes or {}, rate, frames, without)


def rounds(playback: Playback, *, loop: bool) -> Generator[Picture, None, None]:
    """The pictures of a playback, again and again if looped, as one long recording.

    Raises:
        ImageError: when it comes to a picture that cannot be read.
    """
    start_ns = 0
    while True:
        last_ns = seen = 0
        for picture in playback.pictures():
            if picture.modality is Modality.RGB:
                last_ns, seen = max(last_ns, picture.due_ns), seen + 1
            yield dataclasses.replace(picture, due_ns=start_ns + picture.due_ns)
        if not loop or not seen:
            return
        gap_ns = last_ns // max(1, seen - 1)
        start_ns += last_ns + (gap_ns or playback.period_ns)


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
        self.cameras = folder.cameras
        self.total = len(self._shots)

    def pictures(self) -> Iterator[Picture]:
        """See `Playback.pictures`."""
        for index, shot in enumerate(self._shots):
            offsets = {m: shot.stamps_ns[m] - shot.stamps_ns[Modality.RGB] for m in shot.paths}
            for modality in sorted(offsets, key=lambda m: offsets[m]):
                if modality in self.modalities:
                    path = shot.paths[modality]
                    pixels, encoding = read_shot_image(path, modality, self._sizes.get(modality))
                    due_ns = index * self.period_ns + offsets[modality]
                    yield Picture(due_ns, modality, pixels, encoding)


class _BagPlayback:
    """Frames as far apart as their stamps."""

    def __init__(self, bag: Bag, sizes: Mapping[Modality, Size], frames: int | None) -> None:
        self._bag = bag
        self._sizes = sizes
        first = bag.first.get(Modality.RGB)
        if first is None:
            raise BagError(f"no RGB image of {bag.path} can be read")
        self._start_ns = first.stamp_ns
        self.period_ns = DEFAULT_PERIOD_NS
        self.modalities = tuple(bag.topics)
        self.cameras: Mapping[Modality, FolderCamera] = {}
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
            yield Picture(frame.stamp_ns - self._start_ns, frame.modality, pixels, encoding)
        if report.error:
            raise ImageError(report.error)


def _pixels(frame: Frame) -> tuple[NDArray[Any], str]:
    if frame.modality is Modality.RGB:
        return to_encoding(frame.image, "rgb8"), "rgb8"
    pixels, encoding = decode(frame.image)
    if frame.modality is Modality.DEPTH and encoding == "mono16":
        encoding = "16UC1"
    # A bag may be from a machine of the other byte order, which neither OpenCV nor a player of
    # these pixels expects.
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False), encoding
