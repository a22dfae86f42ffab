"""A plain training loop for saliency networks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from mmfusion.graph.depth import DepthMapping, unpack_depth
from mmfusion.graph.depth_range import DepthRange
from mmfusion.graph.resize import Resize
from mmfusion.graph.saliency import normalise
from mmfusion.haf.network import HAF
from mmfusion.registry import create_model
from mmfusion.train.output import WEIGHTS, make_output
from mmfusion.train.saliency_losses import saliency_loss
from mmfusion.train.scenes import Scene, load_scenes
from mmfusion.train.schedule import warmup_cosine

_SMALLEST_CROP = 0.6  # of each side


@dataclass(frozen=True)
class SaliencyRecipe:
    """How a saliency network is trained; written beside its weights.

    Attributes:
        model: name for `create_model`.
        steps, batch: optimiser steps, and images per step.
        learning_rate: peak, after a linear warm-up over the first 5 %; then cosine to a tenth.
        near_m, far_m: metric range of depth, see `DepthRange`.
        without_depth: share of samples shown without depth, as on a robot whose depth camera
            has stalled.
        seed: of weights, crops and flips.
    """

    model: str
    steps: int = 3000
    batch: int = 8
    learning_rate: float = 1e-3
    near_m: float = 0.3
    far_m: float = 10.0
    without_depth: float = 0.2
    seed: int = 0


def train_saliency(recipe: SaliencyRecipe, folders: Sequence[Path], out: Path) -> None:
    """Train and write ``model.safetensors`` and ``recipe.json`` into ``out``.

    Args:
        recipe: what to do.
        folders: see `load_scenes`.
        out: created if absent.

    Raises:
        DataError: if the data are unusable.
        ExportError: if the depth range is impossible.
    """
    depth_range = DepthRange(recipe.near_m, recipe.far_m)
    scenes = load_scenes(folders)
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    model = cast("HAF", create_model(recipe.model)).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, warmup_cosine(recipe.steps))
    make_output(out)
    with tqdm(range(recipe.steps), unit="step", dynamic_ncols=True) as progress:
        for step in progress:
            chosen = [scenes[index] for index in rng.integers(len(scenes), size=recipe.batch)]
            samples = [
                _draw(scene, model.config.input_size, depth_range, recipe.without_depth, rng)
                for scene in chosen
            ]
            rgb, depth, mask = (torch.cat(parts) for parts in zip(*samples, strict=True))
            loss = saliency_loss(model(rgb, depth), mask)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            progress.set_postfix(loss=f"{loss.item():.3f}")
            if (step + 1) % 200 == 0 or step + 1 == recipe.steps:
                save_file(model.state_dict(), out / WEIGHTS)
                record = {**asdict(recipe), "scenes": len(scenes)}
                (out / "recipe.json").write_text(json.dumps(record, indent=2) + "\n")


def _draw(
    scene: Scene,
    size: tuple[int, int],
    depth_range: DepthRange,
    without_depth: float,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """A random window of a scene, perhaps mirrored, as the network sees it on the robot.

    Returns:
        Normalised rgb (1, 3, H, W), depth (1, 1, H, W) and mask (1, 1, H, W) in [0, 1].
    """
    extents = np.array(scene.mask.shape)
    height, width = (extents * rng.uniform(_SMALLEST_CROP, 1, 2)).astype(int)
    top, left = (int(rng.integers(room + 1)) for room in extents - (height, width))
    mirrored = slice(None, None, -1) if rng.random() < 0.5 else slice(None)
    window = (slice(top, top + height), slice(left, left + width))
    rgb, depth, mask = (
        np.ascontiguousarray(picture[window][:, mirrored])
        for picture in (scene.rgb, scene.depth, scene.mask)
    )
    resize = Resize((height, width), size)
    colour = resize(torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255)
    contrast, brightness = rng.uniform(0.7, 1.4), rng.uniform(-0.15, 0.15)
    colour = ((colour - 0.5) * contrast + 0.5 + brightness).clamp(0, 1)
    raw = depth.astype("<u2").view(np.uint8).reshape(height, width, 2)
    metres, valid = unpack_depth(torch.from_numpy(raw))
    if rng.random() < without_depth:
        valid = torch.zeros_like(valid)
    mapped = DepthMapping((height, width), size, depth_range)(metres, valid)
    truth = resize(torch.from_numpy(mask)[None, None].float() / 255)
    return normalise(colour), mapped, truth
