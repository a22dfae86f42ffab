"""The folder that a training writes to."""

from __future__ import annotations

from pathlib import Path

from mmfusion.errors import DataError

WEIGHTS = "model.safetensors"


def make_output(out: Path) -> None:
    """Create the folder of a training.

    Raises:
        DataError: if it holds weights already, which may have taken hours.
    """
    if (out / WEIGHTS).exists():
        raise DataError(f"{out / WEIGHTS} exists already; pass another --out or remove it")
    out.mkdir(parents=True, exist_ok=True)
