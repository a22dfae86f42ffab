"""Boxes as a diffusion process: noise schedule, signal space, and the sampler.

Chen et al., "DiffusionDet: Diffusion Model for Object Detection", ICCV 2023; the sampler is
DDIM (Song et al., ICLR 2021) with shapes that no prediction can change.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmfusion.errors import ModelError

TIMESTEPS = 1000
LAST_TIME = TIMESTEPS - 1  # at which a latent is noise and nothing else
SIGNAL_SCALE = 2.0
_COSINE_OFFSET = 0.008
_MAX_BETA = 0.999
# A proposal survives a step if its best class is more likely than not: probability 0.5, logit 0.
_RENEWAL_LOGIT = 0.0

Detect = Callable[[Tensor, int], tuple[Tensor, Tensor]]
"""Latents (N, P, 4) and index of a step to its last logits (N, P, C) and boxes (N, P, 4)."""


class Step(NamedTuple):
    """Constants of one sampling step: its time, and how it leads to the next step.

    The last step leads nowhere; its last three are 0.

    Attributes:
        time: 0..999.
        signal: share of signal in a latent of this time.
        noise: share of noise in it.
        next_signal: share of predicted signal in the next latent.
        next_noise: share of predicted noise.
        fresh_noise: share of newly drawn noise.
    """

    time: int
    signal: float
    noise: float
    next_signal: float
    next_noise: float
    fresh_noise: float


def cosine_alphas_cumprod() -> np.ndarray:
    """Variance share of the signal at each time, float64 (1000,).

    Nichol and Dhariwal, "Improved Denoising Diffusion Probabilistic Models", ICML 2021.
    """
    times = np.arange(TIMESTEPS + 1) / TIMESTEPS
    angle = (times + _COSINE_OFFSET) / (1 + _COSINE_OFFSET) * (np.pi / 2)
    curve = np.cos(angle) ** 2
    betas = np.clip(1 - curve[1:] / curve[:-1], 0, _MAX_BETA)
    cumulated: np.ndarray = np.cumprod(1 - betas)
    return cumulated


def sampling_steps(count: int) -> list[Step]:
    """The steps from pure noise downwards, evenly spaced in time.

    Raises:
        ModelError: if ``count`` is not in 1..1000.
    """
    if not 1 <= count <= TIMESTEPS:
        raise ModelError(
            f"{count} sampling steps are impossible; expected 1 to {TIMESTEPS}: 1 is published"
        )
    alphas = cosine_alphas_cumprod()
    edges = [TIMESTEPS * left // count - 1 if left else -1 for left in range(count, -1, -1)]
    steps = []
    for time, following in pairwise(edges):
        alpha = float(alphas[time])
        leads = (0.0, 0.0, 0.0)
        if following >= 0:
            after = float(alphas[following])
            variance = (1 - alpha / after) * (1 - after) / (1 - alpha)
            leads = (math.sqrt(after), math.sqrt(1 - after - variance), math.sqrt(variance))
        steps.append(Step(time, math.sqrt(alpha), math.sqrt(1 - alpha), *leads))
    return steps


def standard_noise(draws: int, proposals: int, seed: int) -> Tensor:
    """Standard normal numbers (draws, proposals, 4), the same on every machine."""
    generator = np.random.Generator(np.random.PCG64(seed))
    return torch.from_numpy(generator.standard_normal((draws, proposals, 4)).astype(np.float32))


def noise_draws(steps: int) -> int:
    """How many noises `sample` takes: the start, and two for every step but the last."""
    return 2 * steps - 1


def latents_to_boxes(latents: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes that latents stand for.

    Args:
        latents: centre and size in signal space, (..., 4); beyond +-2 they are clamped.
        size: (height, width) of the image in pixels.

    Returns:
        Corners in pixels, (..., 4); they may lie outside of the image.
    """
    unit = (latents.clamp(-SIGNAL_SCALE, SIGNAL_SCALE) / SIGNAL_SCALE + 1) / 2
    centre, sides = unit[..., :2], unit[..., 2:]
    corners = torch.cat((centre - sides / 2, centre + sides / 2), dim=-1)
    return corners * _scale(size, latents)


def boxes_to_latents(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Inverse of `latents_to_boxes`, clamped to the range of the signal."""
    unit = boxes / _scale(size, boxes)
    low, high = unit[..., :2], unit[..., 2:]
    centred = torch.cat(((low + high) / 2, high - low), dim=-1)
    return ((centred * 2 - 1) * SIGNAL_SCALE).clamp(-SIGNAL_SCALE, SIGNAL_SCALE)


def _scale(size: tuple[int, int], like: Tensor) -> Tensor:
    height, width = size
    return torch.tensor((width, height, width, height), dtype=like.dtype, device=like.device)


def sample(
    detect: Detect, noises: Tensor, steps: list[Step], size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Run all sampling steps and keep what each predicts, the last included.

    Proposals that found nothing are renewed in place, slot by slot: detection does not depend on
    the order of proposals, so this equals dropping them and filling up.

    Args:
        detect: one run of the detection head.
        noises: standard normal, (`noise_draws`, N, P, 4): the first latents; then for each step
            but the last the noise of kept proposals and the latents of renewed ones.
        steps: from `sampling_steps`.
        size: (height, width) of the image in pixels.

    Returns:
        Logits (N, K * P, C) and boxes (N, K * P, 4) of K steps, to be suppressed jointly.

    Raises:
        ModelError: if the count of noises does not fit.
    """
    if len(noises) != noise_draws(len(steps)):
        raise ModelError(
            f"{len(noises)} noises do not fit {len(steps)} sampling steps; expected "
            f"{noise_draws(len(steps))}: the start, and two for every step but the last"
        )
    latents = noises[0]
    all_logits, all_boxes = [], []
    for index, step in enumerate(steps):
        logits, boxes = detect(latents, index)
        all_logits.append(logits)
        all_boxes.append(boxes)
        if index + 1 < len(steps):
            latents = _next_latents(
                latents,
                logits,
                boxes_to_latents(boxes, size),
                step,
                noises[2 * index + 1 : 2 * index + 3],
            )
    return torch.cat(all_logits, dim=1), torch.cat(all_boxes, dim=1)


def _next_latents(
    latents: Tensor, logits: Tensor, signal: Tensor, step: Step, noises: Tensor
) -> Tensor:
    # Not divided by the share of signal first: at time 999 that share is 5e-5.
    noise = (latents - step.signal * signal) / step.noise
    fresh, renewed = noises
    kept = step.next_signal * signal + step.next_noise * noise + step.fresh_noise * fresh
    keep = logits.amax(dim=-1, keepdim=True) > _RENEWAL_LOGIT
    return torch.where(keep, kept, renewed)
