"""Find the files that this package and its messages install: launch files, .msg files ..."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from mmfusion_ros.core.errors import MmfusionError

_PACKAGE = "mmfusion_ros"


def share_folders(package: str = _PACKAGE) -> Iterator[Path]:
    """Yield the folders that may hold the files of a package, best first.

    The ament index knows an installed workspace; a pip installation may have none sourced, but
    puts the same files under the interpreter's prefix; a checkout has them beside the package,
    and in its underlay those of packages that a distribution brings.
    """
    indexed = _indexed_folder(package)
    if indexed is not None:
        yield indexed
    yield Path(sys.prefix) / "share" / package
    sources = Path(__file__).resolve().parents[2]
    yield sources / package
    yield sources.parent / "underlay" / package


def share_file(name: str, package: str = _PACKAGE) -> Path:
    """Return the path of a shared file.

    Args:
        name: path below the share folder, for example ``config/fastdds.xml``.
        package: ROS package that installs it.

    Raises:
        MmfusionError: if no folder has it.
    """
    folders = list(share_folders(package))
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    searched = ", ".join(str(folder) for folder in folders)
    raise MmfusionError(
        f"the file {name} of {package} is in none of {searched}: "
        "build the workspace or run scripts/setup.sh again"
    )


def _indexed_folder(package: str) -> Path | None:
    try:
        from ament_index_python.packages import get_package_share_directory  # noqa: PLC0415
    except ImportError:
        return None
    try:
        return Path(get_package_share_directory(package))
    except (LookupError, OSError):  # not indexed; OSError: no index at all
        return None
