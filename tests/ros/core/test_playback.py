"""A bag is played as it was recorded, whatever machine it is from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
from bags import (
    PERIOD,
    START,
    TOPICS,
    Message,
    camera_info,
    cameras,
    pictures,
    write_bag,
)

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


@pytest.mark.parametrize("rate", [2.0, 10.0, 40.0])
def test_a_bag_is_stretched_to_a_rate(tmp_path, rate):
    bag = write_bag(tmp_path / "bag", cameras(3))
    as_recorded, stretched = play(bag), play(bag, rate=rate)
    playback = open_playback(bag, rate=rate)
    assert playback.speed == pytest.approx(PERIOD * rate * 1e-9)
    for picture, recorded in zip(stretched, as_recorded, strict=True):
        assert picture.due_ns == pytest.approx(recorded.due_ns / playback.speed, abs=1)
        assert picture.stamp_ns == recorded.stamp_ns
    assert {p.due_ns for p in of(Modality.RGB, stretched)} == {
        round(number * 1e9 / rate) for number in range(3)
    }


def test_the_rate_of_a_bag_with_one_rgb_frame_is_taken_as_the_default(tmp_path):
    bag = write_bag(tmp_path / "bag", cameras(1))
    assert open_playback(bag, rate=30.0).speed == pytest.approx(1.0, abs=1e-6)


def test_stamps_of_the_recording_go_back_with_each_round(tmp_path):
    playback = open_playback(write_bag(tmp_path / "bag", cameras(2)))
    looped = rounds(playback, loop=True, recorded_stamps=True)
    played = [next(looped) for _ in range(12)]
    looped.close()
    assert playback.start_ns == START
    assert [p.stamp_ns for p in played[6:]] == [p.stamp_ns for p in played[:6]]
    assert {p.stamp_ns for p in of(Modality.RGB, played)} == {START, START + PERIOD}
    assert {p.round_ns for p in played[:6]} == {0}
    assert {p.round_ns for p in played[6:]} == {2 * PERIOD}
    for picture in played:
        assert picture.due_ns - picture.round_ns == picture.stamp_ns - START


def test_stamps_of_this_machine_go_on(tmp_path):
    looped = rounds(open_playback(write_bag(tmp_path / "bag", cameras(2))), loop=True)
    played = [next(looped) for _ in range(12)]
    looped.close()
    assert all(picture.stamp_ns == picture.due_ns for picture in played)


@pytest.mark.parametrize("room", [1, 10**9])
def test_a_short_recording_is_read_once(tmp_path, monkeypatch, room):
    playback = open_playback(write_bag(tmp_path / "bag", cameras(2)))
    readings = []
    read = playback.pictures

    def count():
        readings.append(1)
        return read()

    playback.pictures = count
    monkeypatch.setattr("mmfusion_ros.core.playback.CACHE_BYTES", room)
    looped = rounds(playback, loop=True)
    played = [next(looped) for _ in range(18)]
    looped.close()
    assert len(readings) == (3 if room == 1 else 1)
    for number in range(6):
        for again in (6, 12):
            np.testing.assert_array_equal(played[number].pixels, played[number + again].pixels)


def test_cameras_of_a_bag_are_known(tmp_path):
    infos = [
        camera_info("/camera/color/camera_info", 50.0),
        camera_info("/thermal/camera_info", 40.0, (24, 32)),
    ]
    playback = open_playback(write_bag(tmp_path / "bag", [*infos, *cameras(1)]))
    assert set(playback.cameras) == {Modality.RGB, Modality.THERMAL}
    rgb, thermal = (playback.cameras[key] for key in (Modality.RGB, Modality.THERMAL))
    assert (rgb.width, rgb.height, rgb.k[0]) == (64, 48, 50.0)
    assert (thermal.width, thermal.height, thermal.k[0]) == (32, 24, 40.0)


def test_a_folder_without_stamps_starts_at_a_time_that_is_one(tmp_path):
    (tmp_path / "rgb").mkdir()
    for number in range(2):
        cv2.imwrite(str(tmp_path / "rgb" / f"{number}.png"), np.zeros((4, 6, 3), np.uint8))
    playback = open_playback(tmp_path, rate=10.0)
    assert [p.stamp_ns for p in playback.pictures()] == [10**9, 10**9 + PERIOD]
    (tmp_path / "stamps.csv").write_text("stem,rgb_ns\n0,7000000000\n1,7100000000\n")
    assert open_playback(tmp_path).start_ns == 7 * 10**9
