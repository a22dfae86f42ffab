"""Engines are kept whole and under their own key, however many build and however they end."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import logging
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmfusion_ros.core.engines import engine_cache
from mmfusion_ros.core.engines.engine_cache import EngineCache, EngineKey, UnusableEngineError
from mmfusion_ros.core.errors import EngineError

KEY = EngineKey(
    builder="onnx",
    graph="0" * 64,
    form=1,
    gpu="Orin",
    compute_capability=(8, 7),
    library="tensorrt 10.3.0",
    precision="fp32",
    plugin="",
    settings={"optimization_level": 3},
)
ENGINE = b"an engine" * 1000


def never() -> bytes:
    raise AssertionError("it is there already")


def whole(engine: bytes, path, digest: str) -> bytes:
    assert path.suffix == ".engine"
    assert digest == hashlib.sha256(engine).hexdigest()
    return engine


@pytest.fixture
def cache(tmp_path):
    return EngineCache(tmp_path / "engines")


def kept(cache, key=KEY, engine=ENGINE):
    assert cache.obtain([key], lambda: engine, whole) == engine
    return cache.engine_path(key), cache.description_path(key)


def test_what_was_built_is_found_again_with_its_key_in_clear(cache):
    engine, description = kept(cache)
    assert cache.obtain([KEY], never, whole) == ENGINE
    assert engine.read_bytes() == ENGINE
    described = json.loads(description.read_text())
    assert described["key"] == {**dataclasses.asdict(KEY), "compute_capability": [8, 7]}
    assert described["size"] == len(ENGINE)
    assert {path.suffix for path in engine.parent.iterdir()} == {".engine", ".json", ".lock"}


@pytest.mark.parametrize(
    "change",
    [
        {"graph": "1" * 64},
        {"form": 2},
        {"gpu": "Thor"},
        {"compute_capability": (8, 9)},
        {"library": "tensorrt 10.16.2"},
        {"precision": "fp16"},
        {"settings": {"optimization_level": 5}},
    ],
    ids=str,
)
def test_each_part_of_the_key_makes_another_entry(cache, change):
    kept(cache)
    kept(cache, dataclasses.replace(KEY, **change), b"another")
    assert cache.obtain([KEY], never, whole) == ENGINE


def cut(engine, description):
    engine.write_bytes(ENGINE[:-1])


def flip(engine, description):
    engine.write_bytes(b"A" + ENGINE[1:])


def lose_engine(engine, description):
    engine.unlink()


def lose_description(engine, description):
    description.unlink()


def cut_description(engine, description):
    description.write_text(description.read_text()[:40])


def empty_description(engine, description):
    description.write_text("[]")


def swap_description(engine, description):
    described = json.loads(description.read_text())
    described["key"]["gpu"] = "Thor"
    description.write_text(json.dumps(described))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut, "it has 8999 bytes, expected 9000"),
        (flip, "its SHA-256 is not that of its description"),
        (lose_engine, "it cannot be read (No such file or directory)"),
        (lose_description, "its writing was cut off"),
        (cut_description, "its description is damaged"),
        (empty_description, "its description is damaged"),
        (swap_description, "it is described as of another key"),
    ],
)
def test_a_damaged_entry_is_built_anew_with_one_line_why(cache, damage, reason, caplog):
    damage(*kept(cache))
    kept(cache, engine=b"built anew")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert reason in record.getMessage()
    assert str(cache.engine_path(KEY)) in record.getMessage()
    assert cache.obtain([KEY], never, whole) == b"built anew"


def test_what_cannot_be_used_is_built_anew_other_failures_are_told(cache, caplog):
    def stale(engine, path, digest):
        if engine == ENGINE:
            raise UnusableEngineError("of another driver")
        return engine

    def full(engine, path, digest):
        raise EngineError("out of memory")

    kept(cache)
    with pytest.raises(EngineError, match="out of memory"):
        cache.obtain([KEY], never, full)
    assert cache.obtain([KEY], lambda: b"new", stale) == b"new"
    assert "of another driver; building it anew" in caplog.text


def test_who_asks_says_what_is_done_about_an_unusable_one(cache, caplog):
    cut(*kept(cache))
    assert cache.use_kept(KEY, whole, "delete it") is None
    (record,) = caplog.records
    assert record.getMessage().endswith("it has 8999 bytes, expected 9000; delete it")
    assert cache.engine_path(KEY).exists()


def test_engines_of_other_keys_are_told_apart(cache):
    assert cache.others(KEY) == []
    other = dataclasses.replace(KEY, graph="1" * 64, gpu="Thor")
    path, _ = kept(cache, other)
    nameless, description = kept(cache, dataclasses.replace(KEY, precision="fp16"))
    description.unlink()
    difference = f"graph {'1' * 12}, not {'0' * 12}, gpu Thor, not Orin"
    assert cache.others(KEY) == sorted(
        [f"{path.name} ({difference})", f"{nameless.name} (its description cannot be read)"]
    )
    kept(cache)
    assert cache.others(KEY) == []


def test_any_of_several_keys_serves_and_the_first_is_built(cache):
    other = dataclasses.replace(KEY, gpu="")
    kept(cache, other, b"compatible")
    assert cache.obtain([KEY, other], never, whole) == b"compatible"
    cache.engine_path(other).unlink()
    cache.description_path(other).unlink()
    assert cache.obtain([KEY, other], lambda: ENGINE, whole) == ENGINE
    assert cache.engine_path(KEY).exists()


def test_a_build_that_fails_leaves_nothing(cache):
    def fail():
        raise EngineError("no")

    with pytest.raises(EngineError, match="no"):
        cache.obtain([KEY], fail, whole)
    assert not cache.engine_path(KEY).exists()
    kept(cache)


def test_a_folder_that_cannot_be_written_serves_and_costs_a_build(tmp_path, caplog):
    (tmp_path / "engines").write_text("a file is in the way")
    cache = EngineCache(tmp_path / "engines")
    assert cache.obtain([KEY], lambda: ENGINE, whole) == ENGINE
    assert f"{tmp_path / 'engines'} is no folder; building it anew" in caplog.text
    assert "building for this run alone" in caplog.text


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_nothing_can_be_locked_it_builds_with_one_warning(cache, monkeypatch, caplog, number):
    def refuse(*_):
        raise OSError(number, "injected")

    monkeypatch.setattr(engine_cache.fcntl, "flock", refuse)
    kept(cache)
    (record,) = caplog.records
    assert "cannot be locked (injected); other processes may build" in record.getMessage()
    assert cache.obtain([KEY], never, whole) == ENGINE


def test_what_another_process_finishes_before_the_lock_is_used(cache, monkeypatch):
    lock = engine_cache.fcntl.flock

    def late(*arguments):
        monkeypatch.undo()
        kept(EngineCache(cache.engine_path(KEY).parent))
        lock(*arguments)

    monkeypatch.setattr(engine_cache.fcntl, "flock", late)
    assert cache.obtain([KEY], never, whole) == ENGINE


def test_only_what_a_builder_of_this_key_was_writing_is_removed(cache, monkeypatch):
    folder = cache.engine_path(KEY).parent
    folder.mkdir()
    left = [folder / f".{KEY.digest}.{name}.half" for name in ("engine", "json")]
    others = [folder / f".{KEY.digest}.gate.json.half", folder / f".{'f' * 32}.engine.half"]
    for path in (*left, *others):
        path.touch()
    kept(cache)
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in others)


def test_what_cannot_be_removed_is_left(cache, monkeypatch):
    folder = cache.engine_path(KEY).parent
    (folder / f".{KEY.digest}.engine.half").mkdir(parents=True)  # unlinking it is not permitted
    kept(cache)


def test_a_full_disk_costs_the_next_start_a_build(cache, monkeypatch, caplog):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(engine_cache.os, "fsync", full)
    assert cache.obtain([KEY], lambda: ENGINE, whole) == ENGINE
    assert "No space left on device" in caplog.text
    monkeypatch.undo()
    kept(cache, engine=b"built anew")


# A builder in a process of its own: says when it builds, and goes on when told to.
BUILDER = """
import logging, pathlib, sys, time
sys.path.insert(0, {tests!r})
from test_engine_cache import KEY, whole
from mmfusion_ros.core.engines.engine_cache import EngineCache
logging.basicConfig(level=logging.INFO, format="%(message)s")
folder, name = pathlib.Path(sys.argv[1]), sys.argv[2]
def build():
    (folder / f"{{name}}.building").touch()
    while not (folder / "go").exists():
        time.sleep(0.01)
    return name.encode()
