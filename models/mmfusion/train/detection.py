"""A plain training loop for networks that fuse a pair of images and detect objects in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from mmfusion.efficientmfd.diffusion import LAST_TIME, TIMESTEPS, latents_to_boxes
from mmfusion.efficientmfd.network import EfficientMFD
from mmfusion.registry import create_model
from mmfusion.train import detection_losses, joint_fusion_losses
from mmfusion.train.alignment import Alignment, align_gradients, require_alignment
from mmfusion.train.box_noise import noisy_latents
from mmfusion.train.boxed_pairs import BoxedPair, load_boxed_pairs
from mmfusion.train.detection_matching import Objects
from mmfusion.train.level_pool import pool_on_own_level
from mmfusion.train.output import WEIGHTS, make_output
from mmfusion.train.schedule import warmup_cosine
from mmfusion.train.step_log import LOG, StepLog

_SMALLEST_CROP = 0.6  # of each side
_KEPT_SHARE = 0.4  # of a box; with less of it in sight, nobody can tell where it ends
_LUMA = (0.299, 0.587, 0.114)  # what a compiled graph shows instead of missing infrared
_WEIGHT_DECAY = 1e-4
_TERMS = ("class", "l1", "giou", "structure", "detail", "brightness")
_SAVE_EVERY = 200  # steps


@dataclass(frozen=True)
class DetectionRecipe:
    """How a fusing detector is trained; written beside its weights.

    Attributes:
        model: name for `create_model`.
        steps: optimiser steps.
        batch: pairs per step.
        size: (height, width) that pairs are cut and scaled to: what the network sees at run time.
        learning_rate: peak, after a linear warm-up over the first 5 %; then cosine to a tenth.
        fusion_weight: of the fusion loss against the detection loss; 1 is published. It hardly
            matters at first: Adam learns at the same rate whatever the scale of a loss, and the
            only layers that both losses train, the backbone, feel detection far more.
        fusion_share: share of the batch that is fused, one pair at least; 1 is published. Fusion
            is half of the work and learns from every pixel, detection from a few objects.
        without_thermal: share of samples whose infrared is the luma of the visible image, as on
            a robot whose thermal camera has stalled.
        align_every: steps from one alignment of the two tasks' gradients to the next, see
            `align_gradients`; 1000 is published, 1 aligns in each step, 0 never.
        from_noise: share of samples whose boxes start as pure noise, as they do at run time; the
            others start at any time of diffusion. 0 is published, and right for many sampling
            steps; with one step, little training is to be wasted on boxes half-way in place.
        seed: of weights, samples, boxes and noise.
    """

    model: str = "efficientmfd_tiny"
    steps: int = 3000
    batch: int = 4
    size: tuple[int, int] = (240, 320)
    learning_rate: float = 1e-3
    fusion_weight: float = 1.0
    fusion_share: float = 0.25
    align_every: int = 1000
    without_thermal: float = 0.2
    from_noise: float = 0.5
    seed: int = 0


class Sample(NamedTuple):
    """A cut of a pair, as the network sees it.

    Attributes:
        visible: RGB, (3, H, W), 0..255.
        infrared: (1, H, W), 0..255.
        objects: what is in the cut.
        labelled: which classes the objects cover, bool (C,).
    """

    visible: Tensor
    infrared: Tensor
    objects: Objects
    labelled: Tensor


def train_detection(recipe: DetectionRecipe, folders: Sequence[Path], out: Path) -> None:
    """Train and write ``model.safetensors``, ``recipe.json`` and ``training.jsonl`` into ``out``.

    Args:
        recipe: what to do.
        folders: see `load_boxed_pairs`.
        out: created if absent.

    Raises:
        DataError: if the data are unusable.
        ModelError: if the model is unknown, or if gradients are to be aligned and cannot be.
    """
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    model = cast("EfficientMFD", create_model(recipe.model)).train()
    # A sixth faster on CPUs.
    model = model.to(memory_format=torch.channels_last)
    pairs = load_boxed_pairs(folders, model.config.classes)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=recipe.learning_rate, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, warmup_cosine(recipe.steps))
    if 0 < recipe.align_every <= recipe.steps:
        require_alignment()
    make_output(out)
    log = StepLog(out / LOG, 0)
    aligned: dict[str, str] = {}
    with tqdm(range(recipe.steps), unit="step", dynamic_ncols=True) as progress:
        for step in progress:
            chosen = rng.integers(len(pairs), size=recipe.batch)
            samples = [
                draw_sample(pairs[index], recipe.size, recipe.without_thermal, rng)
                for index in chosen
            ]
            fused = max(1, round(recipe.fusion_share * recipe.batch))
            times = np.where(
                rng.random(recipe.batch) < recipe.from_noise,
                LAST_TIME,
                rng.integers(TIMESTEPS, size=recipe.batch),
            ).tolist()
            detection, fusion = _losses(model, samples, times, fused, rng)
            weighted_detection = (detection * detection.new_tensor(detection_losses.WEIGHTS)).sum()
            weighted_fusion = (fusion * fusion.new_tensor(joint_fusion_losses.WEIGHTS)).sum()
            tasks = (weighted_detection, recipe.fusion_weight * weighted_fusion)
            optimiser.zero_grad(set_to_none=True)
            record: dict[str, Any] = {}
            if recipe.align_every and (step + 1) % recipe.align_every == 0:
                alignment = align_gradients(tasks, trained)
                record["alignment"] = asdict(alignment)
                aligned = {"conflict": _briefly(alignment)}
            else:
                torch.stack(tasks).sum().backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            schedule.step()
            losses = dict(zip(_TERMS, torch.cat((detection[-1], fusion)).tolist(), strict=True))
            log.write(step + 1, {**losses, **record})
            progress.set_postfix({**{n: f"{v:.3f}" for n, v in losses.items()}, **aligned})
            if (step + 1) % _SAVE_EVERY == 0 or step + 1 == recipe.steps:
                weights = {name: value.contiguous() for name, value in model.state_dict().items()}
                save_file(weights, out / WEIGHTS)
                (out / "recipe.json").write_text(
                    json.dumps({**asdict(recipe), "pairs": len(pairs)}, indent=2) + "\n"
                )
    log.close()


def _briefly(alignment: Alignment) -> str:
    """Condition number of the gradients as they were, for the progress line."""
    condition = alignment.before.condition
    return "singular" if condition is None else f"{condition:.1f}"


def _losses(
    model: EfficientMFD,
    samples: Sequence[Sample],
    times: Sequence[int],
    fused: int,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """Detection losses (S, 3), and fusion losses (3,) of the first ``fused``, not weighted."""
    visible = torch.stack([sample.visible for sample in samples])
    infrared = torch.stack([sample.infrared for sample in samples])
    labelled = torch.stack([sample.labelled for sample in samples])
    objects = [sample.objects for sample in samples]
    size = (visible.shape[-2], visible.shape[-1])
    latents = torch.stack(
        [
            noisy_latents(o.boxes, model.config.proposals, size, time, rng)
            for o, time in zip(objects, times, strict=True)
        ]
    )
    pyramid = model.pyramid(visible, infrared)
    logits, boxes = model.head(
        pyramid,
        latents_to_boxes(latents, size),
        model.head.modulations(torch.tensor(times)),
        pool_on_own_level,
    )
    detection = detection_losses.detection_losses(logits, boxes, objects, size, labelled)
    visible, infrared = visible[:fused], infrared[:fused]
    p2, p3, p4, p5 = (level[:fused] for level in pyramid)
    _, luminance = model.fuse(visible, infrared, (p2, p3, p4, p5))
    brightest = visible.amax(dim=1, keepdim=True)
    mask = joint_fusion_losses.object_mask([o.boxes for o in objects[:fused]], size)
    fusion = joint_fusion_losses.joint_fusion_losses(
        luminance, infrared / 255, brightest / 255, mask
    )
    return detection, fusion


def draw_sample(
    pair: BoxedPair, size: tuple[int, int], without_thermal: float, rng: np.random.Generator
) -> Sample:
    """A random window of a pair, perhaps mirrored, with other light.

    Args:
        pair: to cut from.
        size: (height, width) of the sample; the window has the same shape.
        without_thermal: probability that infrared is missing.
        rng: source of all randomness.
    """
    extents = np.array(pair.infrared.shape)
    window = np.array(size) * (extents / size).min() * rng.uniform(_SMALLEST_CROP, 1)
    height, width = (max(1, int(side)) for side in window)
    top, left = (int(rng.integers(room + 1)) for room in extents - (height, width))
    visible, infrared = (
        _scale(image[top : top + height, left : left + width], size, rng)
        for image in (pair.visible, pair.infrared)
    )
    if rng.random() < without_thermal:
        infrared = (visible * visible.new_tensor(_LUMA)[:, None, None]).sum(dim=0, keepdim=True)
    scale = np.array((size[1] / width, size[0] / height) * 2)
    boxes = (pair.boxes - (left, top, left, top)) * scale
    inside = boxes.clip(0, (size[1], size[0]) * 2)
    kept = _areas(inside) >= _KEPT_SHARE * np.maximum(_areas(boxes), 1e-6)
    if rng.random() < 0.5:
        visible, infrared = visible.flip(-1), infrared.flip(-1)
        inside = (size[1], 0, size[1], 0) + inside[:, [2, 1, 0, 3]] * (-1, 1, -1, 1)
    return Sample(
        visible,
        infrared,
        Objects(torch.from_numpy(inside[kept]).float(), torch.from_numpy(pair.labels[kept])),
        torch.from_numpy(pair.labelled),
    )


def _scale(image: NDArray[np.uint8], size: tuple[int, int], rng: np.random.Generator) -> Tensor:
    """Scale a window (H, W) or (H, W, 3) to (channels, *size), and change its light."""
    method = cv2.INTER_AREA if image.shape[0] > size[0] else cv2.INTER_LINEAR
    scaled = cv2.resize(image, size[::-1], interpolation=method).reshape(*size, -1)
    light = torch.from_numpy(scaled).permute(2, 0, 1).float()
    contrast, brightness = rng.uniform(0.8, 1.25), rng.uniform(-25, 25)
    return ((light - 127.5) * contrast + 127.5 + brightness).clamp(0, 255)


def _areas(boxes: NDArray[np.floating]) -> NDArray[np.floating]:
    areas: NDArray[np.floating] = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return areas
