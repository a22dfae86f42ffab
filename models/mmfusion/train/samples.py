"""Which samples make up which step.

Each sample is drawn from a generator of its own, seeded by the training's seed and the sample's
number, so that a step has the same samples however many processes and parts it is split over, and
whether training was interrupted before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from mmfusion.errors import DataError
from mmfusion.train.processes import Processes
from mmfusion.train.recipes import Loop
from mmfusion.train.task import Task


class _Samples(Dataset[Any]):
    """Samples by number: those of a step follow each other."""

    def __init__(self, task: Task, loop: Loop) -> None:
        self._task = task
        self._loop = loop

    def __getitem__(self, number: int) -> Any:
        epoch, place = divmod(number, len(self._task.names))
        item = int(_order(len(self._task.names), self._loop.seed, epoch)[place])
        rng = np.random.default_rng((self._loop.seed, 1, number))
        return self._task.sample(item, number // self._loop.batch, rng)


@lru_cache(maxsize=2)
def _order(items: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Every item once, in an order of the epoch's own."""
    return np.random.default_rng((seed, 0, epoch)).permutation(items)


class _Parts:
    """Numbers of the samples that one process computes at a time."""

    def __init__(self, loop: Loop, done: int, processes: Processes) -> None:
        parts = loop.accumulate * processes.count
        if loop.batch % parts:
            raise DataError(
                f"loop.batch is {loop.batch}; expected a multiple of {parts}, as each batch is "
                f"split over {processes.count} processes and loop.accumulate: {loop.accumulate}"
            )
        self._size = loop.batch // parts
        self._loop, self._done, self._processes = loop, done, processes

    def __len__(self) -> int:
        return (self._loop.steps - self._done) * self._loop.accumulate

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self._done, self._loop.steps):
            for part in range(self._loop.accumulate):
                place = part * self._processes.count + self._processes.rank
                start = step * self._loop.batch + place * self._size
                yield list(range(start, start + self._size))


def load_samples(
    task: Task, loop: Loop, done: int, processes: Processes, workers: int
) -> DataLoader[Any]:
    """Lists of samples, ``loop.accumulate`` for each step.

    Args:
        task: to draw from.
        loop: the training.
        done: steps that are behind.
        processes: to share the samples with.
        workers: further processes to draw samples in; 0 draws them in this one.

    Raises:
        DataError: if a batch cannot be split evenly.
    """
    return DataLoader(
        _Samples(task, loop),
        batch_sampler=_Parts(loop, done, processes),
        collate_fn=list,
        num_workers=workers,
    )
