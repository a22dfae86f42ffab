"""What each step of a training came to, for plots and comparisons."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmfusion.errors import DataError
from mmfusion.train.output import replace_file


class StepLog:
    """A file of JSON lines, one for each step."""

    def __init__(self, path: Path, done: int) -> None:
        """Open for appending.

        Args:
            path: of the file.
            done: steps to keep; lines of later steps, and all beyond a line that was cut, are
                dropped.

        Raises:
            DataError: if the file holds fewer steps.
        """
        kept: list[str] = []
        if done:
            kept = path.read_text().splitlines(keepends=True)[:done] if path.is_file() else []
            if [_step(line) for line in kept] != list(range(1, done + 1)):
                raise DataError(
                    f"{path} does not list the first {done} steps; expected the log that was "
                    "written with the training state beside it: put it back, or start anew"
                )
        with replace_file(path) as fresh:
            fresh.write_text("".join(kept))
        self._file = path.open("a")

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Append the line of a step, counted from 1."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Return when all lines are on disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """No more lines."""
        self._file.close()


def _step(line: str) -> int | None:
    try:
        content = json.loads(line)
    except ValueError:
        return None
    return content.get("step") if isinstance(content, dict) else None
