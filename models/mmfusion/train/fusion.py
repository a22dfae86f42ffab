"""What a fusion network learns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torchvision import tv_tensors  # type: ignore[import-untyped]
from tqdm import tqdm

from mmfusion.errors import DataError
from mmfusion.evaluate_fusion import fuse_luma
from mmfusion.graph.luma_fusion import LumaFusion
from mmfusion.layers.warmth import warmth_of
from mmfusion.metrics import edge_preservation, visual_information_fidelity
from mmfusion.metrics.windows import VIF_MIN_SIDE
from mmfusion.registry import create_model
from mmfusion.train.augmentation import square_crop, to_sample
from mmfusion.train.degradation import MODALITIES, Degradation, degrade
from mmfusion.train.fusion_objective import FusionLoss, FusionObjective
from mmfusion.train.lazy import LazySequence
from mmfusion.train.pairs import Pair, load_pairs
from mmfusion.train.processes import Processes
from mmfusion.train.recipes import STRICT, Loop, Optimiser, Positive
from mmfusion.train.task import Losses, Validation

_LARGEST_CROP = 256  # of the full picture, however much it is shrunk
_SHOWN = 4  # pairs, of those that are validated
_CALIBRATED = 64  # pairs that losses are calibrated on
_LEAST_CROP = 16  # a window of SSIM, two pixels at the coarsest scale of information


@dataclass(config=STRICT, frozen=True, kw_only=True)
class FusionRecipe:
    """How a fusion network is trained.

    Attributes:
        model: name for `create_model`.
        loop: how training runs.
        optimiser: how weights follow gradients.
        crop: side of the random crops that the network sees, pixels.
        scales: what `LumaFusion` may shrink by; each batch draws one. Losses are those of the
            picture at full size, so a network that runs small learns to keep fine detail.
        objective: `WarmthObjective` or `S4FusionObjective`, by its ``kind``.
        degradation: what happens to ``rgb`` (luma) and ``thermal`` on the way to the network.
            The fused picture is judged by the whole pictures, but for missing ones, which
            nobody can bring back.
    """

    model: str
    loop: Loop
    optimiser: Optimiser
    crop: Annotated[int, Field(ge=_LEAST_CROP)]
    scales: list[Positive] = field(default_factory=lambda: [1])
    objective: FusionObjective
    degradation: Degradation = field(default_factory=Degradation)


class FusionTask:
    """A `Task`: infrared and visible luma to one luma that keeps what matters of both."""

    align_every = 0

    def __init__(
        self, recipe: FusionRecipe, folders: Sequence[Path], validation: Sequence[Path]
    ) -> None:
        """Read data and build the network.

        Args:
            recipe: what to do.
            folders: pair folders, see `find_pairs`.
            validation: more of them, which are not trained on; may be empty.

        Raises:
            DataError: if the data are unusable.
            ExportError: if the model cannot run at one of the scales.
        """
        self._recipe = recipe
        pairs = load_pairs(folders)
        large = [place for place, size in enumerate(pairs.sizes) if min(size) >= recipe.crop]
        if not large:
            raise DataError(f"no pair is at least {recipe.crop} pixels wide and high")
        self._pairs = pairs.take(large)
        self._validated = load_pairs(validation).some(recipe.loop.validate_samples)
        _require_measurable(self._validated)
        self._smallest = min(min(size) for size in self._pairs.sizes)
        self.names = self._pairs.names
        self.network: nn.Module = create_model(recipe.model)
        for scale in recipe.scales:
            LumaFusion(self.network, scale)  # refuses what is impossible
        self._loss = FusionLoss(recipe.objective, self._typical)
        self.facts = self._loss.facts

    def sample(self, item: int, step: int, rng: np.random.Generator) -> Any:
        """Random window, randomly flipped.

        Returns:
            Scale; what the network sees, (2, side, side), and what that is judged by, (3, side,
            side): infrared, visible, and warmth of the latter, in [0, 1].
        """
        common = np.random.default_rng((self._recipe.loop.seed, 3, step))
        scale = int(common.choice(self._recipe.scales))
        side = min(self._recipe.crop * scale, _LARGEST_CROP, self._smallest)
        whole = _draw_crop(self._pairs[item], side, rng)
        seen = degrade({"thermal": whole[:1], "rgb": whole[1:2]}, self._recipe.degradation, rng)
        judged = whole.clone()
        if not seen["present"][MODALITIES.index("thermal")]:
            judged[0], judged[2] = whole[1], 0
        if not seen["present"][MODALITIES.index("rgb")]:
            judged[1] = whole[0]
        return scale, torch.cat((seen["thermal"], seen["rgb"])), judged

    def losses(self, samples: list[Any], processes: Processes) -> Losses:
        """One task: the picture."""
        scale = samples[0][0]
        _, *parts = zip(*samples, strict=True)
        seen, judged = (torch.stack(part).to(processes.device) for part in parts)
        infrared, visible = seen.split(1, dim=1)
        fused = LumaFusion(self.network, scale)(infrared, visible).float()
        with torch.autocast(fused.device.type, enabled=False):
            terms = self._loss.to(processes.device)(fused, judged)
            loss = torch.stack(list(terms.values())).sum()
        return Losses((loss,), {name: term.detach() for name, term in terms.items()})

    def _typical(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Crops of some pairs, infrared and visible, (1, 1, H, W) in [0, 1]."""
        pairs = self._pairs.some(_CALIBRATED)
        rng = np.random.default_rng(self._recipe.loop.seed)
        for pair in tqdm(pairs, "calibrating", unit="pair", delay=1, leave=False):
            crop = _draw_crop(pair, self._recipe.crop, rng)[None]
            yield crop[:, :1], crop[:, 1:2]

    def validate(self, network: nn.Module) -> Validation | None:
        """VIF and Q_ABF of whole pictures, and their sum as the score."""
        if not self._validated:
            return None
        fusion = LumaFusion(network).eval()
        device = next(network.parameters()).device
        kept: list[float] = []
        preserved: list[float] = []
        pictures: dict[str, NDArray[np.uint8]] = {}
        for pair in self._validated:
            fused = fuse_luma(fusion, pair, device)
            sources = (pair.infrared, pair.visible)
            kept.append(sum(visual_information_fidelity(fused, one) for one in sources))
            preserved.append(edge_preservation(fused, *sources))
            if len(pictures) < _SHOWN:
                pictures[pair.name] = _beside(pair, fused)
        figures = {"VIF": float(np.nanmean(kept)), "Q_ABF": float(np.nanmean(preserved))}
        return Validation(sum(figures.values()), figures, pictures)


def _require_measurable(pairs: LazySequence[Pair]) -> None:
    sizes = zip(pairs.names, pairs.sizes, strict=True)
    small = [name for name, size in sizes if min(size) < VIF_MIN_SIDE]
    if small:
        raise DataError(
            f"validation measures VIF, which needs sides of at least {VIF_MIN_SIDE} pixels; "
            f"leave out pair {', '.join(small)}"
        )


def _draw_crop(pair: Pair, side: int, rng: np.random.Generator) -> Tensor:
    """Random window, randomly flipped: infrared, visible, warmth, (3, side, side) in [0, 1]."""
    whole = to_sample(pair)
    warm = warmth_of(whole["thermal"].float()[None] / 255)[0]
    whole["warmth"] = tv_tensors.Image((255 * warm).round().byte())
    crop = square_crop(whole, side, rng)
    return torch.cat([crop[name] for name in ("thermal", "rgb", "warmth")]).float() / 255


def _beside(pair: Pair, fused: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Visible, infrared and fused picture in a row, RGB."""
    row = np.hstack((pair.visible, pair.infrared, fused))
    return np.repeat(row[..., None], 3, axis=2)
