"""A frozen image classifier that judges pictures in training; timm builds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from mmfusion.errors import ModelError
from mmfusion.train.pretrained import load_pretrained, pretrained_config

# A network of the published kind whose training by cross entropy makes the softmax of its logits
# a distribution; timm's own choice for "resnet50" was trained on each class by itself.
DEFAULT_CLASSIFIER = "resnet50.tv_in1k"
_STAGES = 4


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
            weights: see `load_pretrained`.

        Raises:
            ModelError: if timm has no such model, it is of another kind, or its weights are
                nowhere to be found, unreadable or do not fit.
        """
        super().__init__()
        self.name = name
        config = pretrained_config(name)
        _check_stages(name, config)
        pretrained = load_pretrained(
            name, weights, advice=" (classifier_weights), or do without (classifier: none)"
        )
        self.network: Any = pretrained.network
        self.weights, self.sha256 = pretrained.weights, pretrained.sha256
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
