"""What a detection network learns, with fusion in the same stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, NamedTuple, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from mmfusion.efficientmfd.diffusion import LAST_TIME, TIMESTEPS, latents_to_boxes
from mmfusion.efficientmfd.network import EfficientMFD
from mmfusion.errors import DataError
from mmfusion.evaluate_detection import detect_objects, draw_detections
from mmfusion.metrics import JudgedBoxes, average_precision, detection_library
from mmfusion.registry import create_model
from mmfusion.train import detection_losses, joint_fusion_losses
from mmfusion.train.box_noise import noisy_latents
from mmfusion.train.boxed_pairs import BoxedPair, load_boxed_pairs
from mmfusion.train.degradation import Degradation, degrade
from mmfusion.train.detection_matching import Objects
from mmfusion.train.level_pool import pool_on_own_level
from mmfusion.train.processes import Processes
from mmfusion.train.recipes import STRICT, Loop, Natural, Optimiser, Positive, Share, Weight
from mmfusion.train.task import Losses, Validation

_SMALLEST_CROP = 0.6  # of each side
_KEPT_SHARE = 0.4  # of a box; with less of it in sight, nobody can tell where it ends
_WHITE = 255.0
_DETECTION_TERMS = ("class", "l1", "giou")  # of the last stage
_FUSION_TERMS = ("structure", "detail", "brightness")
_SHOWN = 4  # pairs, of those that are validated


@dataclass(config=STRICT, frozen=True, kw_only=True)
class DetectionRecipe:
    """How a detection network is trained: fusion and detection in one stage.

    Attributes:
        model: name for `create_model`.
        loop: how training runs.
        optimiser: how weights follow gradients.
        size: (height, width) of the samples.
        detection_weight, fusion_weight: of the two tasks; with 0 the other is learnt alone.
        fusion_share: of each part of a batch, the share that fusion is learnt from; it is half
            of the work and learns from every pixel, detection from a few objects.
        degradation: what happens to ``rgb`` and ``thermal`` on the way to the network.
        from_noise: share of samples whose boxes start as pure noise, as they do at run time; the
            others start at any time of diffusion. 0 is published, and right for many sampling
            steps; with one step, little training is to be wasted on boxes half-way in place.
        align_every: steps from one alignment of the two tasks' gradients to the next, see
            `align_gradients`; 1000 is published, 1 aligns in each step, 0 never.
    """

    model: str
    loop: Loop
    optimiser: Optimiser
    size: tuple[Positive, Positive]
    detection_weight: Weight = 1.0
    fusion_weight: Weight = 1.0
    fusion_share: Share = 1.0
    degradation: Degradation = field(default_factory=Degradation)
    from_noise: Share = 0.0
    align_every: Natural = 1000


class Sample(NamedTuple):
    """What the network sees of a pair, and what is to be found in it.

    Attributes:
        visible: RGB, 0..255, (3, H, W).
        infrared: 0..255, (1, H, W).
        objects: boxes in the sample.
        labelled: which classes the objects cover, bool (C,).
    """

    visible: Tensor
    infrared: Tensor
    objects: Objects
    labelled: Tensor


class Start(NamedTuple):
    """Where the boxes of a sample start.

    Attributes:
        latents: noisy boxes, (P, 4).
        time: of diffusion.
    """

    latents: Tensor
    time: int


class DetectionTask:
    """A `Task`: boxes, and a fused picture, of visible and infrared pictures."""

    def __init__(
        self, recipe: DetectionRecipe, folders: Sequence[Path], validation: Sequence[Path]
    ) -> None:
        """Read data and build the network.

        Args:
            recipe: what to do.
            folders: see `load_boxed_pairs`.
            validation: more of them, which are not trained on; may be empty.

        Raises:
            DataError: if the data are unusable, or both tasks weigh nothing.
            MetricError: if there is something to validate and nothing to measure with.
        """
        if not recipe.detection_weight and not recipe.fusion_weight:
            raise DataError("detection_weight and fusion_weight are both 0; give one a weight")
        self._recipe = recipe
        # A sixth faster on CPUs.
        network = cast("EfficientMFD", create_model(recipe.model))
        self.network: nn.Module = network.to(memory_format=torch.channels_last)
        self._classes = network.config.classes
        self._proposals = network.config.proposals
        self._pairs = load_boxed_pairs(folders, self._classes)
        self._validated: Sequence[BoxedPair] = ()
        if validation:
            detection_library()
            pairs = load_boxed_pairs(validation, self._classes)
            self._validated = pairs.some(recipe.loop.validate_samples)
        self.names = self._pairs.names
        self.facts: dict[str, Any] = {}
        self.align_every = recipe.align_every

    def sample(self, item: int, step: int, rng: np.random.Generator) -> tuple[Sample, Start]:  # noqa: ARG002 (the protocol's)
        """A window of a pair, and noisy boxes to start from."""
        recipe = self._recipe
        whole = draw_sample(self._pairs[item], recipe.size, rng)
        pictures = {"rgb": whole.visible, "thermal": whole.infrared}
        seen = degrade(pictures, recipe.degradation, rng, white=_WHITE)
        sample = whole._replace(visible=seen["rgb"], infrared=seen["thermal"])
        anywhere = rng.random() >= recipe.from_noise
        time = int(rng.integers(TIMESTEPS)) if anywhere else LAST_TIME
        boxes = sample.objects.boxes
        return sample, Start(noisy_latents(boxes, self._proposals, recipe.size, time, rng), time)

    def losses(self, samples: list[tuple[Sample, Start]], processes: Processes) -> Losses:
        """Two tasks: detection and fusion."""
        recipe, model = self._recipe, cast("EfficientMFD", self.network)
        batch = [_on_device(sample, processes.device) for sample, _ in samples]
        visible = torch.stack([sample.visible for sample in batch])
        infrared = torch.stack([sample.infrared for sample in batch])
        objects = [sample.objects for sample in batch]
        pyramid = model.pyramid(visible, infrared)
        tasks: list[Tensor] = []
        terms: dict[str, Tensor] = {}
        if recipe.detection_weight:
            latents = torch.stack([start.latents for _, start in samples]).to(processes.device)
            times = torch.tensor([start.time for _, start in samples], device=processes.device)
            logits, boxes = model.head(
                pyramid,
                latents_to_boxes(latents, recipe.size),
                model.head.modulations(times),
                pool_on_own_level,
            )
            labelled = torch.stack([sample.labelled for sample in batch])
            with torch.autocast(visible.device.type, enabled=False):
                found = detection_losses.detection_losses(
                    logits.float(),
                    boxes.float(),
                    objects,
                    recipe.size,
                    labelled=labelled,
                    mean=processes.mean,
                )
            weights = found.new_tensor(detection_losses.WEIGHTS)
            tasks.append(recipe.detection_weight * (found * weights).sum())
            terms |= dict(zip(_DETECTION_TERMS, found[-1].detach(), strict=True))
        if recipe.fusion_weight:
            fused = max(1, round(recipe.fusion_share * len(batch)))
            visible, infrared = visible[:fused], infrared[:fused]
            p2, p3, p4, p5 = (level[:fused] for level in pyramid)
            _, luminance = model.fuse(visible, infrared, (p2, p3, p4, p5))
            mask = joint_fusion_losses.object_mask([o.boxes for o in objects[:fused]], recipe.size)
            with torch.autocast(visible.device.type, enabled=False):
                parts = joint_fusion_losses.joint_fusion_losses(
                    luminance.float(),
                    infrared / 255,
                    visible.amax(dim=1, keepdim=True) / 255,
                    mask.to(visible.device),
                )
            weights = parts.new_tensor(joint_fusion_losses.WEIGHTS)
            tasks.append(recipe.fusion_weight * (parts * weights).sum())
            terms |= dict(zip(_FUSION_TERMS, parts.detach(), strict=True))
        return Losses(tuple(tasks), terms)

    def validate(self, network: nn.Module) -> Validation | None:
        """Average precision over the classes that occur, at IoU 0.5 as the score."""
        if not self._validated:
            return None
        detector = cast("EfficientMFD", network)
        judged: list[JudgedBoxes] = []
        pictures: dict[str, NDArray[np.uint8]] = {}
        for pair in self._validated:
            picture, boxes = detect_objects(detector, pair)
            judged.append(boxes)
            if len(pictures) < _SHOWN:
                pictures[pair.name] = draw_detections(picture, boxes, self._classes)
        mean = average_precision(judged, self._classes).mean
        figures = {"AP50": mean.ap50 or 0.0, "AP": mean.ap or 0.0}
        return Validation(figures["AP50"], figures, pictures)


def _on_device(sample: Sample, device: torch.device) -> Sample:
    return Sample(
        sample.visible.to(device),
        sample.infrared.to(device),
        Objects(sample.objects.boxes.to(device), sample.objects.labels.to(device)),
        sample.labelled.to(device),
    )


def draw_sample(pair: BoxedPair, size: tuple[int, int], rng: np.random.Generator) -> Sample:
    """A random window of a pair, perhaps mirrored, with other light.

    Args:
        pair: to cut from.
        size: (height, width) of the sample; the window has the same shape.
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
