"""A plain training loop for fusion networks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from mmfusion.errors import DataError
from mmfusion.graph.luma_fusion import LumaFusion
from mmfusion.registry import create_model
from mmfusion.train.fusion_losses import gradient_loss, intensity_loss, ssim_loss, warmth_map
from mmfusion.train.output import WEIGHTS, make_output
from mmfusion.train.pairs import load_pairs
from mmfusion.train.schedule import warmup_cosine

_LARGEST_CROP = 256  # of the full picture, however much it is shrunk


@dataclass(frozen=True)
class FusionRecipe:
    """How a fusion network is trained; written beside its weights.

    Attributes:
        model: name for `create_model`.
        steps, batch: optimiser steps, and images per step.
        crop: side of the random crops that the network sees, pixels.
        scales: what `LumaFusion` may shrink by; each batch draws one. Losses are those of the
            picture at full size, so a network that runs small learns to keep fine detail.
        learning_rate: peak, after a linear warm-up over the first 5 %; then cosine to a tenth.
        intensity, gradient, ssim: weights of the loss terms.
        seed: of weights, crops and flips.
    """

    model: str = "s4fusion_tiny"
    steps: int = 1200
    batch: int = 6
    crop: int = 97
    scales: Sequence[int] = (1, 2, 4)
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
        ExportError: if the model cannot run at one of the scales.
    """
    pairs = [pair for pair in load_pairs(folders) if min(pair.visible.shape) >= recipe.crop]
    if not pairs:
        raise DataError(f"no pair is at least {recipe.crop} pixels wide and high")
    stacks = [np.stack((p.infrared, p.visible, warmth_map(p.infrared))) for p in pairs]
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    model = create_model(recipe.model).train()
    fusions = {scale: LumaFusion(model, scale) for scale in recipe.scales}
    decayed = [p for p in model.parameters() if p.requires_grad and p.dim() >= 2]
    others = [p for p in model.parameters() if p.requires_grad and p.dim() < 2]
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 1e-3}, {"params": others, "weight_decay": 0.0}],
        lr=recipe.learning_rate,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, warmup_cosine(recipe.steps))
    make_output(out)
    with tqdm(range(recipe.steps), unit="step", dynamic_ncols=True) as progress:
        for step in progress:
            scale = int(rng.choice(recipe.scales))
            infrared, visible, warmth = _draw_batch(stacks, recipe, scale, rng)
            fused = fusions[scale](infrared, visible)
            terms = _loss_terms(fused, infrared, visible, warmth)
            loss = torch.stack([getattr(recipe, name) * term for name, term in terms.items()]).sum()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            progress.set_postfix({name: f"{term.item():.4f}" for name, term in terms.items()})
            if (step + 1) % 200 == 0 or step + 1 == recipe.steps:
                _save(model, recipe, len(pairs), out)


def _loss_terms(
    fused: Tensor, infrared: Tensor, visible: Tensor, warmth: Tensor
) -> dict[str, Tensor]:
    return {
        "intensity": intensity_loss(fused, infrared, visible, warmth),
        "gradient": gradient_loss(fused, infrared, visible),
        "ssim": (ssim_loss(fused, infrared) + ssim_loss(fused, visible)) / 2,
    }


def _draw_batch(
    stacks: Sequence[NDArray[np.uint8]], recipe: FusionRecipe, scale: int, rng: np.random.Generator
) -> tuple[Tensor, ...]:
    """Crops of some pairs as (N, 1, side, side) in [0, 1]: infrared, visible, warmth."""
    chosen = [stacks[index] for index in rng.integers(len(stacks), size=recipe.batch)]
    smallest = min(min(stack.shape[1:]) for stack in chosen)
    side = min(recipe.crop * scale, _LARGEST_CROP, smallest)
    batch = torch.from_numpy(np.stack([_draw_crop(stack, side, rng) for stack in chosen]))
    crops: tuple[Tensor, ...] = batch.float().div_(255).split(1, dim=1)
    return crops


def _draw_crop(stack: NDArray[np.uint8], side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Random window of a stack of pictures, randomly flipped: (C, side, side)."""
    top, left = (int(rng.integers(extent - side + 1)) for extent in stack.shape[1:])
    window = stack[:, top : top + side, left : left + side]
    return np.flip(window, tuple(axis for axis in (1, 2) if rng.random() < 0.5))


def _save(model: nn.Module, recipe: FusionRecipe, pairs: int, out: Path) -> None:
    save_file(model.state_dict(), out / WEIGHTS)
    record = {**asdict(recipe), "pairs": pairs}
    (out / "recipe.json").write_text(json.dumps(record, indent=2) + "\n")
