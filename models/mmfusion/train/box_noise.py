"""Noisy boxes that a diffusion detector learns to refine."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mmfusion.efficientmfd.diffusion import (
    SIGNAL_SCALE,
    boxes_to_latents,
    cosine_alphas_cumprod,
)

_SPREAD = 6.0  # standard deviations that random boxes have room for in the image
_SMALLEST_SIDE = 1e-4


def noisy_latents(
    boxes: Tensor, proposals: int, size: tuple[int, int], time: int, rng: np.random.Generator
) -> Tensor:
    """Boxes of one image, filled up with random ones, as they are at a time of diffusion.

    Chen et al., "DiffusionDet", ICCV 2023.

    Args:
        boxes: corners in pixels, (n, 4); beyond ``proposals``, a random choice of them.
        proposals: how many to return, P.
        size: (height, width) of the image in pixels.
        time: 0..999.
        rng: source of all randomness.

    Returns:
        Latents (P, 4).
    """
    height, width = size
    if len(boxes) == 0:
        boxes = boxes.new_tensor([[0, 0, width, height]])
    boxes = boxes[torch.from_numpy(rng.permutation(len(boxes))[:proposals])]
    random = 0.5 + rng.standard_normal((proposals - len(boxes), 4)) / _SPREAD
    random[:, 2:] = random[:, 2:].clip(min=_SMALLEST_SIDE)
    filler = torch.from_numpy((2 * random - 1) * SIGNAL_SCALE).to(boxes)
    clean = torch.cat((boxes_to_latents(boxes, size), filler))
    signal = float(cosine_alphas_cumprod()[time])
    noise = torch.from_numpy(rng.standard_normal(clean.shape)).to(boxes)
    noisy: Tensor = clean * signal**0.5 + noise * (1 - signal) ** 0.5
    return noisy
