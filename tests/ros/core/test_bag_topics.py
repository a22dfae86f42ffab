"""Topics are found by name, encoding and transport; where that is not clear, a table says why."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from bags import (
    COMPRESSED,
    IMAGE,
    START,
    TOPICS,
    cameras,
    compressed_depth,
    image,
    jpeg,
    pictures,
    png,
    write_bag,
    write_ros1_bag,
)

from mmfusion_ros.core.bag_reader import ReadingReport, open_bag, read_frames
from mmfusion_ros.core.errors import BagError
from mmfusion_ros.core.frames import Modality
from mmfusion_ros.core.images import to_encoding

SIZE = (48, 64)
DEPTH = TOPICS["depth"]


def with_depth(*transports: str, sets: int = 2) -> list:
    """Depth in some transports only."""
    messages = []
    for topic, kind, log_time, message in cameras(sets):
        if topic != DEPTH:
            messages.append((topic, kind, log_time, message))
            continue
        pixels = message.data.view(np.uint16).reshape(SIZE)
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        made = {
            "": (IMAGE, message),
            "/compressed": (COMPRESSED, png(pixels, stamp, "16UC1; png compressed ")),
            "/compressedDepth": (COMPRESSED, compressed_depth(pixels, stamp)),
        }
        messages += [(topic + end, made[end][0], log_time, made[end][1]) for end in transports]
    return messages


@pytest.mark.parametrize("writer", [write_bag, write_ros1_bag])
@pytest.mark.parametrize(
    ("transports", "expected"),
    [
        (("/compressedDepth", "/compressed", ""), ""),
        (("/compressedDepth", "/compressed"), "/compressed"),
        (("/compressedDepth",), "/compressedDepth"),
    ],
)
def test_the_best_transport_of_depth(tmp_path, writer, transports, expected):
    path = writer(tmp_path / "bag.bag", with_depth(*transports))
    bag = open_bag(path)
    assert bag.topics[Modality.DEPTH].name == DEPTH + expected
    assert set(bag.topics) == set(Modality)
    report = ReadingReport()
    depth = [f for f, _ in read_frames(bag, report) if f.modality is Modality.DEPTH]
    assert report == ReadingReport()
    for number, frame in enumerate(depth):
        pixels = to_encoding(frame.image, "16UC1").reshape(-1).view("<u2").reshape(SIZE)
        np.testing.assert_array_equal(pixels, pictures(number, SIZE)["depth"])


def test_compressed_depth_is_for_depth_alone(tmp_path):
    path = write_bag(tmp_path / "bag", with_depth("/compressedDepth"))
    with pytest.raises(BagError, match="compressed depth, which cannot be thermal"):
        open_bag(path, {Modality.THERMAL: f"{DEPTH}/compressedDepth"})


def test_png_of_16_bits_as_thermal(tmp_path):
    messages = []
    for topic, kind, log_time, message in cameras(2):
        if topic == TOPICS["thermal"]:
            pixels = message.data.view(np.uint16).reshape(SIZE)
            made = png(pixels, START, "mono16; png compressed ")
            messages.append((f"{topic}/compressed", COMPRESSED, log_time, made))
        else:
            messages.append((topic, kind, log_time, message))
    bag = open_bag(write_bag(tmp_path / "bag", messages))
    assert bag.topics[Modality.THERMAL].name == f"{TOPICS['thermal']}/compressed"


def renamed(names: dict[str, str]) -> list:
    return [(names.get(topic, topic), *rest) for topic, *rest in cameras(2)]


def test_a_guess_by_encoding_is_said(tmp_path):
    bag = open_bag(write_bag(tmp_path / "bag", renamed({TOPICS["thermal"]: "/camera_3"})))
    assert bag.guesses == {Modality.THERMAL: "guessed from its encoding mono16"}
    bag = open_bag(write_bag(tmp_path / "named", cameras(2)))
    assert bag.guesses == {}


def test_compressed_colour_tells_by_itself(tmp_path):
    messages = [m for m in cameras(2) if m[0] != TOPICS["rgb"]]
    messages.append(("/front", COMPRESSED, START, jpeg(pictures(0, SIZE)["rgb"], START)))
    bag = open_bag(write_bag(tmp_path / "bag", messages))
    assert bag.topics[Modality.RGB].name == "/front"


def test_a_name_that_the_pictures_belie_is_not_believed(tmp_path):
    """A coloured view of the depth is no depth."""
    view = image(pictures(0, SIZE)["rgb"], "bgr8", START)
    path = write_bag(tmp_path / "bag", [*cameras(2), ("/depth/coloured", IMAGE, START, view)])
    assert open_bag(path).topics[Modality.DEPTH].name == DEPTH
    only = [m for m in cameras(2) if m[0] != DEPTH]
    path = write_bag(tmp_path / "only", [*only, ("/depth/coloured", IMAGE, START, view)])
    with pytest.raises(BagError, match="no topic looks like depth") as caught:
        open_bag(path)
    assert "named like depth, but bgr8 is not" in str(caught.value)


def test_the_table_says_what_cannot_be_told(tmp_path):
    grey = image(np.zeros(SIZE, np.uint8), "mono8", START)
    broken = dataclasses.replace(grey, data=grey.data[:-9])
    messages = [m for m in cameras(2) if m[0] != TOPICS["rgb"]]
    messages += [("/left", IMAGE, START, grey), ("/right", IMAGE, START, broken)]
    with pytest.raises(BagError, match=r"no topic looks like rgb.*--rgb-topic") as caught:
        open_bag(write_bag(tmp_path / "bag", messages))
    rows = {line.split()[0]: line for line in str(caught.value).splitlines()[1:]}
    assert "mono8" in rows["/left"]
    assert rows["/left"].endswith("unclear")
    assert " ? " in rows["/right"]
