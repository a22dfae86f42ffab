"""Losses, figures and pictures for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard.writer import SummaryWriter

from mmfusion.train.task import Validation

FOLDER = "tensorboard"


class Board:
    """Writes what ``tensorboard --logdir OUT`` shows."""

    def __init__(self, out: Path, done: int) -> None:
        """Open for appending; whatever an interrupted run wrote of later steps is hidden."""
        self._writer = SummaryWriter(str(out / FOLDER), purge_step=done + 1)

    def losses(self, step: int, terms: Mapping[str, float], rate: float) -> None:
        """What a step came to."""
        for name, value in {**terms, "learning_rate": rate}.items():
            self._writer.add_scalar(f"train/{name}", value, step)

    def validation(self, step: int, validation: Validation) -> None:
        """How the network does after a step."""
        for name, value in validation.figures.items():
            self._writer.add_scalar(f"validation/{name}", value, step)
        for name, picture in validation.pictures.items():
            self._writer.add_image(name, picture, step, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
