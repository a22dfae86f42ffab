"""The folder that a training writes to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmfusion.errors import DataError

RECIPE = "recipe.yaml"  # with every default spelt out
WEIGHTS = "model.safetensors"  # of the last saved step
WEIGHTS_BEST = "best.safetensors"  # of the best validation
STATE = "state.pt"  # to go on from
LOG = "training.jsonl"  # a line for each step
RECORD = "record.json"  # of what was trained on, where, and how long


def refuse_overwriting(out: Path) -> None:
    """See that no earlier training is lost.

    Raises:
        DataError: if the folder holds weights, which may have taken hours.
    """
    if (out / WEIGHTS).exists():
        raise DataError(
            f"{out / WEIGHTS} exists already; pass another --out, or --resume to go on with it"
        )


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """A path to write to, beside ``path``, whose content takes its place when all is on disk.

    Whoever reads ``path`` finds the old content or the new, whole, even if the process is killed
    or the power fails meanwhile.
    """
    fresh = path.with_name(f"{path.name}.part")
    try:
        yield fresh
        with fresh.open("rb") as file:
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name too
    finally:
        os.close(folder)
