"""Fixtures for all tests."""

from __future__ import annotations

import logging
import os
import runpy
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure(config: pytest.Config) -> None:
    """Give each test process a ROS domain and caches of its own, before anything is started."""
    if "PYTEST_XDIST_WORKER" in os.environ or "ROS_DOMAIN_ID" not in os.environ:
        script = runpy.run_path(str(ROOT / "scripts" / "free_ros_domain.py"))
        domain, claim = script["claim_domain"]()
        config.add_cleanup(claim.close)
        os.environ["ROS_DOMAIN_ID"] = str(domain)
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    # Neither is what the user's own runs have left used, nor is anything left to them.
    caches = tempfile.TemporaryDirectory(prefix="mmfusion_tests_", ignore_cleanup_errors=True)
    config.add_cleanup(caches.cleanup)
    for variable in ("XDG_CACHE_HOME", "TRITON_CACHE_DIR"):
        folder = Path(caches.name, variable.lower())
        folder.mkdir()
        os.environ[variable] = str(folder)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that trace networks: last, one of them would run alone for minutes."""
    traces = {item.path for item in items if item.get_closest_marker("export")}
    items.sort(key=lambda item: item.path not in traces)


@pytest.fixture(autouse=True)
def _root_level_as_before() -> Iterator[None]:
    """Put the root logger's level back, which commands may set for their process."""
    root = logging.getLogger()
    level = root.level
    yield
    root.setLevel(level)


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
