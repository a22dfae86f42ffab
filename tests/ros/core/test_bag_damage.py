"""Damaged bags of all formats: what is whole is read, also behind the damage, and it is said."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from backports import zstd
from bags import START, TOPICS, cameras, write_bag, write_ros1_bag
from rosbags.rosbag2 import CompressionMode, StoragePlugin

from mmfusion_ros.core.bag_reader import ReadingReport, open_bag, read_frames, rgb_stamps
from mmfusion_ros.core.errors import BagError
from mmfusion_ros.core.frames import Frame, Modality
from mmfusion_ros.core.images import view

SETS = 8
SIZE = (300, 400)  # 360 kB of colour: a chunk of a megabyte holds two sets
SMALL = (75, 100)  # of ROS 1 bags, whose chunks are as small as one likes
FILES = {"mcap": "bag.mcap", "zstd": "bag.mcap", "sqlite": "bag.db3"}
KINDS = [*FILES, "ros1", "bz2", "lz4"]


def write(folder: Path, kind: str, sets: int = SETS) -> Path:
    """A bag; returns the file with the messages."""
    messages = cameras(sets, size=SIZE if kind in FILES else SMALL)
    if kind in FILES:
        storage = StoragePlugin.SQLITE3 if kind == "sqlite" else StoragePlugin.MCAP
        compression = CompressionMode.STORAGE if kind == "zstd" else None
        return write_bag(folder / "bag", messages, storage, compression) / FILES[kind]
    compression = "" if kind == "ros1" else kind.upper()
    return write_ros1_bag(folder / "bag.bag", messages, compression, 1 << 16)


def read(path: Path, **options) -> tuple[list[tuple[Frame, int]], ReadingReport]:
    report = ReadingReport()
    return list(read_frames(open_bag(path, **options), report)), report


def add_checksums(file: Path) -> None:
    """Give the chunks of an MCAP file the checksums that rosbags leaves out and rosbag2 writes."""
    data = bytearray(file.read_bytes())
    offset = 8
    while offset + 9 < len(data) and data[offset] != 2:
        opcode, length = struct.unpack_from("<BQ", data, offset)
        if opcode == 6:
            (name,) = struct.unpack_from("<I", data, offset + 37)
            content = bytes(data[offset + 49 + name : offset + 9 + length])
            if name:
                content = zstd.decompress(content)
            struct.pack_into("<I", data, offset + 33, zlib.crc32(content))
        offset += 9 + length
    file.write_bytes(data)


def bag_of(file: Path) -> Path:
    return file if file.suffix == ".bag" else file.parent


def overwrite(file: Path, share: float, length: int, byte: int = 0xFF) -> None:
    data = bytearray(file.read_bytes())
    place = int(len(data) * share)
    data[place : place + length] = bytes([byte]) * len(data[place : place + length])
    file.write_bytes(data)


def check_whole(frames: list[tuple[Frame, int]], expected: list[tuple[Frame, int]]) -> None:
    """Every frame is one that was recorded, in order, none of them twice."""
    known = {(f.modality, log_time): f for f, log_time in expected}
    keys = [(f.modality, log_time) for f, log_time in frames]
    assert len(set(keys)) == len(keys)
    order = list(known)
    assert [order.index(key) for key in keys] == sorted(order.index(key) for key in keys)
    for frame, log_time in frames:
        np.testing.assert_array_equal(
            view(frame.image), view(known[frame.modality, log_time].image)
        )


@pytest.mark.parametrize("kind", KINDS)
class TestEveryFormat:
    @pytest.mark.parametrize("share", [0.4, 0.7, 0.95])
    def test_cut(self, tmp_path, kind, share):
        file = write(tmp_path, kind)
        whole, _ = read(bag_of(file))
        file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
        frames, report = read(bag_of(file))
        assert file.name in report.error
        assert len(whole) * share - 9 <= len(frames) < len(whole) or share == 0.95
        assert frames
        check_whole(frames, whole)

    def test_the_file_itself_is_left_alone(self, tmp_path, kind):
        file = write(tmp_path, kind)
        file.write_bytes(file.read_bytes()[:-5000])
        before = file.read_bytes()
        read(bag_of(file))
        assert file.read_bytes() == before
        assert {path.name for path in file.parent.iterdir()} <= {file.name, "metadata.yaml"}

    def test_an_empty_file(self, tmp_path, kind):
        file = write(tmp_path, kind)
        file.write_bytes(b"")
        with pytest.raises(BagError, match=f"cannot be read: {file.name} is empty"):
            open_bag(bag_of(file))

    @pytest.mark.parametrize("length", [3, 100, 5000])
    def test_next_to_nothing(self, tmp_path, kind, length):
        file = write(tmp_path, kind)
        file.write_bytes(file.read_bytes()[:length])
        with pytest.raises(BagError, match="cannot be read"):
            open_bag(bag_of(file))

    def test_noise(self, tmp_path, kind):
        file = write(tmp_path, kind)
        file.write_bytes(np.random.default_rng(1).bytes(200_000))
        with pytest.raises(BagError, match="cannot be read"):
            open_bag(bag_of(file))

    def test_damage_without_end(self, tmp_path, kind):
        """A few changed bytes cost a few frames, or the bag says that it cannot be read."""
        file = write(tmp_path, kind)
        data = file.read_bytes()
        rng = np.random.default_rng(5)
        known = {log_time for _, log_time in read(bag_of(file))[0]}
        for _ in range(12):
            damaged = bytearray(data)
            for place in rng.integers(0, len(data), 3):
                damaged[place] ^= int(rng.integers(1, 256))
            file.write_bytes(damaged)
            try:
                frames, _ = read(bag_of(file))
            except BagError:
                continue
            assert len([log for _, log in frames if log in known]) >= len(known) / 4


@pytest.mark.parametrize("kind", ["mcap", "zstd", "bz2"])
def test_what_comes_behind_damage_is_read(tmp_path, kind):
    """Formats that notice damage within a chunk lose that chunk only."""
    file = write(tmp_path, kind)
    if kind in FILES:
        add_checksums(file)
    whole, _ = read(bag_of(file))
    overwrite(file, 0.45, 2000)
    frames, report = read(bag_of(file))
    assert "damaged" in report.error
    assert "what is whole is used" in report.error
    assert len(whole) - 9 <= len(frames) < len(whole)
    assert frames[-1][1] == whole[-1][1]
    check_whole(frames, whole)
    # The stamps of the whole bag, as far as they can be read.
    stamps = rgb_stamps(open_bag(bag_of(file)))
    assert len(stamps) == sum(frame.modality is Modality.RGB for frame, _ in frames)


@pytest.mark.parametrize("kind", ["mcap", "zstd", "ros1", "bz2", "lz4"])
def test_damage_over_several_chunks_and_the_index(tmp_path, kind):
    """Neither lengths nor the index lead over the damage: chunks are looked for."""
    file = write(tmp_path, kind, sets=12)
    whole, _ = read(bag_of(file))
    overwrite(file, 0.4, file.stat().st_size // 4)
    file.write_bytes(file.read_bytes()[:-300])
    frames, report = read(bag_of(file))
    assert file.name in report.error
    # The damage, a chunk on either side, and the last one.
    assert len(whole) * 0.75 - 18 <= len(frames) < len(whole)
    assert frames[0][1] == whole[0][1]
    assert frames[-1][1] >= whole[-8][1]
    check_whole(frames, whole)


def test_mcap_with_a_lost_beginning(tmp_path):
    """The summary at the end names the channels that the first chunk named."""
    file = write(tmp_path, "mcap")
    whole, _ = read(file)
    overwrite(file, 0.0, 1000, 0)
    frames, report = read(file)
    assert "damaged" in report.error
    assert len(whole) - 9 <= len(frames) < len(whole)
    check_whole(frames, whole)


def test_ros1_that_was_never_closed(tmp_path):
    """What a recorder leaves that was killed: no index, and a header that says so."""
    file = write(tmp_path, "ros1")
    whole, _ = read(file)
    data = bytearray(file.read_bytes())
    place = data.index(b"index_pos=") + len(b"index_pos=")
    index = int.from_bytes(data[place : place + 8], "little")
    data[place : place + 8] = bytes(8)
    file.write_bytes(data[:index])
    frames, report = read(file)
    assert "not indexed" in report.error
    assert len(frames) == len(whole)
    check_whole(frames, whole)


class TestSqlite:
    def test_rows_behind_unreadable_ones(self, tmp_path):
        file = write(tmp_path, "sqlite", sets=20)
        whole, _ = read(file)
        data = bytearray(file.read_bytes())
        # Pages that hold the beginnings of rows: damage there breaks the tables.
        pages = [
            place
            for place in range(4096, len(data), 4096)
            if data[place] == 0x0D and b"optical" in data[place : place + 4096]
        ]
        broken = pages[len(pages) // 2]
        data[broken : broken + 4096] = b"\xff" * 4096
        file.write_bytes(data)
        frames, report = read(file.parent)
        assert "damaged" in report.error
        assert len(whole) / 2 < len(frames) < len(whole)
        assert frames[-1][1] == whole[-1][1]
        check_whole(frames, whole)

    def test_a_log_that_was_not_taken_in(self, tmp_path):
        file = write(tmp_path, "sqlite", sets=1)
        file.with_name("bag.db3-wal").write_bytes(b"x")
        _, report = read(file.parent)
        assert "bag.db3-wal holds messages that are not in the file yet" in report.error


class TestFolder:
    @pytest.fixture
    def split(self, tmp_path) -> Path:
        """A recording in three files, as ``ros2 bag record --max-bag-size`` leaves it."""
        folder = tmp_path / "split"
        folder.mkdir()
        messages = cameras(6)
        for number in range(3):
            part = messages[6 * number : 6 * number + 6]
            file = write_bag(tmp_path / f"part{number}", part) / f"part{number}.mcap"
            (folder / f"split_{number}.mcap").write_bytes(file.read_bytes())
        listing = (tmp_path / "part0" / "metadata.yaml").read_text()
        names = "\n".join(f"  - split_{number}.mcap" for number in range(3))
        (folder / "metadata.yaml").write_text(listing.replace("  - part0.mcap", names))
        return folder

    def test_whole(self, split):
        frames, report = read(split)
        assert len(frames) == 18
        assert report.error is None

    @pytest.mark.parametrize("damage", ["empty", "noise", "missing"])
    @pytest.mark.parametrize("number", [0, 1, 2])
    def test_one_bad_file_of_several(self, split, damage, number):
        file = split / f"split_{number}.mcap"
        if damage == "missing":
            file.unlink()
        else:
            file.write_bytes(b"" if damage == "empty" else b"\x07" * 5000)
        frames, report = read(split)
        assert len(frames) == 12
        assert f"split_{number}.mcap" in report.error
        assert [log for _, log in frames] == sorted(log for _, log in frames)

    @pytest.mark.parametrize("text", [b"", b"\xff\xfe\x00", b"a: [", b"just: this"])
    def test_damaged_metadata(self, split, text):
        (split / "metadata.yaml").write_bytes(text)
        frames, report = read(split)
        assert len(frames) == 18
        assert "metadata.yaml is damaged" in report.error

    def test_no_metadata(self, split):
        (split / "metadata.yaml").unlink()
        frames, report = read(split)
        assert len(frames) == 18
        assert report.error is None

    def test_metadata_alone(self, split):
        for file in split.glob("*.mcap"):
            file.unlink()
        with pytest.raises(BagError, match=r"which metadata\.yaml lists, is missing"):
            open_bag(split)


def test_a_topic_of_another_type(tmp_path):
    messages = [(TOPICS["rgb"], "std_msgs/msg/Header", START, cameras(1)[0][3].header)]
    path = write_bag(tmp_path / "bag", messages + cameras(1)[1:])
    with pytest.raises(BagError, match=r"std_msgs/msg/Header, 1 messages.*expected sensor_msgs"):
        open_bag(path, {Modality.RGB: TOPICS["rgb"]})
