"""The clock that stamps images."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator
from dataclasses import dataclass

from mmfusion_ros.checks.finding import Finding, Level, ok, skipped
from mmfusion_ros.checks.subject import Setup

_TIME_ERROR = 5  # of adjtimex: not synchronised
_UNSYNCHRONISED = 0x0040  # STA_UNSYNC
_JUMP_NS = 5_000_000


class _Timex(ctypes.Structure):
    """Struct timex of <sys/timex.h>, of which three members are read."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 256),
    )


@dataclass(frozen=True)
class ClockPair:
    """Wall and monotonic clock, read together."""

    wall_ns: int
    monotonic_ns: int

    @classmethod
    def read(cls) -> ClockPair:
        """The time now."""
        return cls(time.time_ns(), time.monotonic_ns())

    def jump_ns(self, later: ClockPair) -> int:
        """How far the wall clock was set since, positive if forward."""
        return (later.wall_ns - self.wall_ns) - (later.monotonic_ns - self.monotonic_ns)


def check_synchronisation(setup: Setup) -> Iterator[Finding]:
    """Whether something keeps the clock right."""
    services = [
        name
        for name, path in (
            ("systemd-timesyncd", "run/systemd/timesync/synchronized"),
            ("chrony", "run/chrony"),
            ("ntpd", "run/ntpd.pid"),
            ("PTP", "run/ptp4l"),
        )
        if (setup.root / path).exists()
    ]
    by = f" by {', '.join(services)}" if services else ""
    kernel = _kernel_says()
    if kernel is None:
        yield skipped("clock.sync", "the kernel does not tell whether its clock is synchronised")
        return
    synchronised, error_us = kernel
    if synchronised:
        yield ok(
            "clock.sync",
            f"synchronised{by}, to {error_us / 1000:.3g} ms at worst",
            synchronised=True,
            worst_error_ms=error_us / 1000,
        )
        return
    yield Finding(
        "clock.sync",
        Level.NOTE,
        f"the clock is not synchronised{', though there is ' + by[4:] if by else ''}",
        "NTP or PTP where cameras stamp by a clock of their own, or several machines take part",
        "timedatectl set-ntp true, or chrony; of no matter while all drivers run on this machine",
        {"synchronised": False},
    )


def judge_jump(before: ClockPair, after: ClockPair) -> Finding:
    """Whether the wall clock was set while the doctor ran."""
    jump = before.jump_ns(after)
    if abs(jump) < _JUMP_NS:
        return ok("clock.jump", "the wall clock ran steadily", jump_ms=jump / 1e6)
    return Finding(
        "clock.jump",
        Level.WARNING,
        f"the wall clock was set by {jump / 1e6:.0f} ms while this ran",
        "a clock that is slewed, not set",
        "wait for NTP to settle before starting the cameras (chrony-wait.service, "
        "systemd-time-wait-sync.service): a step back of a second or more resets the synchroniser",
        {"jump_ms": jump / 1e6},
    )


def _kernel_says() -> tuple[bool, int] | None:
    """Whether the kernel's clock is synchronised, and its largest error in microseconds."""
    try:
        adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return None
    timex = _Timex()  # modes 0: read only
    state = adjtimex(ctypes.byref(timex))
    if state < 0:
        return None  # forbidden in this container
    unsynchronised = state == _TIME_ERROR or bool(timex.status & _UNSYNCHRONISED)
    return not unsynchronised, int(timex.maxerror)
