"""Makes the helpers beside this file importable from the folders below; what replays share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def artifact(tmp_path_factory) -> Path:
    """A small artifact, for files that have none of their own."""
    from artifacts import write_artifact

    return write_artifact(tmp_path_factory.mktemp("artifacts") / "tiny")


@pytest.fixture(scope="module")
def bag(tmp_path_factory) -> Path:
    """Six sets, two of them without thermal, for files that have none of their own."""
    from bags import cameras, write_bag

    return write_bag(tmp_path_factory.mktemp("bags") / "drive", cameras(6, no_thermal={2, 3}))
