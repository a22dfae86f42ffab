"""Arguments of the command lines are checked, and what is wrong with one is said plainly."""

from __future__ import annotations

import argparse

import pytest

from mmfusion_ros import argument_types as types


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (types.number, "0", 0.0),
        (types.positive, "2.5", 2.5),
        (types.share, "1", 1.0),
        (types.whole, "0", 0),
        (types.count, "7", 7),
        (types.size, "640x480", (480, 640)),
    ],
)
def test_what_is_allowed(kind, text, value):
    assert kind(text) == value


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (types.number, "abc", "'abc' is no number"),
        (types.number, "nan", "'nan' is no number"),
        (types.number, "-1", "'-1' is below zero"),
        (types.positive, "abc", "'abc' is no number"),
        (types.positive, "inf", "'inf' is no number"),
        (types.positive, "0", "'0' is not above zero"),
        (types.share, "1.5", "'1.5' is not from 0 to 1"),
        (types.whole, "1.5", "'1.5' is no whole number"),
        (types.whole, "-1", "'-1' is not at least 0"),
        (types.count, "0", "'0' is not at least 1"),
        (types.size, "640", "'640' is no WIDTHxHEIGHT"),
        (types.size, "0x4", "'0x4' has no pixels"),
    ],
)
def test_what_is_not(kind, text, message):
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        kind(text)
