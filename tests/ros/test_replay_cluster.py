"""Replay on a real Dask cluster in other processes gives what it gives here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bags import cameras, write_bag
from replays import differing, metrics_of, read_json, run_all

pytest.importorskip("distributed", reason="Dask is not installed (mmfusion_ros[fleet])")
pytest.importorskip("mmfusion.metrics", reason="the networks' package is not installed")


def start(*words: str | Path, cwd: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", *map(str, words), "--no-dashboard"]
    log = (cwd / f"{words[0]}.log").open("wb")
    return subprocess.Popen(command, cwd=cwd, stdout=log, stderr=log)


def stop(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory) -> Iterator[tuple[str, Path]]:
    """Address, and a file that has it."""
    folder = tmp_path_factory.mktemp("scheduler")
    file = folder / "scheduler.json"
    words = ("distributed.cli.dask_scheduler", "--port", "0", "--host", "127.0.0.1")
    process = start(*words, "--scheduler-file", file, cwd=folder)
    try:
        deadline = time.monotonic() + 60
        while not file.exists() or not file.read_text():
            assert process.poll() is None, (folder / f"{words[0]}.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield read_json(file)["address"], file
    finally:
        stop(process)


@pytest.fixture(scope="module")
def cluster(scheduler, tmp_path_factory) -> Iterator[str]:
    """With two workers, whose working folder is another one."""
    from distributed import Client

    address, file = scheduler
    words = ("distributed.cli.dask_worker", "--nthreads", "1", "--nworkers", "2")
    folder = tmp_path_factory.mktemp("workers")
    process = start(*words, "--scheduler-file", file, "--death-timeout", "60", cwd=folder)
    try:
        with Client(address) as client:
            client.wait_for_workers(2, timeout=60)
        yield address
    finally:
        stop(process)


def test_without_workers(scheduler, artifact, tmp_path, capsys):
    address, _ = scheduler
    bag = write_bag(tmp_path / "bag", cameras(1))
    assert run_all([bag], artifact, tmp_path / "out", "--cluster", address) == 1
    assert "has no workers; start some with" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "no address"])
def test_without_a_scheduler(artifact, tmp_path, address):
    bag = write_bag(tmp_path / "bag", cameras(1))
    # A process of its own: a client that found nobody leaves Dask's event loop half begun.
    command = [sys.executable, "-m", "mmfusion_ros.replay", str(bag), "--cluster", address]
    command += ["--artifact", str(artifact), "--out", str(tmp_path / "out")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert f"there is no Dask scheduler at {address}" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_same_as_here(cluster, artifact, tmp_path, monkeypatch):
    """With relative paths too, and a bag that fails."""
    monkeypatch.chdir(tmp_path)
    for name, sets in (("yard", 5), ("field", 7)):
        write_bag(Path(name), cameras(sets))
    Path("broken").mkdir()
    (Path("broken") / "x.mcap").touch()
    bags = [Path("yard"), Path("broken"), Path("field")]
    assert run_all(bags, artifact, Path("here")) == 1
    assert run_all(bags, artifact, Path("there"), "--cluster", cluster) == 1
    for name in ("yard", "field"):
        assert differing(Path("here") / name, Path("there") / name) == []
    here, there = (Path(name) / "summary.json" for name in ("here", "there"))
    assert here.read_bytes() == there.read_bytes()
    assert sorted(path.name for path in Path("there").iterdir()) == [
        *("field", "summary.html", "summary.json", "yard")
    ]


def test_files_that_the_workers_do_not_see(cluster, artifact, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_bag(tmp_path / "bag", cameras(1))
    # Each process sees its own working folder here.
    bag = Path("/proc/self/cwd/bag")
    assert bag.exists()
    assert run_all([bag], artifact, tmp_path / "out", "--cluster", cluster) == 1
    told = capsys.readouterr().err
    assert f"does not see {bag}" in told
    assert "under the same path" in told
    good = tmp_path / "bag"
    out = Path("/proc/self/cwd/out")
    assert run_all([good], artifact, out, "--cluster", cluster) == 1
    assert f"does not see {out}" in capsys.readouterr().err


def test_ctrl_c_ends_the_work_of_the_workers(cluster, artifact, tmp_path):
    bags = [write_bag(tmp_path / f"bag{number}", cameras(600)) for number in range(3)]
    out = tmp_path / "out"
    command = [sys.executable, "-m", "mmfusion_ros.replay", *map(str, bags)]
    command += ["--artifact", str(artifact), "--out", str(out), "--threads", "1"]
    command += ["--backend", "onnxruntime"]
    command += ["--metrics-stride", "1", "--cluster", cluster]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=os.environ) as process:
        deadline = time.monotonic() + 60
        while sum((out / f"bag{n}" / "result" / "result.mcap").exists() for n in range(3)) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
        assert process.returncode == 130
    assert b"Traceback" not in told
    states = {bag["name"]: bag["state"] for bag in read_json(out / "summary.json")["bags"]}
    assert sorted(states.values()) == ["interrupted", "interrupted", "not run"]
    for name, state in states.items():
        if state == "interrupted":
            assert metrics_of(out / name)["complete"] is False
    # The workers are free for the next ones.
    assert run_all(bags[:1], artifact, out, "--cluster", cluster, "--max-frames", "2") == 0
