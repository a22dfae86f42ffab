"""Weights on disk: safetensors, which load without running code."""

from __future__ import annotations

import hashlib
import textwrap
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn

from mmfusion.errors import ModelError


def load_checkpoint(model: nn.Module, checkpoint: Path) -> str:
    """Load a safetensors checkpoint and return its SHA-256.

    Raises:
        ModelError: if the file is missing or does not fit the model.
    """
    if not checkpoint.is_file():
        raise ModelError(f"no checkpoint at {checkpoint}; expected a .safetensors file")
    data = checkpoint.read_bytes()
    try:
        model.load_state_dict(load(data))
    except (SafetensorError, RuntimeError) as error:
        lines = str(error).splitlines()
        reason = textwrap.shorten(" ".join(lines[1:] or lines), 200)  # the first line is a title
        raise ModelError(
            f"{checkpoint} does not fit {type(model).__name__}: {reason}; "
            "expected a safetensors file written by this package for the same model"
        ) from error
    return hashlib.sha256(data).hexdigest()
