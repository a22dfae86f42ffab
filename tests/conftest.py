"""Fixtures for all tests."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure(config: pytest.Config) -> None:
    """Give each test process a ROS domain of its own, before anything starts a node."""
    if "PYTEST_XDIST_WORKER" in os.environ or "ROS_DOMAIN_ID" not in os.environ:
        find = runpy.run_path(str(ROOT / "scripts" / "free_ros_domain.py"))["free_domain"]
        os.environ["ROS_DOMAIN_ID"] = str(find())
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of recorded data beside the checkout."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the recorded data in ../shared, which this checkout does not have")
    return folder
