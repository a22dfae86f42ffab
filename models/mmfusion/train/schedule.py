"""How the learning rate runs."""

from __future__ import annotations

import math
from collections.abc import Callable


def warmup_cosine(steps: int) -> Callable[[int], float]:
    """Factor of the peak rate by step: linear over the first 5 %, then cosine to a tenth."""
    warmup = max(1, steps // 20)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = (step - warmup) / max(1, steps - warmup)
        return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress))

    return factor


def s4fusion_schedule(
    steps: int, warmup: int, *, first: float = 0.2, last: float = 0.4
) -> Callable[[int], float]:
    """Factor of the peak rate by step, as S4Fusion is trained (arXiv:2405.20881).

    Linear from ``first`` to 1 over the warm-up, then cosine to ``last``; published: from 3e-4 to
    1.5e-3 and down to 6e-4. The length of the warm-up is not published.

    Args:
        steps: of the whole training.
        warmup: steps of them.
        first: factor before the first step.
        last: factor of the last step.
    """

    def factor(step: int) -> float:
        count = step + 1
        if count < warmup:
            return first + (1 - first) * count / warmup
        progress = (count - warmup) / max(1, steps - warmup)
        return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * progress))

    return factor


def haf_schedule(epoch_steps: int) -> Callable[[int], float]:
    """Factor of the first rate by step, as HAF is trained: a tenth from each 100th epoch on.

    Epochs count from 1, so the first rate holds for 99.

    Args:
        epoch_steps: optimiser steps of an epoch.
    """
    return lambda step: 0.1 ** ((1 + step // epoch_steps) // 100)


def efficientmfd_schedule(steps: int) -> Callable[[int], float]:
    """Factor of the peak rate by step, as EfficientMFD is trained (arXiv:2403.09323).

    Published for 15,000 steps, and stretched for others: linear from a hundredth over the first
    fifteenth, a tenth from one third on, and a hundredth from two thirds on.

    Args:
        steps: of the whole training.
    """
    warmup = max(1, steps // 15)

    def factor(step: int) -> float:
        if step < warmup:
            return 0.01 + 0.99 * step / warmup
        return 0.1 ** (3 * step // steps)

    return factor
