"""What the arguments of the command lines may be; argparse shows these messages."""

from __future__ import annotations

import argparse
import math


def number(text: str) -> float:
    """Any finite number, at least 0."""
    value = _read(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is below zero")
    return value


def positive(text: str) -> float:
    """A finite number above 0."""
    value = _read(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not above zero")
    return value


def share(text: str) -> float:
    """A number from 0 to 1."""
    value = _read(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not from 0 to 1")
    return value


def whole(text: str) -> int:
    """A whole number, at least 0."""
    return _whole(text, 0)


def count(text: str) -> int:
    """A whole number, at least 1."""
    return _whole(text, 1)


def size(text: str) -> tuple[int, int]:
    """WIDTHxHEIGHT, given as (height, width)."""
    try:
        width, height = map(int, text.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no WIDTHxHEIGHT, e.g. 640x480") from None
    if min(width, height) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} has no pixels")
    return height, width


def _read(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is no number")
    return value


def _whole(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
    if value < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not at least {least}")
    return value
