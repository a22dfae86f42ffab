"""What the trainer asks of a kind of network."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from mmfusion.train.processes import Processes


class Losses(NamedTuple):
    """Of some samples.

    Attributes:
        tasks: one scalar for each, weighted; their sum is minimised.
        terms: for the log, detached.
    """

    tasks: tuple[Tensor, ...]
    terms: dict[str, Tensor]


@dataclass(frozen=True)
class Validation:
    """How a network does on samples that it is not trained on.

    Attributes:
        score: higher is better; weights of the best are kept.
        figures: by name.
        pictures: RGB, uint8 (H, W, 3), by name.
    """

    score: float
    figures: dict[str, float]
    pictures: dict[str, NDArray[np.uint8]] = field(default_factory=dict)


class Task(Protocol):
    """What to learn, and from what.

    Attributes:
        network: to be trained.
        names: of the samples there are to draw from.
        facts: what the task settled by itself, for the record; plain values.
        align_every: steps from one alignment of the tasks' gradients to the next, see
            `mmfusion.train.alignment`; 0 never.
    """

    network: nn.Module
    names: list[str]
    facts: dict[str, Any]
    align_every: int

    def sample(self, item: int, step: int, rng: np.random.Generator) -> Any:
        """Draw a sample of one of the `names`.

        The same arguments give the same sample, in whatever process and order.

        Args:
            item: position in `names`.
            step: of the optimiser, from 0; for whatever all samples of a step have in common.
            rng: source of all randomness of this sample.
        """

    def losses(self, samples: list[Any], processes: Processes) -> Losses:
        """Run the network on samples.

        Called under autocast where the recipe says so; losses are to be computed outside of it,
        as differences of means and variances do not survive it.

        Whatever a loss is divided by must be the same in all processes, such as a count of
        samples, or their mean by ``processes.mean``.
        """

    def validate(self, network: nn.Module) -> Validation | None:
        """Figures of a network in evaluation mode; None without data to tell."""
