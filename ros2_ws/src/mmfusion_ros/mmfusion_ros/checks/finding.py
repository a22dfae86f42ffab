"""What a check says: a level, what was found, what was expected, what to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Level(str, Enum):
    """How much a finding matters, least first."""

    SKIPPED = "skipped"  # not looked at: found says why
    OK = "ok"
    NOTE = "note"  # worth knowing; nothing need be done
    WARNING = "warning"  # images or results may suffer
    ERROR = "error"  # it will not work like this

    def __str__(self) -> str:
        return self.value

    @property
    def severity(self) -> int:
        """Place in the order of the levels."""
        return list(Level).index(self)


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report.

    Attributes:
        check: what was looked at, like ``dds.profile``; scripts may rely on it.
        level: how much it matters.
        found: what is the case, in plain words.
        expected: what should be; empty where all is well.
        advice: what to do; empty where nothing is to be done.
        values: the figures behind it, for scripts.
    """

    check: str
    level: Level
    found: str
    expected: str = ""
    advice: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)


def ok(check: str, found: str, **values: Any) -> Finding:
    """All is well."""
    return Finding(check, Level.OK, found, values=values)


def skipped(check: str, why: str) -> Finding:
    """It was not looked at."""
    return Finding(check, Level.SKIPPED, why)
