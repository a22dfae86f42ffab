"""A bag is played as it was recorded, whatever machine it is from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from bags import PERIOD, TOPICS, Message, cameras, pictures, write_bag

from mmfusion_ros.core.errors import BagError
from mmfusion_ros.core.frames import Modality
from mmfusion_ros.core.playback import Picture, open_playback, rounds

SIZE = (48, 64)


def big_endian(message: Message) -> Message:
    topic, kind, log, image = message
    swapped = image.data.view("<u2").byteswap().view(np.uint8)
    return topic, kind, log, dataclasses.replace(image, data=swapped, is_bigendian=1)


def of(modality: Modality, played: list[Picture]) -> list[Picture]:
    return [picture for picture in played if picture.modality is modality]


def play(bag: Path, **options) -> list[Picture]:
    return list(open_playback(bag, **options).pictures())


def test_pictures_and_their_times(tmp_path):
    played = play(write_bag(tmp_path / "bag", cameras(3, compressed=False)))
    assert len(played) == 9
    for modality, encoding, late in (
        (Modality.RGB, "rgb8", 0),
        (Modality.DEPTH, "16UC1", 0),
        (Modality.THERMAL, "mono16", 3_000_000),
    ):
        for number, picture in enumerate(of(modality, played)):
            assert (picture.due_ns, picture.encoding) == (number * PERIOD + late, encoding)
            np.testing.assert_array_equal(picture.pixels, pictures(number, SIZE)[modality.value])


@pytest.mark.parametrize("size", [None, (24, 32)])
def test_big_endian_pixels_become_native(tmp_path, size):
    messages = cameras(1)
    swapped = [m if m[0] == TOPICS["rgb"] else big_endian(m) for m in messages]
    sizes = dict.fromkeys(Modality, size) if size else None
    expected = play(write_bag(tmp_path / "little", messages), sizes=sizes)
    played = play(write_bag(tmp_path / "big", swapped), sizes=sizes)
    for picture, like in zip(played, expected, strict=True):
        assert picture.pixels.dtype.isnative
        np.testing.assert_array_equal(picture.pixels, like.pixels)


def test_fewer_frames_and_cameras(tmp_path):
    bag = write_bag(tmp_path / "bag", cameras(4))
    played = play(bag, frames=2, without=frozenset({Modality.DEPTH}))
    assert len(of(Modality.RGB, played)) == 2
    assert not of(Modality.DEPTH, played)


@pytest.mark.parametrize(("sets", "expected"), [(3, PERIOD), (1, 33_333_333)])
def test_a_loop_goes_on_at_the_rate_of_the_stamps(tmp_path, sets, expected):
    messages = cameras(sets)
    # An odd companion long after the last RGB picture is no reason for a pause.
    topic, kind, log, late = cameras(1)[2]
    bag = write_bag(tmp_path / "bag", [*messages, (topic, kind, log + 10**10, late)])
    looped = rounds(open_playback(bag), loop=True)
    played = [next(looped) for _ in range(3 * (3 * sets + 1))]
    looped.close()
    dues = [picture.due_ns for picture in of(Modality.RGB, played)]
    assert set(np.diff(dues)) == {expected}


def test_without_a_loop_there_is_one_round(tmp_path):
    playback = open_playback(write_bag(tmp_path / "bag", cameras(2)))
    assert len(list(rounds(playback, loop=False))) == 6


def test_a_loop_of_nothing_ends(tmp_path):
    playback = open_playback(write_bag(tmp_path / "bag", cameras(1)))
    playback.pictures = lambda: iter(())
    assert not list(rounds(playback, loop=True))


def test_rgb_that_cannot_be_read_is_said(tmp_path):
    messages = [m if m[0] != TOPICS["rgb"] else (*m[:3], b"\x00\x01") for m in cameras(2)]
    bag = write_bag(tmp_path / "bag", messages)
    with pytest.raises(BagError, match=r"no RGB image of .*bag can be read"):
        open_playback(bag)


def test_a_rate_for_a_bag_is_refused(tmp_path):
    bag = write_bag(tmp_path / "bag", cameras(1))
    with pytest.raises(BagError, match="recorded rate; leave out --rate"):
        open_playback(bag, rate=5.0)
