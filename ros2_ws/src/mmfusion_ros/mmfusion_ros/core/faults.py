"""Faults of cameras, put into a stream of pictures on purpose and the same way on every run.

A fault is written ``CAMERA:KIND=VALUE[@START[-END]]``, times in seconds from the first RGB
picture: ``thermal:drop=0.2``, ``depth:delay_ms=40@5-10``, ``all:jump_s=-3@5``.
"""

from __future__ import annotations

import dataclasses
import heapq
import math
import re
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mmfusion_ros.core.errors import MmfusionError
from mmfusion_ros.core.frames import Modality
from mmfusion_ros.core.playback import Picture

ALL_CAMERAS = "all"
FORM = "CAMERA:KIND=VALUE[@START[-END]]"

_SECOND_NS = 1_000_000_000
_LONGEST_DELAY_MS = 10_000.0
_LONGEST_S = 1e6
_SYNTAX = re.compile(
    r"(?P<camera>\w+):(?P<kind>\w+)=(?P<values>[^@]+)(@(?P<start>[^-@]+)(-(?P<end>[^-@]+))?)?"
)

# What a fault makes of a picture; None for nothing.
_Effect = Callable[[Picture, np.random.Generator], "Picture | None"]


@dataclass(frozen=True)
class _Kind:
    """One row of the table of faults.

    Attributes:
        make: an effect for values; called once for each camera, as an effect may remember.
        values: name, lowest and highest of each value.
        meaning: one line.
        lasts: whether the value is how long it lasts, in seconds.
    """

    make: Callable[..., _Effect]
    values: tuple[tuple[str, float, float], ...]
    meaning: str
    lasts: bool = False


@dataclass(frozen=True)
class Fault:
    """One fault of one camera or of all.

    Attributes:
        text: as it was written.
        cameras: whose.
        kind: a name of the table.
        values: numbers of that kind, checked.
        start_ns, end_ns: from the first RGB picture, end not included; None for no end.
    """

    text: str
    cameras: tuple[Modality, ...]
    kind: str
    values: tuple[float, ...]
    start_ns: int | None
    end_ns: int | None

    def is_on(self, due_ns: int) -> bool:
        """Whether it concerns a picture that falls due then."""
        started = self.start_ns is None or due_ns >= self.start_ns
        return started and (self.end_ns is None or due_ns < self.end_ns)


def parse_fault(text: str) -> Fault:
    """Read a fault as a user writes it.

    Raises:
        MmfusionError: if it is none; the message lists what there is.
    """
    match = _SYNTAX.fullmatch(text.strip())
    if match is None:
        raise _refusal(text, f"it is not of the form {FORM}")
    name = match["camera"]
    if name != ALL_CAMERAS and name not in set(map(str, Modality)):
        raise _refusal(text, f"there is no camera {name!r}")
    kind = _KINDS.get(match["kind"])
    if kind is None:
        raise _refusal(text, f"there is no kind {match['kind']!r}")
    parts = match["values"].split(",")
    if len(parts) != len(kind.values):
        raise _refusal(text, f"{match['kind']} takes {len(kind.values)} value(s)")
    values = tuple(
        _number(text, part, *limits) for part, limits in zip(parts, kind.values, strict=True)
    )
    start_ns, end_ns = (
        None if part is None else round(_number(text, part, "a time", 0.0, _LONGEST_S) * _SECOND_NS)
        for part in (match["start"], match["end"])
    )
    if kind.lasts:
        if end_ns is not None:
            raise _refusal(text, "its value is how long it lasts; leave the end out")
        end_ns = (start_ns or 0) + round(values[0] * _SECOND_NS)
    if end_ns is not None and end_ns <= (start_ns or 0):
        raise _refusal(text, "it ends before it starts")
    cameras = tuple(Modality) if name == ALL_CAMERAS else (Modality(name),)
    return Fault(text, cameras, match["kind"], values, start_ns, end_ns)


