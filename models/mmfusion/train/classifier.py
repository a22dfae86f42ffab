"""A frozen image classifier that judges pictures in training; timm builds it.

Its weights come from a file or from what the user has fetched before. Nothing is fetched here,
and there is no classifier without weights.
"""

from __future__ import annotations

import hashlib
import textwrap
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import constants, try_to_load_from_cache
from torch import Tensor, nn

from mmfusion.errors import ModelError
from mmfusion.state_dict import read_tensors

# A network of the published kind whose training by cross entropy makes the softmax of its logits
# a distribution; timm's own choice for "resnet50" was trained on each class by itself.
DEFAULT_CLASSIFIER = "resnet50.tv_in1k"
_STAGES = 4
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")


class Classifier(nn.Module):
    """A pretrained classifier of one-channel pictures.

    Its parameters get no gradient and its batch norms stay in evaluation mode, while gradients
    reach the pictures.

    Attributes:
        name: what timm calls it, with the tag of its weights.
        weights: file that they were read from.
        sha256: of that file.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str = DEFAULT_CLASSIFIER, weights: Path | None = None) -> None:
        """Build it and load its weights.

        Args:
            name: of a timm model with four stages that takes pictures of any size, such as
                "resnet50" or, with a tag for certain weights, "resnet50.a1_in1k".
            weights: safetensors or PyTorch file; by default those of the name, from the caches
                of Hugging Face and PyTorch.

        Raises:
            ModelError: if timm has no such model, it is of another kind, or its weights are
                nowhere to be found, unreadable or do not fit.
        """
        super().__init__()
        self.name = name
        config = _pretrained_config(name)
        _check_stages(name, config)
        self.weights = weights or _cached_weights(name, config)
        self.network: Any = _load(name, self.weights)
        self.sha256 = hashlib.sha256(self.weights.read_bytes()).hexdigest()
        for statistic in ("mean", "std"):
            value = torch.tensor(config[statistic]).view(1, 3, 1, 1)
            self.register_buffer(statistic, value, persistent=False)
        self.requires_grad_(requires_grad=False)
        self.eval()

    def train(self, mode: bool = True) -> Classifier:  # noqa: ARG002, FBT001, FBT002
        """Stay in evaluation mode, whatever becomes of the module around."""
        return super().train(mode=False)

    def stages(self, images: Tensor) -> list[Tensor]:
        """Outputs of the four stages, finest first: (N, C, h, w) each.

        Args:
            images: (N, 1, H, W) in [0, 1].
        """
        features: list[Tensor] = self.network.forward_intermediates(
            self._normalise(images), indices=_STAGES, intermediates_only=True
        )
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, 1, H, W) in [0, 1]."""
        logits: Tensor = self.network(self._normalise(images))
        return logits

    def _normalise(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std  # one channel becomes three


def _pretrained_config(name: str) -> dict[str, Any]:
    if not timm.is_model(name):
        raise ModelError(
            f"timm has no model {name!r}; expected a classifier such as {DEFAULT_CLASSIFIER}"
        )
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        raise ModelError(f"timm has no weights by the tag of {name!r}: {error}") from error
    if config is None:
        raise ModelError(f"timm knows no weights of {name!r}; choose another classifier")
    values: dict[str, Any] = config.to_dict()  # type: ignore[no-untyped-call]
    return values


def _cached_weights(name: str, config: dict[str, Any]) -> Path:
    """Where earlier downloads of timm, torchvision or the user left the weights.

    Raises:
        ModelError: if they did nowhere, saying how to go on.
    """
    looked, advice = [], ""
    repository, url = config.get("hf_hub_id"), config.get("url")
    if repository:
        for file in _HUB_FILES:
            found = try_to_load_from_cache(repository, file)
            if isinstance(found, str):
                return Path(found)
        looked.append(f"{repository} in {constants.HF_HUB_CACHE}")
        advice = f"fetch them with: hf download {repository} {_HUB_FILES[0]}; or "
    if url:
        folder = Path(str(torch.hub.get_dir())) / "checkpoints"
        path = folder / str(url).rpartition("/")[2]
        if path.is_file():
            return path
        looked.append(str(path))
    raise ModelError(
        f"no weights of the classifier {name}; looked for {' and '.join(looked) or 'none'}; "
        f"{advice}give a file of them, or do without a classifier: choose none"
    )


def _check_stages(name: str, config: dict[str, Any]) -> None:
    """Refuse what has no four maps of falling size, or takes pictures of one size alone."""
    stages: Any = getattr(timm.create_model(name), "feature_info", ())
    strides = [stage["reduction"] for stage in stages][-_STAGES:]
    falling = len(strides) == _STAGES and sorted(set(strides)) == strides
    if not falling or config.get("fixed_input_size"):
        raise ModelError(
            f"{name} has no four stages of features for pictures of any size; expected a "
            f"convolutional classifier such as {DEFAULT_CLASSIFIER}"
        )


def _load(name: str, path: Path) -> Any:
    tensors = read_tensors(path)
    if not tensors:  # timm would take this as the order to fetch them
        raise ModelError(f"{path} holds no tensors; expected the weights of {name}")
    try:
        return timm.create_model(
            name, pretrained=True, pretrained_cfg_overlay={"state_dict": tensors}
        )
    except (RuntimeError, KeyError) as error:
        reason = textwrap.shorten(" ".join(str(error).splitlines()[1:]) or str(error), 200)
        raise ModelError(f"{path} does not fit the classifier {name}: {reason}") from error
