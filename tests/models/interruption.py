"""A training that is cut short."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mmfusion.train.trainer import Trainer


@contextmanager
def interrupted_after(steps: int) -> Iterator[None]:
    """As if somebody had pressed Ctrl-C once so many steps are done."""
    step = Trainer._step

    def interrupting(self, batches):
        if self._done == steps:
            raise KeyboardInterrupt
        return step(self, batches)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_step", interrupting)
        yield
