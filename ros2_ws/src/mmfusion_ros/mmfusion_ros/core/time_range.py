"""Which part of a bag is meant: seconds from its start, seconds since the epoch, or a date."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal, InvalidOperation

from mmfusion_ros.core.bag_reader import Bag
from mmfusion_ros.core.errors import BagError

# Seconds since the epoch were that many in March 1973; no bag is three years long.
_ABSOLUTE_FROM_S = 100_000_000
_SECOND = 1_000_000_000
# What every supported Python reads; newer ones read more.
_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d(:\d\d(:\d\d([.,]\d{1,9})?)?)?(Z|[+-]\d\d:\d\d)?)?")
_FRACTION = re.compile(r"(.*:\d\d)[.,](\d{1,9})(.*)")


@dataclass(frozen=True)
class Moment:
    """A time as a user gives it; checked at construction.

    Attributes:
        text: as typed.
        nanoseconds: since the start of the bag or since the epoch.
        absolute: whether it is since the epoch.
    """

    text: str
    nanoseconds: int
    absolute: bool

    @classmethod
    def parse(cls, text: str) -> Moment:
        """Read a time.

        Args:
            text: a number below 100 000 000 counts seconds from the start of the bag, a larger
                one seconds since the epoch; anything else is an ISO 8601 date and time, in UTC
                where it names no zone.

        Raises:
            ValueError: if it is neither.
        """
        try:
            number = Decimal(text)
        except InvalidOperation:
            return cls(text, _date_ns(text), absolute=True)
        if not number.is_finite() or number < 0:
            raise ValueError(f"{text} is not a time; expected seconds, at least 0")
        return cls(text, int(number * _SECOND), absolute=number >= _ABSOLUTE_FROM_S)

    def in_bag(self, bag: Bag) -> int:
        """Log time in nanoseconds."""
        return self.nanoseconds if self.absolute else bag.start_ns + self.nanoseconds

    @property
    def meaning(self) -> str:
        """How it was understood."""
        if not self.absolute:
            return f"{self.text} s from the bag's start"
        return f"{self.text}, that is {_shown(self.nanoseconds)}"


@dataclass(frozen=True)
class TimeRange:
    """From one moment on, and before another one; log times count, not stamps."""

    start: Moment | None = None
    end: Moment | None = None

    def applied(self, bag: Bag) -> tuple[Bag, list[str]]:
        """A bag of which only the range is read, and what the user should know of it.

        Raises:
            BagError: if nothing of the bag lies in the range.
        """
        if self.start is None and self.end is None:
            return bag, []
        bag_end = bag.start_ns + bag.duration_ns
        start = bag.start_ns if self.start is None else self.start.in_bag(bag)
        end = bag_end if self.end is None else self.end.in_bag(bag)
        asked = " and ".join(
            f"--{name} {moment.meaning}"
            for name, moment in (("start", self.start), ("end", self.end))
            if moment is not None
        )
        whole = (
            f"the bag covers {bag.duration_ns / 1e9:.3f} s, from {_shown(bag.start_ns)} "
            f"to {_shown(bag_end)}"
        )
        if start >= end or start >= bag_end or end <= bag.start_ns:
            raise BagError(f"nothing lies in the range of {asked}: {whole}")
        first, last = (
            (time - bag.start_ns) / 1e9 for time in (max(start, bag.start_ns), min(end, bag_end))
        )
        notes = [f"range: {asked}: {first:.3f} s to {last:.3f} s of the bag"]
        if start < bag.start_ns or end > bag_end:
            notes.append(f"the range reaches beyond the bag: {whole}")
        return dataclasses.replace(bag, range_ns=(start, end)), notes


def _date_ns(text: str) -> int:
    # Python 3.10 knows neither Z nor all fractions, and no Python nanoseconds.
    parts = _FRACTION.fullmatch(text)
    plain, fraction, zone = parts.groups() if parts else (text, "", "")
    iso = f"{plain}{zone}".replace("Z", "+00:00") if _DATE.fullmatch(text) else ""
    try:
        date = datetime.fromisoformat(iso)
    except ValueError:
        raise ValueError(
            f"{text} is not a time; expected seconds from the bag's start, seconds since the "
            "epoch, or an ISO 8601 date and time like 2025-06-01T12:30:00Z"
        ) from None
    if date.tzinfo is None:
        date = date.replace(tzinfo=timezone.utc)
    return int(date.timestamp()) * _SECOND + int(fraction.ljust(9, "0"))


def _shown(nanoseconds: int) -> str:
    try:
        date = datetime.fromtimestamp(nanoseconds // _SECOND, timezone.utc)
    except (ValueError, OverflowError, OSError):
        return f"{nanoseconds / 1e9:.3f} s"
    return f"{date:%Y-%m-%dT%H:%M:%S}.{nanoseconds % _SECOND // 1_000_000:03}Z"
