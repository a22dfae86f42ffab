"""Python and the libraries, against the ranges of this package."""

from __future__ import annotations

import importlib
import platform
import sys
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from mmfusion_ros.checks.finding import Finding, Level, ok, skipped
from mmfusion_ros.checks.subject import Setup

_PACKAGE = "mmfusion_ros"
# Distributions that bring a library under another name; the module tells its version then.
_MODULES = {"opencv-python-headless": "cv2", "PyYAML": "yaml"}


def check_libraries(_setup: Setup) -> Iterator[Finding]:
    """The version of Python, of every library, and whether the compiled ones load."""
    try:
        package = metadata.metadata(_PACKAGE)
        wanted = [Requirement(text) for text in metadata.requires(_PACKAGE) or []]
    except metadata.PackageNotFoundError:
        yield skipped("libraries.python", f"{_PACKAGE} runs without being installed")
        yield skipped("libraries.versions", f"{_PACKAGE} runs without being installed")
    else:
        yield _python(package["Requires-Python"] or "")
        yield _versions([requirement for requirement in wanted if requirement.marker is None])
    yield _compiled()


def _python(wanted: str) -> Finding:
    version = platform.python_version()
    if version in SpecifierSet(wanted, prereleases=True):
        return ok("libraries.python", f"Python {version} ({sys.executable})")
    return Finding(
        "libraries.python",
        Level.ERROR,
        f"Python {version}",
        f"Python {wanted}",
        "set up with another Python: MMFUSION_PYTHON=... scripts/setup.sh robot",
    )


def _versions(wanted: list[Requirement]) -> Finding:
    versions: dict[str, str] = {}
    problems, missing = [], False
    for requirement in wanted:
        version = _version(requirement.name)
        versions[requirement.name] = version
        if not version:
            problems.append(f"{requirement.name} is missing")
            missing = True
        elif not requirement.specifier.contains(version, prereleases=True):
            problems.append(f"{requirement.name} {version}")
    if not problems:
        shown = ", ".join(f"{name} {version}" for name, version in versions.items())
        return ok("libraries.versions", shown, **versions)
    ranges = ", ".join(
        f"{requirement.name}{requirement.specifier}"
        for requirement in wanted
        if any(problem.startswith(f"{requirement.name} ") for problem in problems)
    )
    return Finding(
        "libraries.versions",
        Level.ERROR if missing else Level.WARNING,
        ", ".join(problems),
        ranges,
        "run scripts/setup.sh robot again, or pip install them",
        versions,
    )


def _version(name: str) -> str:
    """Version of a distribution, or of the module it brings; empty if neither is there."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
    try:
        module = importlib.import_module(_MODULES.get(name, name.lower()))
    except ImportError:
        return ""
    return str(getattr(module, "__version__", ""))


def _compiled() -> Finding:
    """Libraries with C code load together: they may be built for another NumPy."""
    failures = []
    for name in ("numpy", "cv2", "onnxruntime"):
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 (a wrong build may raise anything)
            failures.append(f"{name}: {type(error).__name__}: {error}")
    if not failures:
        return ok("libraries.compiled", "numpy, cv2 and onnxruntime load together")
    return Finding(
        "libraries.compiled",
        Level.ERROR,
        "; ".join(failures),
        "libraries built for the NumPy that is installed",
        "install NumPy and these from one source: all from pip, or all from the distribution",
    )
