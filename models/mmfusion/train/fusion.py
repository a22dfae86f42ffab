"""A plain training loop for fusion networks."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from mmfusion.errors import DataError
from mmfusion.registry import create_model
from mmfusion.train.fusion_losses import gradient_loss, intensity_loss, ssim_loss
from mmfusion.train.pairs import Pair, load_pairs


@dataclass(frozen=True)
class FusionRecipe:
    """How a fusion network is trained; written beside its weights.

    Attributes:
        model: name for `create_model`.
        steps, batch, crop: optimiser steps, images per step, side of the random crops in pixels.
        learning_rate: peak, after a linear warm-up over the first 5 %; then cosine to a tenth.
        intensity, gradient, ssim: weights of the loss terms.
        seed: of weights, crops and flips.
    """

    model: str = "s4fusion_tiny"
    steps: int = 1500
    batch: int = 6
    crop: int = 97
    learning_rate: float = 2e-3
    intensity: float = 3.0
    gradient: float = 60.0
    ssim: float = 3.0
    seed: int = 0


def train_fusion(recipe: FusionRecipe, folders: Sequence[Path], out: Path) -> None:
    """Train and write ``model.safetensors`` and ``recipe.json`` into ``out``.

    Args:
        recipe: what to do.
        folders: pair folders, see `find_pairs`.
        out: created if absent.

    Raises:
        DataError: if the data are unusable.
    """
    pairs = [pair for pair in load_pairs(folders) if min(pair.visible.shape) >= recipe.crop]
    if not pairs:
        raise DataError(f"no pair is at least {recipe.crop} pixels wide and high")
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    model = create_model(recipe.model).train()
    decayed = [p for p in model.parameters() if p.requires_grad and p.dim() >= 2]
    others = [p for p in model.parameters() if p.requires_grad and p.dim() < 2]
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 1e-3}, {"params": others, "weight_decay": 0.0}],
        lr=recipe.learning_rate,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, _warmup_cosine(recipe.steps))
    out.mkdir(parents=True, exist_ok=True)
    with tqdm(range(recipe.steps), unit="step", dynamic_ncols=True) as progress:
        for step in progress:
            infrared, visible = _draw_batch(pairs, recipe, rng)
            fused = model(infrared, visible)
            terms = _loss_terms(fused, infrared, visible)
            loss = torch.stack([getattr(recipe, name) * term for name, term in terms.items()]).sum()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            progress.set_postfix({name: f"{term.item():.4f}" for name, term in terms.items()})
            if (step + 1) % 200 == 0 or step + 1 == recipe.steps:
                _save(model, recipe, len(pairs), out)


def _loss_terms(fused: Tensor, infrared: Tensor, visible: Tensor) -> dict[str, Tensor]:
    return {
        "intensity": intensity_loss(fused, infrared, visible),
        "gradient": gradient_loss(fused, infrared, visible),
        "ssim": (ssim_loss(fused, infrared) + ssim_loss(fused, visible)) / 2,
    }


def _warmup_cosine(steps: int) -> Callable[[int], float]:
    warmup = max(1, steps // 20)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = (step - warmup) / max(1, steps - warmup)
        return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress))

    return factor


def _draw_batch(
    pairs: Sequence[Pair], recipe: FusionRecipe, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    crops = [
        _draw_crop(pairs[i], recipe.crop, rng) for i in rng.integers(len(pairs), size=recipe.batch)
    ]
    batch = torch.from_numpy(np.stack(crops)).float().div_(255)
    return batch[:, :1], batch[:, 1:]


def _draw_crop(pair: Pair, side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Random window of a pair, (2, side, side); half of them at half the resolution.

    Networks run on shrunk pictures too, whose detail per pixel is another.
    """
    images = np.stack((pair.infrared, pair.visible))
    if min(pair.visible.shape) >= 2 * side and rng.random() < 0.5:
        images = np.stack(
            [cv2.resize(x, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for x in images]
        )
    top, left = (int(rng.integers(extent - side + 1)) for extent in images.shape[1:])
    window = images[:, top : top + side, left : left + side]
    return np.flip(window, tuple(axis for axis in (1, 2) if rng.random() < 0.5))


def _save(model: nn.Module, recipe: FusionRecipe, pairs: int, out: Path) -> None:
    save_file(model.state_dict(), out / "model.safetensors")
    record = {**asdict(recipe), "pairs": pairs}
    (out / "recipe.json").write_text(json.dumps(record, indent=2) + "\n")
