"""What the cameras deliver: one frame of one camera, and the set belonging to one instant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from numpy.typing import NDArray


class Modality(str, Enum):
    """A camera of the rig, named as in topics, parameters and manifests."""

    RGB = "rgb"
    DEPTH = "depth"
    THERMAL = "thermal"

    def __str__(self) -> str:
        return self.value


class Absence(str, Enum):
    """Why a modality takes no part in a frame set."""

    ABSENT = "absent"  # the camera has delivered nothing since the start or the last time jump
    LATE = "late"  # the camera is alive, but no matching frame came before the wait was over
    STALE = "stale"  # its nearest frame lies outside the match window
    FROZEN = "frozen"  # frames keep coming but show one picture (shutter calibration, hung driver)
    INVALID = "invalid"  # a matching frame came, but its image could not be read

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, eq=False)
class SourceImage:
    """An image as a message carries it, not yet looked at.

    Holds a reference to the message's buffer, no copy. Raw images follow
    ``sensor_msgs/Image``; a compressed one (``sensor_msgs/CompressedImage``) has its
    ``format`` as ``encoding`` and zero ``height``, ``width`` and ``step``.

    Attributes:
        data: any object with the buffer protocol (array.array, bytes, ndarray).
        height, width: pixels.
        encoding: as in ``sensor_msgs/Image`` (rgb8, 16UC1, ...) or a compressed format.
        step: bytes per row, padding included.
        is_bigendian: byte order of multi-byte pixels.
        compressed: True if ``data`` is a JPEG or PNG file.
        convert: gives the pixels in an encoding that is read natively, for an image whose own is
            not; raises `ImageError` if it cannot. None where nothing does.
    """

    data: Any
    height: int
    width: int
    encoding: str
    step: int
    is_bigendian: bool = False
    compressed: bool = False
    convert: Callable[[str], NDArray[Any]] | None = None


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of one camera.

    Attributes:
        modality: which camera.
        stamp_ns: exposure time in integer nanoseconds (the message header's stamp).
        frame_id: optical frame of the camera (REP 103/105).
        image: the picture, undecoded.
        fingerprint: cheap digest of the picture; equal digests on successive frames
            mean the camera repeats itself. None if not computed.
    """

    modality: Modality
    stamp_ns: int
    frame_id: str
    image: SourceImage
    fingerprint: int | None = None


@dataclass(frozen=True, eq=False)
class Companion:
    """The depth or thermal side of a frame set: a frame, or why there is none.

    Attributes:
        frame: the matched frame; None when the modality takes no part.
        absence: the reason; None exactly when ``frame`` is given.
        age_ns: how far the frame (or, when absent, the camera's nearest known frame) lies
            before the instant it was wanted for; negative if after; None if nothing is known.
    """

    frame: Frame | None
    absence: Absence | None
    age_ns: int | None

    def __post_init__(self) -> None:
        if (self.frame is None) == (self.absence is None):
            raise ValueError("a Companion has either a frame or the reason for its absence")


@dataclass(frozen=True, eq=False)
class FrameSet:
    """What belongs to the instant of one RGB frame."""

    rgb: Frame
    depth: Companion
    thermal: Companion

    @property
    def stamp_ns(self) -> int:
        """Stamp of the RGB frame, which everything published from this set carries."""
        return self.rgb.stamp_ns

    def companion(self, modality: Modality) -> Companion:
        """The companion of ``modality`` (DEPTH or THERMAL)."""
        if modality is Modality.RGB:
            raise ValueError("the RGB frame is the reference of a set, not a companion")
        return self.depth if modality is Modality.DEPTH else self.thermal
