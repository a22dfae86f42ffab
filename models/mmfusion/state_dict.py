"""Weights of others: files and mappings of tensors by name, read without running code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from mmfusion.errors import ModelError

# Under which key training scripts keep the weights beside optimiser and epoch.
_WRAPPERS = ("model", "state_dict", "model_state_dict")
_PARALLEL_PREFIX = "module."  # of weights saved from nn.DataParallel


def read_tensors(source: Mapping[str, Any] | str | Path) -> dict[str, Tensor]:
    """Tensors by name.

    Args:
        source: tensors or arrays by name, or a file of them: a PyTorch file, of which only tensors
            and plain values are read (no code in it can run), or safetensors. Wrappers such as
            ``{"model": weights}`` and the prefix of nn.DataParallel are taken off.

    Raises:
        ModelError: if the file is missing or cannot be read safely, or there is something else
            than tensors in it.
    """
    where = "these weights" if isinstance(source, Mapping) else str(source)
    content = source if isinstance(source, Mapping) else _read(Path(source))
    wrapped = (content.get(key) for key in _WRAPPERS)
    content = next((inner for inner in wrapped if isinstance(inner, Mapping)), content)
    tensors = {}
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor | np.ndarray | np.generic):
            raise ModelError(
                f"{where}: {key!r} is a {type(value).__name__}; expected tensors by name"
            )
        tensor = value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
        tensors[key.removeprefix(_PARALLEL_PREFIX)] = tensor
    return tensors


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise ModelError(f"no checkpoint at {path}; expected a PyTorch or safetensors file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files make the unpickler raise almost anything
        # What PyTorch itself says invites to load the file unsafely.
        raise ModelError(
            f"{path} cannot be read safely: it is damaged or no checkpoint, or holds objects whose "
            "loading could run code; expected a PyTorch or safetensors file of tensors alone: save "
            "its state dict by itself with a tool you trust"
        ) from error
    if not isinstance(content, Mapping):
        raise ModelError(f"{path} holds a {type(content).__name__}; expected a state dict")
    return content
