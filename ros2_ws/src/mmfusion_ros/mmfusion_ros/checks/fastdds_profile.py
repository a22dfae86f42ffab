"""What a Fast DDS profile file gives a participant, as far as images are concerned."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

DEFAULT_SEGMENT = 512 << 10


@dataclass(frozen=True)
class FastDdsProfile:
    """What the default participant of a profile file gets.

    Attributes:
        segment_bytes: of its shared memory; None without shared memory.
        udp: whether it also speaks UDP, to other machines and containers.
        problem: why Fast DDS does not use it as it stands; empty if it does.
    """

    segment_bytes: int | None
    udp: bool
    problem: str = ""


class _UnusableError(Exception):
    """Fast DDS does not use a profile; the message says why."""


def read_profile(path: Path) -> FastDdsProfile:
    """Read a profile file; what is wrong with it is its ``problem``."""
    try:
        return _read(path)
    except _UnusableError as error:
        return FastDdsProfile(DEFAULT_SEGMENT, udp=True, problem=str(error))


def _read(path: Path) -> FastDdsProfile:
    try:
        root = ET.fromstring(path.read_bytes())  # noqa: S314 (a file of this machine, which its programs read)
    except OSError as error:
        raise _UnusableError(f"it cannot be read ({error.strerror})") from error
    except ET.ParseError as error:
        raise _UnusableError(f"it is not XML ({error})") from error
    defaults = [
        participant
        for participant in root.iter()
        if _name(participant) == "participant" and participant.get("is_default_profile") == "true"
    ]
    if not defaults:
        raise _UnusableError('no participant in it has is_default_profile="true", so none is used')
    participant = defaults[0]
    named = [_text(element) for element in _all(participant, "userTransports", "transport_id")]
    builtin = [_text(element) != "false" for element in _all(participant, "useBuiltinTransports")]
    transports = {
        _text(identifier): descriptor
        for descriptor in _all(root, "transport_descriptor")
        for identifier in _all(descriptor, "transport_id")
    }
    unknown = [name for name in named if name not in transports]
    if unknown:
        raise _UnusableError(f"its participant uses an undefined transport {unknown[0]!r}")
    uses_builtin = all(builtin)
    segment = DEFAULT_SEGMENT if uses_builtin else None
    udp = uses_builtin
    for name in named:
        kind = "".join(map(_text, _all(transports[name], "type")))
        if kind == "SHM":
            size = _number(transports[name], "segment_size", DEFAULT_SEGMENT)
            largest = _number(transports[name], "maxMessageSize", 0)
            if largest > size:
                raise _UnusableError(
                    f"maxMessageSize {largest} is larger than segment_size {size}: Fast DDS then "
                    "goes on without this shared memory"
                )
            segment = max(segment or 0, size)
        elif kind.startswith("UDP"):
            udp = True
    return FastDdsProfile(segment, udp)


def _name(element: ET.Element) -> str:
    return str(element.tag).rpartition("}")[2]  # with and without a namespace


def _all(element: ET.Element, *path: str) -> list[ET.Element]:
    found = [element]
    for name in path:
        found = [child for parent in found for child in parent.iter() if _name(child) == name]
    return found


def _text(element: ET.Element) -> str:
    return (element.text or "").strip()


def _number(descriptor: ET.Element, name: str, default: int) -> int:
    texts = [_text(element) for element in _all(descriptor, name)]
    try:
        return int(texts[0]) if texts else default
    except ValueError:
        raise _UnusableError(f"{name} is {texts[0]!r}, not a number of bytes") from None
