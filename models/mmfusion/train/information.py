"""How much each picture of a pair has to tell: the weights of S4Fusion's losses.

Ma et al., arXiv:2405.20881. Temperature and preparation of the pictures are not published;
they are ours here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional

from mmfusion.errors import DataError
from mmfusion.train.classifier import Classifier
from mmfusion.train.sobel import sobel_magnitude

_LEVELS = 4
# Of the temperature that `calibrate_temperature` finds: the heavier weight of the median pair.
_TYPICAL_WEIGHT = 0.75


@torch.no_grad()
def information(images: Tensor, classifier: Classifier | None) -> Tensor:
    """Mean squared Sobel magnitude, averaged over four scales: (N,), without gradient.

    The scales are the outputs of the classifier's four stages, as published. Without a
    classifier they are the picture itself and its averages over blocks of 2, 4 and 8 pixels: then
    contrast counts, not meaning.

    Args:
        images: (N, 1, H, W) in [0, 1], sides of at least 8.
        classifier: whose features tell.
    """
    if classifier is None:
        scales = [functional.avg_pool2d(images, 2**level) for level in range(_LEVELS)]
    else:
        scales = classifier.stages(images)
    means = [sobel_magnitude(scale).square().mean(dim=(1, 2, 3)) for scale in scales]
    return torch.stack(means).mean(dim=0)


def information_weights(
    infrared: Tensor, visible: Tensor, classifier: Classifier | None, temperature: float
) -> Tensor:
    """Shares (N, 2) of infrared and visible in the losses, which sum to 1; without gradient.

    Args:
        infrared: (N, 1, H, W) in [0, 1].
        visible: luma, same shape.
        classifier: see `information`.
        temperature: difference of information at which the richer picture weighs e times the
            other; see `calibrate_temperature`.
    """
    told = [information(images, classifier) for images in (infrared, visible)]
    return torch.softmax(torch.stack(told, dim=1) / temperature, dim=1)


def calibrate_temperature(
    batches: Iterable[tuple[Tensor, Tensor]], classifier: Classifier | None
) -> float:
    """Temperature that makes the median pair weigh its richer picture by 3/4.

    So half of the pairs have a heavier weight between 1/2 and 3/4 and half one above, whatever
    units the information of the classifier has.

    Args:
        batches: infrared and visible luma of training pairs, each (N, 1, H, W) in [0, 1].
        classifier: see `information`.

    Raises:
        DataError: if there are no pairs or at least half of them hold two equally rich pictures.
    """
    differences = [
        (information(infrared, classifier) - information(visible, classifier)).abs()
        for infrared, visible in batches
    ]
    median = float(torch.cat(differences).median()) if differences else 0.0
    if not 0 < median < math.inf:
        raise DataError(
            "infrared and visible pictures tell equally much, so nothing sets the temperature of "
            "their weights; expected pairs of different pictures, or give the temperature yourself"
        )
    return median / math.log(_TYPICAL_WEIGHT / (1 - _TYPICAL_WEIGHT))
