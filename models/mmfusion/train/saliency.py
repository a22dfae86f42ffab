"""What a saliency network learns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from mmfusion.errors import DataError
from mmfusion.graph.depth import DepthMapping, unpack_depth
from mmfusion.graph.depth_range import DepthRange
from mmfusion.graph.resize import Resize
from mmfusion.graph.saliency import normalise
from mmfusion.haf.network import HAF
from mmfusion.metrics import compare_saliency, saliency_library
from mmfusion.registry import create_model
from mmfusion.relative_depth import DepthReading, RelativeDepth
from mmfusion.saliency_scenes import scenes_with_branch, see_scene, truth_of
from mmfusion.train.augmentation import haf_sample
from mmfusion.train.backbone_start import FRESH
from mmfusion.train.degradation import Degradation, degrade
from mmfusion.train.lazy import LazySequence
from mmfusion.train.processes import Processes
from mmfusion.train.recipes import STRICT, Loop, Optimiser, Rate
from mmfusion.train.saliency_losses import saliency_loss
from mmfusion.train.scenes import Scene, load_scenes
from mmfusion.train.task import Losses, Validation

_SMALLEST_CROP = 0.6  # of each side
_Pixel = TypeVar("_Pixel", bound=np.generic)
_SHOWN = 4  # scenes, of those that are validated


@dataclass(config=STRICT, frozen=True, kw_only=True)
class SaliencyRecipe:
    """How a saliency network is trained.

    Attributes:
        model: name for `create_model`.
        loop: how training runs.
        optimiser: how weights follow gradients.
        backbone_weights: what both backbones start from, unless a training
            starts from a whole network; see `start_backbone`.
        near_m, far_m: metric range of depth, see `DepthRange`.
        relative_depth: how 8-bit depth is read, see `DepthReading`.
        augmentation: "window": a window of at least 0.6 of each side, perhaps mirrored, in other
            light; "haf": as published, see `haf_sample`.
        degradation: what happens to ``rgb`` and ``depth`` on the way to the network.

    Raises:
        DataError: if depth is never shown and batch norms keep their running statistics.
    """

    model: str
    loop: Loop
    optimiser: Optimiser
    backbone_weights: str = FRESH
    near_m: Rate = 0.3
    far_m: Rate = 10.0
    relative_depth: RelativeDepth = "left_out"
    augmentation: Literal["window", "haf"] = "window"
    degradation: Degradation = field(default_factory=Degradation)

    def __post_init__(self) -> None:
        if self.degradation.drop_depth == 1 and not self.loop.norm_batches:
            raise DataError(
                "degradation.drop_depth is 1, so that the depth stream has next to no variance to "
                "normalise by and running statistics are not good enough; expected "
                "loop.norm_batches, such as 24, or depth in some samples"
            )


class SaliencyTask:
    """A `Task`: colour and depth to a map of what stands out."""

    align_every = 0

    def __init__(
        self, recipe: SaliencyRecipe, folders: Sequence[Path], validation: Sequence[Path]
    ) -> None:
        """Read data and build the network.

        Args:
            recipe: what to do.
            folders: see `load_scenes`.
            validation: more of them, which are not trained on; may be empty.

        Raises:
            DataError: if the data are unusable.
            ExportError: if the depth range is impossible.
            MetricError: if there is something to validate and nothing to measure with.
        """
        self._recipe = recipe
        self._depth_range = DepthRange(recipe.near_m, recipe.far_m)
        reading = DepthReading(self._depth_range, recipe.relative_depth)
        self._scenes = load_scenes(folders, reading)
        self._validated: LazySequence[Scene] = LazySequence(())
        if validation:
            saliency_library()
            self._validated = load_scenes(validation, reading).some(recipe.loop.validate_samples)
        self.names = self._scenes.names
        self.facts: dict[str, Any] = {}
        network = cast("HAF", create_model(recipe.model))
        self._size = network.config.input_size
        # Convolutional backbones take 0.6 of the time on CPUs.
        self.network: nn.Module = network.to(memory_format=torch.channels_last)

    def sample(self, item: int, step: int, rng: np.random.Generator) -> Any:  # noqa: ARG002 (the protocol's)
        """Normalised rgb (1, 3, H, W), depth (1, 1, H, W) and mask (1, 1, H, W) in [0, 1]."""
        scene = self._scenes[item]
        cut = (
            haf_sample(scene, rng) if self._recipe.augmentation == "haf" else cut_window(scene, rng)
        )
        return self._seen(cut, rng)

    def _seen(self, scene: Scene, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """A scene as the network sees it on the robot, degraded."""
        height, width = scene.mask.shape
        raw = scene.depth.astype("<u2").view(np.uint8).reshape(height, width, 2)
        metres, valid = unpack_depth(torch.from_numpy(raw))
        whole = {
            "rgb": torch.from_numpy(scene.rgb).permute(2, 0, 1).float() / 255,
            "depth": (metres * valid)[0],
        }
        seen = degrade(whole, self._recipe.degradation, rng)
        metres = seen["depth"][None]
        resize = Resize((height, width), self._size)
        mapping = DepthMapping((height, width), self._size, self._depth_range)
        truth = resize(torch.from_numpy(scene.mask)[None, None].float() / 255)
        return normalise(resize(seen["rgb"][None])), mapping(metres, (metres > 0).float()), truth

    def losses(self, samples: list[Any], processes: Processes) -> Losses:
        """One task: the map."""
        rgb, depth, mask = (
            torch.cat(parts).to(processes.device) for parts in zip(*samples, strict=True)
        )
        maps = [saliency.float() for saliency in self.network(rgb, depth)]
        with torch.autocast(mask.device.type, enabled=False):
            loss = saliency_loss(maps, mask)
        return Losses((loss,), {"loss": loss.detach()})

    def validate(self, network: nn.Module) -> Validation | None:
        """S-measure and mean absolute error with depth, and the former as the score."""
        if not self._validated:
            return None
        likeness: list[float] = []
        errors: list[float] = []
        pictures: dict[str, NDArray[np.uint8]] = {}
        for branch, scene in scenes_with_branch(network, self._validated, self._depth_range):
            saliency = see_scene(branch, scene, with_depth=True)
            figures = compare_saliency(saliency, truth_of(scene))
            likeness.append(figures.s_measure)
            errors.append(figures.mae)
            if len(pictures) < _SHOWN:
                pictures[scene.name] = _beside(scene, saliency)
        score = float(np.mean(likeness))
        return Validation(score, {"S": score, "MAE": float(np.mean(errors))}, pictures)


def cut_window(scene: Scene, rng: np.random.Generator) -> Scene:
    """A random window of a scene, perhaps mirrored, in other light."""
    extents = np.array(scene.mask.shape)
    height, width = (extents * rng.uniform(_SMALLEST_CROP, 1, 2)).astype(int)
    top, left = (int(rng.integers(room + 1)) for room in extents - (height, width))
    mirrored = slice(None, None, -1) if rng.random() < 0.5 else slice(None)
    window = (slice(top, top + height), slice(left, left + width))

    def cut(picture: NDArray[_Pixel]) -> NDArray[_Pixel]:
        return np.ascontiguousarray(picture[window][:, mirrored])

    contrast, brightness = rng.uniform(0.7, 1.4), rng.uniform(-0.15, 0.15)
    light = (cut(scene.rgb) / 255 - 0.5) * contrast + 0.5 + brightness
    rgb = np.rint(255 * light.clip(0, 1)).astype(np.uint8)
    return Scene(scene.name, rgb, cut(scene.depth), cut(scene.mask))


def _beside(scene: Scene, saliency: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Picture, mask and map in a row, RGB."""
    maps = [cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB) for grey in (scene.mask, saliency)]
    return np.asarray(np.hstack((scene.rgb, *maps)), np.uint8)
