"""Optimisers and schedules that recipes name."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import nn, optim

from mmfusion.errors import DataError
from mmfusion.train.recipes import Loop, Optimiser
from mmfusion.train.schedule import (
    efficientmfd_schedule,
    haf_schedule,
    s4fusion_schedule,
    warmup_cosine,
)

_KINDS: dict[str, type[optim.AdamW | optim.Adam]] = {"adamw": optim.AdamW, "adam": optim.Adam}


def create_optimiser(network: nn.Module, settings: Optimiser) -> optim.Optimizer:
    """Optimiser of all weights that are to be trained.

    Vectors, scalars and what ``network.no_weight_decay()`` names, as timm's networks have it, do
    not decay. The backbone, ``network.backbone_parameters()``, has a learning rate of its own.

    Raises:
        DataError: if there is a rate for the backbone of a network without one.
    """
    named: Callable[[], set[str]] = getattr(network, "no_weight_decay", set)
    exempt = named()
    inside: Callable[[], Iterable[nn.Parameter]] = getattr(network, "backbone_parameters", list)
    backbone = {id(parameter) for parameter in inside()}
    if settings.backbone_rate != 1 and not backbone:
        raise DataError(
            f"optimiser.backbone_rate is {settings.backbone_rate}, but the network has no "
            "backbone; leave it out"
        )
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            whole = parameter.dim() <= 1 or name in exempt
            groups.setdefault((whole, id(parameter) in backbone), []).append(parameter)
    rates = {False: 1.0, True: settings.backbone_rate}
    return _KINDS[settings.name](
        [
            {
                "params": parameters,
                "weight_decay": 0.0 if whole else settings.weight_decay,
                "lr": settings.learning_rate * rates[pretrained],
            }
            for (whole, pretrained), parameters in groups.items()
        ],
        lr=settings.learning_rate,
    )


def create_schedule(
    optimiser: optim.Optimizer, settings: Optimiser, loop: Loop, samples: int
) -> optim.lr_scheduler.LambdaLR:
    """Learning rate of every step.

    Args:
        optimiser: whose rate it is.
        settings: that name the schedule.
        loop: the training.
        samples: in an epoch.
    """
    factors: dict[str, Callable[[int], float]] = {
        "constant": lambda _: 1.0,
        "warmup_cosine": warmup_cosine(loop.steps),
        "s4fusion": s4fusion_schedule(loop.steps, max(1, loop.steps // 20)),
        "haf": haf_schedule(-(-samples // loop.batch)),
        "efficientmfd": efficientmfd_schedule(loop.steps),
    }
    return optim.lr_scheduler.LambdaLR(optimiser, factors[settings.schedule])
