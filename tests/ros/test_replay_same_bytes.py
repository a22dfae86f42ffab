"""The same bag gives the same bytes: again, in any format, however fast it is read."""

from __future__ import annotations

import time

import pytest
from bags import cameras, write_bag, write_ros1_bag
from replays import STABLE, metrics_of, run
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import CompressionMode, StoragePlugin

pytest.importorskip("mmfusion.metrics", reason="the networks' package is not installed")


def test_a_second_run_gives_the_same_bytes(bag, artifact, tmp_path):
    for name in ("one", "two"):
        assert run(bag, artifact, tmp_path / name, "--metrics-threads", "2") == 0
    for file in STABLE:
        first, second = ((tmp_path / name / file).read_bytes() for name in ("one", "two"))
        assert first == second, file


def test_the_format_of_the_bag_does_not_matter(artifact, tmp_path):
    """MCAP, SQLite and ROS 1, with and without compression of the storage."""
    messages = cameras(4, compressed=True)
    writers = {
        "mcap": lambda path: write_bag(path, messages),
        "zstd": lambda path: write_bag(path, messages, compression=CompressionMode.MESSAGE),
        "sqlite": lambda path: write_bag(path, messages, StoragePlugin.SQLITE3),
        "ros1": lambda path: write_ros1_bag(path.with_suffix(".bag"), messages),
        "bz2": lambda path: write_ros1_bag(path.with_suffix(".bag"), messages, "BZ2"),
    }
    told = {}
    for name, writer in writers.items():
        bag = writer(tmp_path / name)
        out = tmp_path / f"out_{name}"
        assert run(bag, artifact, out, "--no-report") == 0
        metrics = metrics_of(out)
        del metrics["bag"]["name"]
        told[name] = [metrics, *((out / file).read_bytes() for file in STABLE[1:])]
        assert told[name] == told["mcap"], name


def damaged_cameras(sets: int) -> list:
    """No stamps, and every seventh message is none."""
    return [
        (*message[:3], b"\x00\x01") if number % 7 == 4 else message
        for number, message in enumerate(cameras(sets, stamps=False))
    ]


@pytest.mark.parametrize("options", [(), ("--max-frames", "2"), ("--stride", "3")])
@pytest.mark.parametrize("cut", [False, True])
def test_the_bytes_do_not_depend_on_how_fast_the_bag_is_read(
    artifact, tmp_path, monkeypatch, options, cut
):
    bag = write_bag(tmp_path / "bag", damaged_cameras(20))
    if cut:
        file = bag / "bag.mcap"
        file.write_bytes(file.read_bytes()[:-100])
    deserialize = AnyReader.deserialize

    def slowly(*arguments):
        time.sleep(0.02)
        return deserialize(*arguments)

    for name in ("fast", "slow"):
        if name == "slow":
            monkeypatch.setattr(AnyReader, "deserialize", slowly)
        assert run(bag, artifact, tmp_path / name, "--no-report", *options) == 0
    monkeypatch.undo()
    for file in STABLE:
        first, second = ((tmp_path / name / file).read_bytes() for name in ("fast", "slow"))
        assert first == second, file
    metrics = metrics_of(tmp_path / "fast")
    assert (metrics["bag"]["problem"] is not None) == cut
    assert sum(metrics["bag"]["stamps_from_log_time"].values()) == sum(
        metrics["synchronizer"]["received"].values()
    )


def test_a_run_into_the_same_folder_takes_its_place(bag, artifact, tmp_path):
    out = tmp_path / "out"
    run(bag, artifact, out)
    before = (out / "result/result.mcap").read_bytes()
    (out / "notes.txt").write_text("mine")
    assert run(bag, artifact, out) == 0
    assert (out / "result/result.mcap").read_bytes() == before
    assert (out / "notes.txt").read_text() == "mine"
