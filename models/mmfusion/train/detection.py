"""What a detection network learns, with fusion in the same stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from mmfusion.efficientmfd.backbone import Pyramid
from mmfusion.efficientmfd.diffusion import LAST_TIME, TIMESTEPS, latents_to_boxes
from mmfusion.efficientmfd.network import EfficientMFD
from mmfusion.errors import DataError
from mmfusion.evaluate_detection import detect_objects, draw_detections
from mmfusion.metrics import JudgedBoxes, average_precision, detection_library
from mmfusion.registry import create_model
from mmfusion.train import detection_losses, joint_fusion_losses
from mmfusion.train.augmentation import Augmentation, augment, to_sample
from mmfusion.train.backbone_start import FRESH
from mmfusion.train.box_noise import noisy_latents
from mmfusion.train.boxed_pairs import BoxedPair, load_boxed_pairs
from mmfusion.train.degradation import Degradation, degrade
from mmfusion.train.detection_matching import Objects
from mmfusion.train.level_pool import pool_on_own_level
from mmfusion.train.processes import Processes
from mmfusion.train.recipes import STRICT, Loop, Natural, Optimiser, Positive, Share, Weight
from mmfusion.train.task import Losses, Validation

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
        backbone_weights: what the backbone starts from, unless a training
            starts from a whole network; see `start_backbone`.
        size: (height, width) of the samples.
        detection_weight, fusion_weight: of the two tasks; with 0 the other is learnt alone.
        fusion_share: of each part of a batch, the share that fusion is learnt from, its first
            samples over all processes; it is half of the work and learns from every pixel,
            detection from a few objects.
        fusion_loss: as the training was released, or as the article has it, see
            `joint_fusion_losses`.
        augmentation: how samples are varied; nothing but other windows by default.
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
    backbone_weights: str = FRESH
    size: tuple[Positive, Positive]
    detection_weight: Weight = 1.0
    fusion_weight: Weight = 1.0
    fusion_share: Share = 1.0
    fusion_loss: joint_fusion_losses.FusionForm = "released"
    augmentation: Augmentation = field(default_factory=Augmentation)
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
        whole = augment(to_sample(self._pairs[item]), recipe.size, recipe.augmentation, rng)
        seen = degrade(whole, recipe.degradation, rng)
        sample = Sample(
            _WHITE * seen["rgb"],
            _WHITE * seen["thermal"],
            Objects(seen["boxes"].as_subclass(Tensor).float(), seen["labels"]),
            seen["labelled"],
        )
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
                    processes=processes,
                )
            weights = found.new_tensor(detection_losses.WEIGHTS)
            tasks.append(recipe.detection_weight * (found * weights).sum())
            terms |= dict(zip(_DETECTION_TERMS, found[-1].detach(), strict=True))
        if recipe.fusion_weight:
            parts = self._fusion_losses(visible, infrared, pyramid, objects, processes)
            weights = parts.new_tensor(joint_fusion_losses.WEIGHTS)
            tasks.append(recipe.fusion_weight * (parts * weights).sum())
            terms |= dict(zip(_FUSION_TERMS, parts.detach(), strict=True))
        return Losses(tuple(tasks), terms)

    def _fusion_losses(
        self,
        visible: Tensor,
        infrared: Tensor,
        pyramid: Pyramid,
        objects: Sequence[Objects],
        processes: Processes,
    ) -> Tensor:
        """Of this process's samples, (3,); their mean over processes is that of the whole batch."""
        recipe, model = self._recipe, cast("EfficientMFD", self.network)
        fused, share = _fused_here(recipe.fusion_share, len(visible), processes)
        visible, infrared = visible[:fused], infrared[:fused]
        p2, p3, p4, p5 = (level[:fused] for level in pyramid)
        if not fused:
            # The network runs on nothing, too: batch norms of all processes wait for each other,
            # in full precision, as PyTorch keeps their statistics wherever there are samples.
            with torch.autocast(visible.device.type, enabled=False):
                levels = p2.float(), p3.float(), p4.float(), p5.float()
                _, nothing = model.fuse(visible, infrared, levels)
            return nothing.sum().expand(len(_FUSION_TERMS))
        _, luminance = model.fuse(visible, infrared, (p2, p3, p4, p5))
        mask = joint_fusion_losses.object_mask([o.boxes for o in objects[:fused]], recipe.size)
        with torch.autocast(visible.device.type, enabled=False):
            return share * joint_fusion_losses.joint_fusion_losses(
                luminance.float(),
                infrared / _WHITE,
                visible.amax(dim=1, keepdim=True) / _WHITE,
                mask.to(visible.device),
                recipe.fusion_loss,
            )

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


def _fused_here(share: float, samples: int, processes: Processes) -> tuple[int, float]:
    """Of the samples of a process, how many fusion is learnt from, and by what they count.

    They are the first of all samples of all processes together. Means over the samples of each
    process, times what they count by, have the mean over all that are fused as their mean over
    processes.
    """
    everywhere = max(1, round(share * samples * processes.count))
    here = min(max(everywhere - processes.rank * samples, 0), samples)
    return here, processes.count * here / everywhere


def _on_device(sample: Sample, device: torch.device) -> Sample:
    return Sample(
        sample.visible.to(device),
        sample.infrared.to(device),
        Objects(sample.objects.boxes.to(device), sample.objects.labels.to(device)),
        sample.labelled.to(device),
    )
