"""Replays of a bag in this process, and what they put on record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmfusion_ros import replay


def run(bag: Path, artifact: Path, out: Path, *options: str | Path) -> int:
    """Replay on one thread; return the exit status."""
    words = [bag, "--artifact", artifact, "--out", out, "--threads", "1", *options]
    return replay.main([str(word) for word in words])


def metrics_of(out: Path) -> dict:
    """What metrics.json holds, which must be strict JSON."""
    return json.loads((out / "metrics.json").read_text(), parse_constant=pytest.fail)
