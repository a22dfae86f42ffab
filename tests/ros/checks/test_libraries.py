"""What is said of Python and the libraries."""

from __future__ import annotations

import importlib
from importlib import metadata

import pytest
from finders import by_check, is_helpful, levels

from mmfusion_ros.checks.libraries import check_libraries
from mmfusion_ros.checks.subject import Setup


def check():
    return by_check(check_libraries(Setup()))


@pytest.fixture
def wanted(monkeypatch):
    def require(*requirements: str, python: str = ">=3.10"):
        monkeypatch.setattr(metadata, "requires", lambda _: list(requirements))
        monkeypatch.setattr(metadata, "metadata", lambda _: {"Requires-Python": python})

    return require


def test_this_environment_is_fine():
    try:
        metadata.metadata("mmfusion_ros")
    except metadata.PackageNotFoundError:
        pytest.skip("mmfusion_ros runs without being installed")
    assert set(levels(check().values()).values()) == {"ok"}


def test_versions_out_of_range_are_a_warning_with_the_range(wanted):
    wanted("numpy>=1.26,<1.27", "tqdm>=1")
    finding = check()["libraries.versions"]
    assert finding.level == "warning"
    assert finding.found.startswith("numpy ")
    assert finding.expected in {"numpy<1.27,>=1.26", "numpy>=1.26,<1.27"}
    assert is_helpful(finding)


def test_missing_ones_are_an_error(wanted):
    wanted("a-library-nobody-wrote>=1", "numpy")
    finding = check()["libraries.versions"]
    assert finding.level == "error"
    assert "a-library-nobody-wrote is missing" in finding.found


def test_extras_are_not_asked_for(wanted):
    wanted('a-library-nobody-wrote>=1; extra == "eval"')
    assert check()["libraries.versions"].level == "ok"


def test_a_module_of_another_distribution_counts(wanted, monkeypatch):
    real = metadata.version

    def version(name):
        if name == "opencv-python-headless":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    wanted("opencv-python-headless>=4")
    assert check()["libraries.versions"].level == "ok"


def test_another_python_is_an_error(wanted):
    wanted(python=">=3.99")
    finding = check()["libraries.python"]
    assert finding.level == "error"
    assert "3.99" in finding.expected


def test_not_installed_is_said(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "metadata", missing)
    assert levels(check().values()) == {
        "libraries.python": "skipped",
        "libraries.versions": "skipped",
        "libraries.compiled": "ok",
    }


def test_a_library_built_for_another_numpy_is_an_error(monkeypatch):
    real = importlib.import_module

    def load(name, *rest):
        if name == "cv2":
            raise AttributeError("_ARRAY_API not found")
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", load)
    finding = check()["libraries.compiled"]
    assert finding.level == "error"
    assert "cv2: AttributeError: _ARRAY_API not found" in finding.found
    assert is_helpful(finding)
