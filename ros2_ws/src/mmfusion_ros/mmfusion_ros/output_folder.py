"""The folder a replay writes into: takes the place of an older replay, never of anything else."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from mmfusion_ros.core.errors import MmfusionError

_RESULT_FILES = frozenset({"result.mcap", "metadata.yaml", "metadata.yaml.tmp"})


class OutputFolder:
    """Where the files of a replay go. Other files in the folder are left alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.result = path / "result"
        self.metrics = path / "metrics.json"
        self.latency = path / "latency.json"
        self._report = path / "report.html"
        self._pictures = path / "pictures"

    def check(self, bag: Path) -> None:
        """Make sure that clearing would remove nothing but results of an older replay.

        Raises:
            MmfusionError: if it would, or if the folder cannot be one.
        """
        if self.path.exists() and not self.path.is_dir():
            raise MmfusionError(f"--out {self.path} is a file; expected a folder")
        if bag.resolve().is_relative_to(self.result.resolve()):
            raise MmfusionError(
                f"the bag {bag} lies where the result would go; pass another folder as --out"
            )
        foreign = [
            *_foreign(self.result, lambda name: name in _RESULT_FILES),
            *_foreign(self._pictures, lambda name: name.endswith(".png")),
        ]
        if foreign:
            raise MmfusionError(
                f"{foreign[0]} is not from a replay and would be lost; pass another folder as --out"
            )

    def clear(self) -> None:
        """Remove the results of an older replay and make the folder."""
        self.path.mkdir(parents=True, exist_ok=True)
        for folder in (self.result, self._pictures):
            if folder.is_dir():
                shutil.rmtree(folder)
        for file in (self.metrics, self.latency, self._report):
            file.unlink(missing_ok=True)


def _foreign(folder: Path, is_ours: Callable[[str], bool]) -> list[Path]:
    if not folder.exists():
        return []
    if not folder.is_dir():
        return [folder]
    return [path for path in sorted(folder.iterdir()) if not is_ours(path.name)]
