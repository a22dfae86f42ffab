"""Weights in the layouts of the published checkpoints, by our own modules' names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mmfusion.errors import ModelError
from mmfusion.registry import FAMILIES
from mmfusion.state_dict import read_tensors

_BATCH_COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class PublishedReport:
    """What became of the keys of a published checkpoint.

    Attributes:
        loaded: how many of the model's tensors were set.
        unused: published keys that are known and of no use: derived tables, layers whose result
            the published forward pass throws away.
        missing: tensors of the model that the checkpoint lacks; always empty if strict.
        unexpected: published keys that mean nothing to the model; always empty if strict.
    """

    loaded: int
    unused: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


def load_published(
    model: nn.Module, source: Mapping[str, Any] | str | Path, *, strict: bool = True
) -> PublishedReport:
    """Load weights in the published layout into ``model``.

    Args:
        model: from `create_model`, of the size the weights were made for.
        source: published keys to tensors or arrays, or a checkpoint file: a PyTorch file, of
            which only tensors and plain values are read (no code in it can run), or safetensors.
            Wrappers such as ``{"model": weights}`` and the prefix of nn.DataParallel are taken
            off.
        strict: refuse a checkpoint that lacks a tensor or has an unknown one. Otherwise load
            what fits: a start for training.

    Raises:
        ModelError: if the model has no published layout, the file cannot be read safely, or keys
            or shapes do not fit; nothing is loaded then.
    """
    to_own_names = _renaming(model)
    where = "these weights" if isinstance(source, Mapping) else str(source)
    renamed, unused = to_own_names(read_tensors(source), model)
    own = model.state_dict()
    unexpected = sorted(renamed.keys() - own.keys())
    fitting = own.keys() & renamed.keys()
    # Layouts need not have these counters; they change no result.
    missing = sorted(key for key in own.keys() - fitting if not key.endswith(_BATCH_COUNTER))
    problems = [
        f"{key} is {tuple(renamed[key].shape)}, expected {tuple(own[key].shape)}"
        for key in sorted(fitting)
        if renamed[key].shape != own[key].shape
    ]
    if strict or not fitting:
        problems += [f"missing {key}" for key in missing]
        problems += [f"unexpected {key}" for key in unexpected]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ModelError(
            f"{where}: not a published {type(model).__name__} checkpoint for this model: "
            f"{'; '.join(problems[:3])}{more}"
        )
    model.load_state_dict({key: renamed[key] for key in fitting}, strict=False)
    return PublishedReport(len(fitting), tuple(unused), tuple(missing), tuple(unexpected))


def _renaming(model: nn.Module) -> Callable[..., tuple[dict[str, Tensor], list[str]]]:
    for family in FAMILIES:
        if type(model).__name__ == family.class_name:
            to_own_names: Callable[..., Any] = family.module("published").to_own_names
            return to_own_names
    raise ModelError(f"{type(model).__name__} has no published checkpoint layout")
