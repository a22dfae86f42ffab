"""Networks of timm with their pretrained weights, of which nothing is fetched here.

Weights come from a file or from what the user has fetched before; there is no network without.
"""

from __future__ import annotations

import hashlib
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import constants, try_to_load_from_cache
from torch import Tensor

from mmfusion.errors import ModelError
from mmfusion.state_dict import read_tensors

_HUB_FILES = ("model.safetensors", "pytorch_model.bin")
_COUNTER = "num_batches_tracked"  # of batch norms; not in every file


@dataclass(frozen=True)
class Pretrained:
    """A network with its weights.

    Attributes:
        network: of timm.
        weights: file that they were read from.
        sha256: of that file.
    """

    network: Any
    weights: Path
    sha256: str


def pretrained_config(name: str) -> dict[str, Any]:
    """What timm knows of the weights that a name with or without a tag stands for.

    Raises:
        ModelError: if it knows none.
    """
    if not timm.is_model(name):
        raise ModelError(
            f"timm has no model {name!r}; expected a name such as resnet50 or resnet50.tv_in1k"
        )
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        raise ModelError(f"timm has no weights by the tag of {name!r}: {error}") from error
    if config is None:
        raise ModelError(f"timm knows no weights of {name!r}; choose another network")
    values: dict[str, Any] = config.to_dict()  # type: ignore[no-untyped-call]
    return values


def load_pretrained(name: str, weights: Path | None = None, *, advice: str = "") -> Pretrained:
    """Build a network of timm and load its weights.

    Args:
        name: of the network, with a tag for certain weights, such as "resnet50.a1_in1k".
        advice: what else to do if there are no weights, for the message.
        weights: safetensors or PyTorch file, of timm, or of another implementation that has the
            same layers in the same order under other names; by default those of the name, from
            the caches of Hugging Face and PyTorch.

    Raises:
        ModelError: if timm has no such network, or its weights are nowhere to be found,
            unreadable or do not fit.
    """
    path = weights or _cached_weights(name, pretrained_config(name), advice)
    tensors = read_tensors(path)
    if not tensors:  # timm would take this as the order to fetch them
        raise ModelError(f"{path} holds no tensors; expected the weights of {name}")
    pretrained_config(name)  # or timm would tell of a wrong name, in its way
    try:
        overlay = {"state_dict": _in_own_names(name, tensors)}
        network = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay)
    except (RuntimeError, KeyError) as error:
        reason = textwrap.shorten(" ".join(str(error).splitlines()[1:]) or str(error), 200)
        raise ModelError(f"{path} does not fit {name}: {reason}") from error
    return Pretrained(network, path, hashlib.sha256(path.read_bytes()).hexdigest())


def _cached_weights(name: str, config: dict[str, Any], advice: str) -> Path:
    """Where earlier downloads of timm, torchvision or the user left the weights.

    Raises:
        ModelError: if they did nowhere, saying how to go on.
    """
    looked, fetch = [], ""
    repository, url = config.get("hf_hub_id"), config.get("url")
    if repository:
        for file in _HUB_FILES:
            found = try_to_load_from_cache(repository, file)
            if isinstance(found, str):
                return Path(found)
        looked.append(f"{repository} in {constants.HF_HUB_CACHE}")
        fetch = f"fetch them with: hf download {repository} {_HUB_FILES[0]}; or "
    if url:
        folder = Path(str(torch.hub.get_dir())) / "checkpoints"
        path = folder / str(url).rpartition("/")[2]
        if path.is_file():
            return path
        looked.append(str(path))
    raise ModelError(
        f"no weights of {name}; looked for {' and '.join(looked) or 'none'}; {fetch}give a file "
        f"of them{advice}"
    )


def _in_own_names(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors by timm's names, if they are those of another implementation.

    Such have no name of timm's, and as many tensors, of the same kinds and shapes in the same
    order. Anything else is left as it is, for timm to convert or to refuse.
    """
    own = {k: v for k, v in timm.create_model(name).state_dict().items() if _COUNTER not in k}
    given = {k: v for k, v in tensors.items() if _COUNTER not in k}
    same = len(own) == len(given) and all(
        mine.rpartition(".")[2] == theirs.rpartition(".")[2] and own[mine].shape == value.shape
        for mine, (theirs, value) in zip(own, given.items(), strict=True)
    )
    if not same or own.keys() & given.keys():
        return dict(tensors)
    return dict(zip(own, given.values(), strict=True))
