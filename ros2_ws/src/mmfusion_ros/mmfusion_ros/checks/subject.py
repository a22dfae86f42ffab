"""What is to be examined: the options of the command, and what several checks need of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mmfusion_ros.core.engines.options import EngineOptions
from mmfusion_ros.core.errors import MmfusionError
from mmfusion_ros.core.frames import Modality

if TYPE_CHECKING:
    from mmfusion_ros.core.artifact import Artifact
    from mmfusion_ros.core.rig import Rig

# Bytes of one pixel, by image encoding.
_PIXEL_BYTES = {"rgb8": 3, "16UC1": 2, "32FC1": 4, "mono16": 2, "mono8": 1}
_USUAL_ENCODINGS = {Modality.RGB: "rgb8", Modality.DEPTH: "16UC1", Modality.THERMAL: "mono16"}
_USUAL_SIZE = (480, 640)


@dataclass(frozen=True)
class CameraStream:
    """The images of one camera.

    Attributes:
        modality: which camera.
        encoding: as in ``sensor_msgs/Image``.
        height, width: pixels.
    """

    modality: Modality
    encoding: str
    height: int
    width: int

    @property
    def step(self) -> int:
        """Bytes of one row."""
        return self.width * _PIXEL_BYTES[self.encoding]

    @property
    def bytes(self) -> int:
        """Bytes of one image."""
        return self.height * self.step


@dataclass(frozen=True, eq=False)
class Setup:
    """What to look at.

    Attributes:
        artifact, rig: None where none was given.
        engine: to open.
        rate: frames per second of the cameras.
        size: (height, width) of all cameras; None for those of the artifact or the rig.
        seconds: how long to measure a stream or a live topic.
        streams: whether to send images between two processes.
        quick: leave out what takes long.
        node: full name of a running node to ask; empty for any that is found.
        topics: image topics to look at where no node says which.
        root: where /dev, /proc, /sys and /run lie.
        environment: variables that programs started from here get.
        folder: working folder of such programs.
    """

    artifact: Path | None = None
    rig: Path | None = None
    engine: EngineOptions = field(default_factory=EngineOptions)
    rate: float = 30.0
    size: tuple[int, int] | None = None
    seconds: float = 2.0
    streams: bool = True
    quick: bool = False
    node: str = ""
    topics: Mapping[Modality, str] = field(default_factory=dict)
    root: Path = Path("/")
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    folder: Path = field(default_factory=Path.cwd)

    def read(self, path: str) -> str | None:
        """Content of a small system file such as ``proc/loadavg``; None if it cannot be read."""
        try:
            return (self.root / path).read_text().strip()
        except (OSError, UnicodeDecodeError):
            return None

    def read_number(self, path: str) -> int | None:
        """The number a system file holds; None if it holds none."""
        text = self.read(path)
        try:
            return None if text is None else int(text)
        except ValueError:
            return None

    @cached_property
    def opened_artifact(self) -> Artifact | MmfusionError | None:
        """The artifact, or why it does not open; None if none was given."""
        from mmfusion_ros.core.artifact import open_artifact  # noqa: PLC0415 (--help is quick)

        if self.artifact is None:
            return None
        try:
            return open_artifact(self.artifact)
        except MmfusionError as error:
            return error

    @cached_property
    def loaded_rig(self) -> Rig | MmfusionError | None:
        """The rig, or why it does not load; None if none was given."""
        from mmfusion_ros.core.rig import load_rig  # noqa: PLC0415

        if self.rig is None:
            return None
        try:
            return load_rig(self.rig)
        except MmfusionError as error:
            return error

    @cached_property
    def cameras(self) -> tuple[CameraStream, ...]:
        """The cameras' images: by ``size``, else by the artifact, the rig, or 640x480 each."""
        encodings, sizes = dict(_USUAL_ENCODINGS), dict.fromkeys(Modality, _USUAL_SIZE)
        artifact, rig = self.opened_artifact, self.loaded_rig
        if artifact is not None and not isinstance(artifact, MmfusionError):
            encodings = dict(artifact.encodings)
            sizes = {modality: artifact.image_size(modality) for modality in encodings}
        elif rig is not None and not isinstance(rig, MmfusionError):
            sizes = {name: (camera.height, camera.width) for name, camera in rig.cameras.items()}
        return tuple(
            CameraStream(modality, encodings[modality], *(self.size or sizes[modality]))
            for modality in sizes
        )

    @property
    def set_bytes(self) -> int:
        """Bytes of one image of every camera."""
        return sum(camera.bytes for camera in self.cameras)

    @property
    def largest_bytes(self) -> int:
        """Bytes of the largest image."""
        return max(camera.bytes for camera in self.cameras)


def megabytes(count: float) -> str:
    """Bytes in plain words: KiB, MiB or GiB."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20)):
        if count >= size:
            return f"{count / size:.{0 if count >= 100 * size else 1}f} {unit}".replace(".0 ", " ")
    return f"{count / 1024:.0f} KiB"
