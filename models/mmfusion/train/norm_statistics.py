"""Statistics of batch norms, taken anew from the last weights.

While weights move, the running statistics that inference normalises by lag behind them. Where what
a layer sees hardly varies, as in the depth stream of a network that is never shown depth, that lag
is many deviations, and a network that has learnt finds nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmfusion.train.processes import Processes
from mmfusion.train.task import Task


def retake_statistics(
    task: Task, network: nn.Module, parts: Iterable[list[Any]], processes: Processes
) -> None:
    """Replace running means and variances by those over some batches, each part counting alike.

    Args:
        task: shows samples to its network as training does.
        network: the task's, or averaged weights of it; changed in place, left in training mode.
        parts: lists of samples, as for `Task.losses`; this process's share.
        processes: all of which must call this; they come to the same statistics.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    own, task.network = task.network, network
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean over all that is seen
        network.train()
        with torch.no_grad():
            for samples in parts:
                task.losses(samples, processes)
            for norm in norms:  # on CPUs each process has seen its own samples alone
                for statistic in (norm.running_mean, norm.running_var):
                    if statistic is not None:
                        statistic.copy_(processes.mean(statistic))
    finally:
        task.network = own
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