def describe_kinds() -> str:
    """The kinds of faults, one a line."""
    forms = {_form(name): kind.meaning for name, kind in _KINDS.items()}
    width = max(map(len, forms))
    return "\n".join(f"  {form:<{width}}  {meaning}" for form, meaning in forms.items())


def with_faults(
    pictures: Iterable[Picture], faults: Sequence[Fault], seed: int = 0
) -> Generator[Picture, None, None]:
    """Put faults into pictures.

    Each fault draws numbers of its own, so another one beside it changes nothing of what it does.
    Faults of one camera act in the order in which they are given.

    Args:
        pictures: in the order in which they fall due; not changed.
        faults: any number.
        seed: with the same one the same pictures come out.

    Returns:
        The pictures in the order in which they fall due now.
    """
    acting: dict[Modality, list[tuple[Fault, _Effect, np.random.Generator]]] = {}
    for number, fault in enumerate(faults):
        for camera in fault.cameras:
            rng = np.random.default_rng([seed, number, list(Modality).index(camera)])
            effect = _KINDS[fault.kind].make(*fault.values)
            acting.setdefault(camera, []).append((fault, effect, rng))
    # No fault sends a picture earlier, so what falls due before the next one comes can go.
    waiting: list[tuple[int, int, Picture]] = []
    for number, picture in enumerate(pictures):
        while waiting and waiting[0][0] <= picture.due_ns:
            yield heapq.heappop(waiting)[2]
        changed = _changed(picture, acting.get(picture.modality, ()))
        if changed is not None:
            heapq.heappush(waiting, (changed.due_ns, number, changed))
    while waiting:
        yield heapq.heappop(waiting)[2]


def _changed(
    picture: Picture, acting: Iterable[tuple[Fault, _Effect, np.random.Generator]]
) -> Picture | None:
    due_ns = picture.due_ns
    for fault, effect, rng in acting:
        if fault.is_on(due_ns):
            changed = effect(picture, rng)
            if changed is None:
                return None
            picture = changed
    return picture


# The effects.


def _drop(share: float) -> _Effect:
    return lambda picture, rng: None if rng.random() < share else picture


def _stall(_seconds: float) -> _Effect:
    return lambda _picture, _rng: None


def _freeze(_seconds: float) -> _Effect:
    first: Picture | None = None

    def effect(picture: Picture, _rng: np.random.Generator) -> Picture:
        nonlocal first
        first = first or picture
        return dataclasses.replace(picture, pixels=first.pixels, encoding=first.encoding)

    return effect


def _delay(milliseconds: float) -> _Effect:
    late_ns = round(milliseconds * 1e6)
    return lambda picture, _: dataclasses.replace(picture, due_ns=picture.due_ns + late_ns)


def _jitter(milliseconds: float) -> _Effect:
    most_ns = round(milliseconds * 1e6)

    def effect(picture: Picture, rng: np.random.Generator) -> Picture:
        late_ns = int(rng.integers(0, most_ns, endpoint=True))
        return dataclasses.replace(picture, due_ns=picture.due_ns + late_ns)

    return effect


def _jump(seconds: float) -> _Effect:
    by_ns = round(seconds * _SECOND_NS)
    return lambda picture, _: dataclasses.replace(picture, stamp_ns=picture.stamp_ns + by_ns)


def _noise(sigma: float) -> _Effect:
    def effect(picture: Picture, rng: np.random.Generator) -> Picture:
        pixels = picture.pixels
        grain = rng.standard_normal(pixels.shape, np.float32) * np.float32(sigma)
        if pixels.dtype.kind == "f":
            noisy = pixels + grain / 1000  # metres
        else:
            highest = np.iinfo(pixels.dtype).max
            noisy = np.clip(np.rint(pixels + grain), 0, highest).astype(pixels.dtype)
        if picture.modality is Modality.DEPTH:
            noisy[pixels == 0] = 0  # a pixel without depth stays one
        return dataclasses.replace(picture, pixels=noisy)

    return effect


