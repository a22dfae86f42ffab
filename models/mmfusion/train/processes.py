"""One training in one process or many, which torchrun starts.

Gradients are averaged here rather than by DistributedDataParallel: its hooks see backward passes
only, and aligned gradients come of none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn


@dataclass(frozen=True)
class Processes:
    """This process among all that train together.

    Attributes:
        rank: 0 is the one that writes.
        count: of processes.
        device: of this one.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that validates and writes."""
        return self.rank == 0

    def mean(self, value: Tensor) -> Tensor:
        """Mean of a tensor over all processes, detached."""
        total = value.detach().clone()
        if self.count > 1:
            distributed.all_reduce(total)
            total /= self.count
        return total

    def mean_gradients(
        self, gradients: Sequence[Tensor | None], like: Sequence[Tensor]
    ) -> list[Tensor | None]:
        """Mean of gradients over all processes.

        Args:
            gradients: None where this process has none, which counts as zero if any has one.
            like: tensors of the gradients' shapes.
        """
        if self.count == 1:
            return list(gradients)
        known = torch.tensor([float(g is not None) for g in gradients], device=self.device)
        distributed.all_reduce(known)
        chosen = [place for place, number in enumerate(known.tolist()) if number]
        if not chosen:
            return list(gradients)
        parts = [
            torch.zeros_like(like[place]) if gradient is None else gradient
            for place in chosen
            for gradient in (gradients[place],)
        ]
        flat = self.mean(torch.cat([part.flatten() for part in parts]))
        means: list[Tensor | None] = [None] * len(gradients)
        for place, values in zip(chosen, flat.split([part.numel() for part in parts]), strict=True):
            means[place] = values.view_as(like[place])
        return means


@contextmanager
def joined() -> Iterator[Processes]:
    """Join the processes that torchrun has started; alone where it has not."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    cuda = torch.cuda.is_available()
    device = (
        torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        if cuda
        else torch.device("cpu")
    )
    if cuda:
        torch.cuda.set_device(device)
    if count == 1:
        yield Processes(0, 1, device)
        return
    distributed.init_process_group("nccl" if cuda else "gloo")
    try:
        yield Processes(distributed.get_rank(), count, device)
    finally:
        distributed.destroy_process_group()


def synchronised(network: nn.Module, processes: Processes) -> nn.Module:
    """The network, with batch statistics over all processes where the device can do that."""
    if processes.count > 1 and processes.device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-any-return]
    return network
