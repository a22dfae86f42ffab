"""A part of a bag: told in three ways, read by log time, refused where it holds nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from bags import PERIOD, START, cameras, write_bag, write_ros1_bag
from rosbags.rosbag2 import StoragePlugin

from mmfusion_ros.core.bag_reader import ReadingReport, open_bag, read_frames, rgb_stamps
from mmfusion_ros.core.errors import BagError
from mmfusion_ros.core.frames import Modality
from mmfusion_ros.core.time_range import Moment, TimeRange

SECOND = 1_000_000_000


def mcap(path: Path) -> Path:
    return write_bag(path, cameras(10))


def sqlite(path: Path) -> Path:
    return write_bag(path, cameras(10), StoragePlugin.SQLITE3)


def ros1(path: Path) -> Path:
    return write_ros1_bag(path.with_suffix(".bag"), cameras(10))


@pytest.mark.parametrize(
    ("text", "nanoseconds", "absolute"),
    [
        ("0", 0, False),
        ("12.5", 12_500_000_000, False),
        ("0.000000001", 1, False),
        ("99999999", 99_999_999 * SECOND, False),
        ("100000000", 100_000_000 * SECOND, True),
        ("1700000000.123456789", 1_700_000_000_123_456_789, True),
        ("2023-11-14T22:13:20Z", START, True),
        ("2023-11-14T22:13:20", START, True),
        ("2023-11-14 23:13:20.250+01:00", START + SECOND // 4, True),
        ("2023-11-14T22:13:20.5Z", START + SECOND // 2, True),
        ("2023-11-14T22:13:20.123456789", START + 123_456_789, True),
        ("2023-11-14T22:13", START - 20 * SECOND, True),
        ("2023-11-15", 1_700_006_400 * SECOND, True),
    ],
)
def test_a_moment(text, nanoseconds, absolute):
    moment = Moment.parse(text)
    assert (moment.nanoseconds, moment.absolute) == (nanoseconds, absolute)


@pytest.mark.parametrize(
    "text",
    [
        *("", "-1", "nan", "inf", "noon", "2023-13-01", "12:30"),
        # Some versions of Python read these.
        *("20231114T221320", "2023-11-14T221320", "2023-W46-2", "2023-11-14T22:13:20+0100"),
    ],
)
def test_what_is_no_moment(text):
    with pytest.raises(ValueError, match="is not a time; expected"):
        Moment.parse(text)


def between(start: str | None, end: str | None) -> TimeRange:
    return TimeRange(*(None if text is None else Moment.parse(text) for text in (start, end)))


@pytest.mark.parametrize("write", [mcap, sqlite, ros1])
@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (None, None, range(10)),
        ("0.3", None, range(3, 10)),  # the bag starts with the first message, 1 ms after START
        (None, "0.3", range(3)),
        ("0.25", "0.65", range(3, 7)),
        ("1700000000.2", "2023-11-14T22:13:20.5Z", range(2, 5)),
        ("0.3", "1000", range(3, 10)),
    ],
)
def test_the_messages_of_a_range(tmp_path, write, start, end, expected):
    bag, notes = between(start, end).applied(open_bag(write(tmp_path / "bag")))
    report = ReadingReport()
    logs = [log for frame, log in read_frames(bag, report) if frame.modality is Modality.RGB]
    assert logs == [START + number * PERIOD + 1_000_000 for number in expected]
    assert report == ReadingReport()
    # Ground truth in order counts all messages.
    assert len(rgb_stamps(bag)) == 10
    assert bool(notes) is not (start is end is None)
    assert any("reaches beyond the bag: the bag covers 0.904 s" in note for note in notes) == (
        end == "1000"
    )


@pytest.mark.parametrize(
    ("start", "end"),
    [("5", None), ("0.5", "0.5"), ("0.6", "0.2"), (None, "2020-01-01"), ("1800000000", None)],
)
def test_nothing_in_the_range(tmp_path, start, end):
    bag = open_bag(mcap(tmp_path / "bag"))
    with pytest.raises(BagError, match="nothing lies in the range of --") as caught:
        between(start, end).applied(bag)
    assert str(caught.value).endswith(
        "the bag covers 0.904 s, from 2023-11-14T22:13:20.001Z to 2023-11-14T22:13:20.905Z"
    )


def test_it_is_said_how_a_moment_was_understood(tmp_path):
    bag = open_bag(mcap(tmp_path / "bag"))
    _, (note,) = between("0.25", "1700000000.5").applied(bag)
    assert note == (
        "range: --start 0.25 s from the bag's start and --end 1700000000.5, that is "
        "2023-11-14T22:13:20.500Z: 0.250 s to 0.499 s of the bag"
    )
