"""Replays of a bag in this process, and what they put on record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmfusion_ros import replay

STABLE = ("metrics.json", "result/result.mcap", "result/metadata.yaml")


def run(bag: Path, artifact: Path, out: Path, *options: str | Path) -> int:
    """Replay on one thread of the CPU; return the exit status."""
    return run_all([bag], artifact, out, *options)


def run_all(bags: list[Path], artifact: Path, out: Path, *options: str | Path) -> int:
    """Replay several bags, on one thread and the CPU each; return the exit status."""
    given = ["--artifact", artifact, "--out", out, "--threads", "1", "--backend", "onnxruntime"]
    words = [*bags, *given, *options]
    return replay.main([str(word) for word in words])


def metrics_of(out: Path) -> dict:
    """What metrics.json holds, which must be strict JSON."""
    return read_json(out / "metrics.json")


def read_json(path: Path) -> dict:
    """What a file of strict JSON holds."""
    return json.loads(path.read_text(), parse_constant=pytest.fail)


def differing(first: Path, second: Path) -> list[str]:
    """The files that should be the same byte for byte and are not."""
    return [n for n in STABLE if (first / n).read_bytes() != (second / n).read_bytes()]


def fails(capsys: pytest.CaptureFixture[str], *arguments: Path | str) -> str:
    """Replay, expecting failure; return its one message."""
    assert run(*arguments) == 1
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message
