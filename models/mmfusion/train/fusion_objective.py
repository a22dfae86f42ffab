"""What makes a fused picture good, as recipes choose it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from mmfusion.train.classifier import DEFAULT_CLASSIFIER, Classifier
from mmfusion.train.information import calibrate_temperature
from mmfusion.train.recipes import STRICT, Rate, Weight
from mmfusion.train.s4fusion_losses import WEIGHTS, S4FusionLoss, ssim_loss
from mmfusion.train.warmth import contrast_loss, warmth_loss

NO_CLASSIFIER = "none"
_Batches = Callable[[], Iterable[tuple[Tensor, Tensor]]]


@dataclass(config=STRICT, frozen=True, kw_only=True)
class WarmthObjective:
    """The visible picture, with what is warm as bright as infrared has it. Not published.

    Attributes:
        kind: chooses it.
        warmth, contrast: weights of the terms in `mmfusion.train.warmth`.
        ssim: weight of the dissimilarity of structure from both pictures alike, see `ssim_loss`.
    """

    kind: Literal["warmth"]
    warmth: Weight = 3.0
    contrast: Weight = 60.0
    ssim: Weight = 6.0


@dataclass(config=STRICT, frozen=True, kw_only=True)
class S4FusionObjective:
    """As S4Fusion is published, see `S4FusionLoss`.

    Attributes:
        kind: chooses it.
        classifier: timm name of the classifier whose features tell how much each source has to
            say, and whose doubt about the fused picture is the entropy term. Its weights come
            from ``classifier_weights`` or from earlier downloads, nothing is fetched. "none" does
            without: contrast over four scales tells instead, and there is no entropy term.
        classifier_weights: file of its weights.
        temperature: of the sources' weights, see `information_weights`; None to calibrate it on
            the training pairs, as the published one is unknown.
        ssim, intensity, gradient, entropy: weights of the terms.
    """

    kind: Literal["s4fusion"]
    classifier: str = DEFAULT_CLASSIFIER
    classifier_weights: str | None = None
    temperature: Rate | None = None
    ssim: Weight = WEIGHTS["ssim"]
    intensity: Weight = WEIGHTS["intensity"]
    gradient: Weight = WEIGHTS["gradient"]
    entropy: Weight = WEIGHTS["entropy"]


_Objective = WarmthObjective | S4FusionObjective
FusionObjective = Annotated[_Objective, Field(discriminator="kind")]


class FusionLoss(nn.Module):
    """The terms of an objective, weighted.

    Attributes:
        facts: what was chosen by itself, for the record of the training.
    """

    facts: dict[str, Any]

    def __init__(self, objective: _Objective, batches: _Batches) -> None:
        """Build it.

        Args:
            objective: what to weigh.
            batches: gives infrared and visible luma of training pairs, (N, 1, H, W) in [0, 1].

        Raises:
            ModelError: if there are no weights of the classifier.
            DataError: if the pairs do not tell the temperature.
        """
        super().__init__()
        self._objective = objective
        self.facts = {}
        self._published: S4FusionLoss | None = None
        if isinstance(objective, S4FusionObjective):
            self._published = self._build(objective, batches)

    def _build(self, objective: S4FusionObjective, batches: _Batches) -> S4FusionLoss:
        classifier = None
        if objective.classifier != NO_CLASSIFIER:
            weights = objective.classifier_weights
            classifier = Classifier(objective.classifier, Path(weights) if weights else None)
            self.facts["classifier_sha256"] = classifier.sha256
        temperature = objective.temperature or calibrate_temperature(batches(), classifier)
        self.facts |= {"classifier": objective.classifier, "temperature": temperature}
        return S4FusionLoss(classifier, temperature)

    def forward(self, fused: Tensor, stack: Tensor) -> dict[str, Tensor]:
        """Weighted terms by name.

        Args:
            fused: (N, 1, H, W).
            stack: infrared, visible and warmth of the pairs, (N, 3, H, W) in [0, 1].
        """
        infrared, visible, warmth = stack.split(1, dim=1)
        if self._published is not None:
            terms: dict[str, Tensor] = self._published(fused, infrared, visible)
        else:
            alike = fused.new_full((len(fused), 2), 0.5)
            terms = {
                "warmth": warmth_loss(fused, infrared, visible, warmth),
                "contrast": contrast_loss(fused, infrared, visible),
                "ssim": ssim_loss(fused, infrared, visible, alike),
            }
        weights: Any = self._objective
        return {name: getattr(weights, name) * term for name, term in terms.items()}
