"""Weights of whole networks of timm for the feature extractors that are cut from them."""

from __future__ import annotations

from collections.abc import Mapping

import timm
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from mmfusion.errors import ModelError

_Colour = tuple[float, float, float]


def plain(name: str) -> str:
    """Name of a parameter in an extractor as in the whole: some extractors make a.b a_b."""
    return name.replace("_", ".")


def copy_weights(extractor: nn.Module, whole: nn.Module) -> None:
    """Give a feature extractor of timm the weights of the network that it is cut from.

    Raises:
        ModelError: if the network has none by the name of one, as of extractors that wrap it.
    """
    given: Mapping[str, Tensor] = {plain(k): v for k, v in whole.state_dict().items()}
    missing = next((name for name in extractor.state_dict() if plain(name) not in given), None)
    if missing is not None:
        raise ModelError(
            f"the backbone's {missing} has no weight of its name in {type(whole).__name__}, the "
            "whole network; leave the backbone fresh (none), or choose one such as resnet18"
        )
    extractor.load_state_dict({name: given[plain(name)] for name in extractor.state_dict()})


def colour_statistics(name: str) -> tuple[_Colour, _Colour]:
    """Mean and deviation of RGB in [0, 1] that a network's pretrained weights are used with.

    Those of ImageNet for networks that timm knows no weights of.
    """
    config = timm.get_pretrained_cfg(name)
    if config is None:
        return IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    mean, std = config.mean, config.std
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])