def _shift(x: float, y: float) -> _Effect:
    return _warp(lambda _: np.array([[1.0, 0.0, x], [0.0, 1.0, y]]))


def _rotate(degrees: float) -> _Effect:
    return _warp(lambda centre: cv2.getRotationMatrix2D(centre, degrees, 1.0))


def _scale(factor: float) -> _Effect:
    return _warp(lambda centre: cv2.getRotationMatrix2D(centre, 0.0, factor))


def _warp(matrix: Callable[[tuple[float, float]], NDArray[Any]]) -> _Effect:
    def effect(picture: Picture, _rng: np.random.Generator) -> Picture:
        height, width = picture.pixels.shape[:2]
        is_depth = picture.modality is Modality.DEPTH
        pixels = cv2.warpAffine(
            picture.pixels,
            matrix(((width - 1) / 2, (height - 1) / 2)),
            (width, height),
            # Depth must not be mixed across edges, nor made up where the camera does not look.
            flags=cv2.INTER_NEAREST if is_depth else cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT if is_depth else cv2.BORDER_REPLICATE,
        )
        return dataclasses.replace(picture, pixels=pixels)

    return effect


def _truncate(share: float) -> _Effect:
    return lambda picture, _: dataclasses.replace(picture, sent=picture.sent * share)


_KINDS: dict[str, _Kind] = {
    "drop": _Kind(_drop, (("SHARE", 0, 1),), "leave out this share of the pictures"),
    "stall": _Kind(_stall, (("SECONDS", 0, _LONGEST_S),), "send nothing for so long", lasts=True),
    "freeze": _Kind(
        _freeze,
        (("SECONDS", 0, _LONGEST_S),),
        "send one picture again and again for so long; stamps go on",
        lasts=True,
    ),
    "delay_ms": _Kind(
        _delay, (("MS", 0, _LONGEST_DELAY_MS),), "send later; stamps stay what they are"
    ),
    "jitter_ms": _Kind(
        _jitter, (("MS", 0, _LONGEST_DELAY_MS),), "send later by at most this, evenly drawn"
    ),
    "jump_s": _Kind(_jump, (("SECONDS", -_LONGEST_S, _LONGEST_S),), "add this to the stamps"),
    "noise": _Kind(
        _noise,
        (("SIGMA", 0, 65535),),
        "add Gaussian noise, in grey levels, counts or millimetres",
    ),
    "shift": _Kind(
        _shift, (("X", -10_000, 10_000), ("Y", -10_000, 10_000)), "move the picture, in pixels"
    ),
    "rotate_deg": _Kind(
        _rotate, (("DEGREES", -360, 360),), "turn the picture, anticlockwise about its centre"
    ),
    "scale": _Kind(_scale, (("FACTOR", 0.01, 100),), "enlarge the picture about its centre"),
    "truncate": _Kind(_truncate, (("SHARE", 0, 1),), "send only this share of an image's bytes"),
}


def _form(name: str) -> str:
    return f"{name}={','.join(label for label, _, _ in _KINDS[name].values)}"


def _number(text: str, part: str, label: str, lowest: float, highest: float) -> float:
    try:
        value = float(part)
    except ValueError:
        raise _refusal(text, f"{part.strip()!r} is no number") from None
    if not (math.isfinite(value) and lowest <= value <= highest):
        raise _refusal(text, f"{label} is {part.strip()}; expected {lowest:g} to {highest:g}")
    return value


def _refusal(text: str, problem: str) -> MmfusionError:
    cameras = ", ".join([*map(str, Modality), ALL_CAMERAS])
    return MmfusionError(
        f"{text!r} is no fault: {problem}. Expected {FORM}, times in seconds; "
        f"CAMERA is one of {cameras}; KIND=VALUE is one of\n{describe_kinds()}"
    )
