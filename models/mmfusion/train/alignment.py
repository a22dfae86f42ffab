"""Gradients of several tasks, aligned over the parameters that all of them train.

The gradient matrix task alignment (GMTA) of EfficientMFD, arXiv:2403.09323, which is Aligned-MTL
(Senushkin et al., CVPR 2023) every so many steps. The matrix G of the tasks' gradients, one
column for each, becomes s U V^T, where U S V^T is its singular value decomposition and s the
smallest singular value: columns that are orthogonal and of one length, so that no task drowns or
undoes another. The released training computes this and never hands it to the optimiser.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import cast

import torch
from torch import Tensor, nn

from mmfusion.errors import ModelError

_ROUNDING = torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class Conflict:
    """How the gradients of the tasks stand to each other on the shared parameters.

    Attributes:
        norms: Euclidean norm of each task's gradient.
        cosine: smallest between any two tasks; None of one task or beside a zero gradient.
        condition: largest by smallest singular value of the matrix of gradients; None if it has
            less than full rank.
    """

    norms: list[float]
    cosine: float | None
    condition: float | None


@dataclass(frozen=True)
class Alignment:
    """What `align_gradients` did.

    Attributes:
        shared: values, not tensors, that all losses reach.
        weights: of each task's gradient in the one that the shared parameters got.
        before, after: alignment.
    """

    shared: int
    weights: list[float]
    before: Conflict
    after: Conflict


def require_alignment() -> None:
    """See that alignment can run, before hours of training lead up to it.

    Raises:
        ModelError: if torchjd is missing.
    """
    _weighting()


def task_gradients(
    losses: Sequence[Tensor], parameters: Sequence[nn.Parameter]
) -> list[list[Tensor | None]]:
    """Gradients of each loss, apart from each other; None where a loss does not reach."""
    return [
        list(
            torch.autograd.grad(
                loss, parameters, retain_graph=loss is not losses[-1], allow_unused=True
            )
        )
        for loss in losses
    ]


def align_gradients(
    gradients: Sequence[Sequence[Tensor | None]], parameters: Sequence[nn.Parameter]
) -> Alignment:
    """Set ``grad`` of each parameter, in place of the sum over the tasks.

    Which parameters are shared is read from the gradients: those that every loss reaches. They
    get the sum of the aligned gradients. All others get what ``backward`` would give them: the
    sum over the losses that reach them, or None.

    Args:
        gradients: of each task and parameter, see `task_gradients`.
        parameters: to be trained; earlier gradients are replaced.

    Raises:
        ModelError: if torchjd is missing, if no parameter is shared, or if gradients are not
            finite.
    """
    # Of each parameter: its gradients, and by which losses.
    reached = [
        {task: gradient for task, gradient in enumerate(column) if gradient is not None}
        for column in zip(*gradients, strict=True)
    ]
    tasks = len(gradients)
    shared = [list(own.values()) for own in reached if len(own) == tasks]
    if not shared:
        raise ModelError(
            f"no parameter is reached by all {tasks} losses; alignment needs layers that "
            "every task trains: connect the tasks to them, or switch alignment off"
        )
    gramian = torch.stack([_gramian(column) for column in shared]).sum(dim=0)
    if not gramian.isfinite().all():
        raise ModelError(
            "gradients are not finite, the training has diverged; start anew with a lower "
            "learning rate"
        )
    balance = _balance(gramian)
    weights: list[float] = balance.sum(dim=1).tolist()
    for parameter, own in zip(parameters, reached, strict=True):
        factors = weights if len(own) == tasks else [1.0] * tasks
        parts = [factors[task] * gradient for task, gradient in own.items()]
        parameter.grad = reduce(add, parts) if parts else None
    return Alignment(
        sum(column[0].numel() for column in shared),
        weights,
        _conflict(gramian),
        _conflict(balance.T @ gramian @ balance),
    )


def _gramian(gradients: Sequence[Tensor]) -> Tensor:
    """Products of the tasks' gradients of one parameter, (T, T), in double precision.

    Squares take twice the digits: in single precision a task a thousand times weaker than another
    would be lost in rounding.
    """
    rows = torch.stack([gradient.flatten() for gradient in gradients]).double()
    return rows @ rows.T


def _balance(gramian: Tensor) -> Tensor:
    """B (T, T) of G^T G, such that the columns of G B are aligned."""
    if not _has_full_rank(torch.linalg.eigvalsh(gramian)):
        # Rounding errors alone must not set the scale. In single precision, torchjd leaves such
        # directions out.
        gramian = gramian.float()
    weighting = _weighting()
    # Unit preferences give the columns; their sum is that of a preference of ones. The default
    # preference would divide the step by the number of tasks.
    columns = [weighting(unit)(gramian) for unit in torch.eye(len(gramian)).to(gramian)]
    return torch.stack(columns, dim=1).double()


def _has_full_rank(eigenvalues: Tensor) -> bool:
    """Whether the least of the eigenvalues of G^T G, rising, is more than rounding in G.

    The published code compares the squares with single precision, so that a task whose gradient
    is two thousand times weaker than another's is not aligned but left to drown.
    """
    least = eigenvalues[-1] * (len(eigenvalues) * _ROUNDING) ** 2
    return bool(eigenvalues[0] > least)


def _weighting() -> Callable[[Tensor], Callable[[Tensor], Tensor]]:
    """Class of torchjd that weights tasks by their Gramian, for a preference among them."""
    try:
        from torchjd.aggregation import AlignedMTLWeighting  # noqa: PLC0415
    except ImportError as error:
        raise ModelError(
            f"gradient alignment needs torchjd ({error}); install it with: "
            "pip install 'mmfusion[train]', or switch alignment off (align_every: 0)"
        ) from error
    return cast("Callable[[Tensor], Callable[[Tensor], Tensor]]", AlignedMTLWeighting)


def _conflict(gramian: Tensor) -> Conflict:
    norms = gramian.diagonal().clamp(min=0).sqrt()
    cosines = gramian / torch.outer(norms, norms)
    pairs = cosines[torch.ones_like(gramian, dtype=torch.bool).triu(1)]
    known = len(pairs) > 0 and bool(pairs.isfinite().all())
    eigenvalues = torch.linalg.eigvalsh(gramian)
    return Conflict(
        norms.tolist(),
        float(pairs.min()) if known else None,
        float((eigenvalues[-1] / eigenvalues[0]).sqrt()) if _has_full_rank(eigenvalues) else None,
    )