print(EngineCache(folder / "engines").obtain([KEY], build, whole).decode())
"""


def start(folder, name):
    code = BUILDER.format(tests=str(Path(__file__).parent))
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder), name],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_of_two_processes_one_builds_and_the_other_uses_it(tmp_path):
    first = start(tmp_path, "first")
    wait_for((tmp_path / "first.building").exists)
    second = start(tmp_path, "second")
    line = second.stderr.readline()
    assert "another process builds" in line
    (tmp_path / "go").touch()
    assert [process.communicate(timeout=60)[0].strip() for process in (first, second)] == [
        "first",
        "first",
    ]
    assert not (tmp_path / "second.building").exists()


def test_a_builder_that_is_killed_lets_the_next_one_build(tmp_path):
    first = start(tmp_path, "first")
    wait_for((tmp_path / "first.building").exists)
    second = start(tmp_path, "second")
    assert "another process builds" in second.stderr.readline()
    folder = tmp_path / "engines"
    (folder / f".{KEY.digest}.engine.half").write_bytes(b"half an eng")  # as it would leave it
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=60)
    wait_for((tmp_path / "second.building").exists)
    (tmp_path / "go").touch()
    assert second.communicate(timeout=60)[0].strip() == "second"
    assert EngineCache(folder).obtain([KEY], never, whole) == b"second"
    assert not list(folder.glob(".*"))


def test_who_waits_can_be_told_to_stop(tmp_path):
    class CancelledError(Exception):
        pass

    def cancel(phase, share):
        assert "another process" in phase
        raise CancelledError

    first = start(tmp_path, "first")
    wait_for((tmp_path / "first.building").exists)
    with pytest.raises(CancelledError):
        EngineCache(tmp_path / "engines").obtain([KEY], never, whole, cancel)
    (tmp_path / "go").touch()
    assert first.communicate(timeout=60)[0].strip() == "first"
