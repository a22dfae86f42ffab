"""The state of a training on disk, whole at any time, from which it goes on exactly."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from mmfusion.errors import DataError
from mmfusion.train.output import replace_file


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values, in place of an earlier state."""
    with replace_file(path) as fresh:
        torch.save(state, fresh)


def load_state(path: Path, device: torch.device) -> dict[str, Any]:
    """Read what `save_state` wrote. Runs no code that the file may hold.

    Raises:
        DataError: if the file is damaged.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError) as error:
        raise DataError(
            f"{path} is not the whole state of a training ({' '.join(str(error).split())[:100]}); "
            "remove it and start anew"
        ) from error
    return state
