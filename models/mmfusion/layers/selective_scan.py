"""Selective scan: a linear recurrence whose decay and input depend on the data.

For every channel of every scan direction, with ``h`` zero before the first step::

    h[t, n] = exp(step[t] * A[n]) * h[t-1, n] + step[t] * B[t, n] * u[t]
    y[t]    = sum_n C[t, n] * h[t, n] + D * u[t]

(S4Fusion, Ma et al. 2024, arXiv 2405.20881; the discretisation is exponential for the
state and a plain Euler step for the input.) Nothing is carried between directions or images.

Tensors are time-major within an image, channels last: ``u`` and ``step`` are
(N, T, K, D), ``B`` and ``C`` are (N, T, K, S), ``A`` is (K, D, S) and ``D`` is (K, D), for N
images, T steps, K directions, D channels and S states. A row-major feature map is its own
first direction in this layout, and a scan step touches contiguous memory.

The time axis is cut into chunks. Within one, decays and inputs are formed for all steps at
once, states before channels (operators then run along the longer axis), and the recurrence
itself is a single fused multiply-add per step. Only the states at the
chunk borders are kept for the backward pass, which recomputes the rest: a scan of a training
batch would otherwise hold gigabytes of states.

On CUDA devices the fused kernels of `mmfusion.layers.selective_scan_triton` run instead, where
Triton is installed, as it is with PyTorch's CUDA builds.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

_CHUNK_ELEMENTS = 1 << 19  # states formed at once: 2 MiB in float32, so that they stay in cache


def selective_scan(  # noqa: PLR0917 (the order of the published operator)
    u: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor
) -> Tensor:
    """Run the selective scan of the module's description.

    Computed in the dtype of the inputs, which is float32 in the networks even under mixed
    precision (states decay over thousands of steps), float64 in tests.

    Args:
        u: signal, (N, T, K, D).
        step: positive step sizes (after bias and softplus), (N, T, K, D).
        a: negative decay rates, (K, D, S).
        b: input vectors, (N, T, K, S).
        c: output vectors, (N, T, K, S).
        d: skip weights, (K, D).

    Returns:
        y, (N, T, K, D).

    Raises:
        ValueError: if the shapes do not fit together.
    """
    _check_shapes(u, step, a, b, c, d)
    if torch.onnx.is_in_onnx_export():
        symbolic: Tensor = torch.onnx.ops.symbolic(
            "mmfusion::SelectiveScan",
            (u, step, a, b, c, d),
            dtype=u.dtype,
            shape=u.shape,
            version=1,
        )
        return symbolic
    if u.is_cuda and u.dtype != torch.float64 and _has_triton():
        from mmfusion.layers.selective_scan_triton import triton_selective_scan  # noqa: PLC0415

        return triton_selective_scan(u, step, a, b, c, d)
    y: Tensor = _SelectiveScan.apply(u, step, a, b, c)
    return y + d * u


@cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def selective_scan_reference(  # noqa: PLR0917
    u: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor
) -> Tensor:
    """The same recurrence, one step after the other: the oracle of tests and benchmarks."""
    state = u.new_zeros(u.shape[0], *a.shape)
    outputs = []
    for t in range(u.shape[1]):
        decay = torch.exp(step[:, t, :, :, None] * a)
        state = decay * state + (step[:, t] * u[:, t])[..., None] * b[:, t, :, None, :]
        outputs.append((state * c[:, t, :, None, :]).sum(-1) + d * u[:, t])
    return torch.stack(outputs, dim=1) if outputs else torch.zeros_like(u)


def _check_shapes(u: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> None:  # noqa: PLR0917
    if u.dim() != 4 or a.dim() != 3:
        raise ValueError(
            f"selective_scan expects u (N, T, K, D) and a (K, D, S), got {tuple(u.shape)} and "
            f"{tuple(a.shape)}"
        )
    images, steps, directions, channels = u.shape
    states = a.shape[2]
    expected = {
        "step": (step, (images, steps, directions, channels)),
        "a": (a, (directions, channels, states)),
        "b": (b, (images, steps, directions, states)),
        "c": (c, (images, steps, directions, states)),
        "d": (d, (directions, channels)),
    }
    for name, (tensor, shape) in expected.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(
                f"selective_scan: {name} is {tuple(tensor.shape)}, expected {shape} to go with "
                f"u {tuple(u.shape)}"
            )


class _SelectiveScan(Function):
    """The scan without its skip term, with border states saved and the rest recomputed."""

    @staticmethod
    def forward(  # noqa: PLR0917
        ctx: Any, u: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor
    ) -> Tensor:
        images, steps = u.shape[:2]
        a = a.transpose(1, 2).contiguous()
        state = u.new_zeros(images, *a.shape)
        y = torch.empty_like(u)
        borders = []
        for chunk in _chunks(steps, state.numel()):
            borders.append(state)
            states = _chunk_states(u[:, chunk], step[:, chunk], a, b[:, chunk], state)
            y[:, chunk] = _weigh(c[:, chunk], states)
            state = states[-1].clone()
        ctx.save_for_backward(u, step, a, b, c, *borders)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, ...]:
        u, step, a, b, c, *borders = ctx.saved_tensors
        grad_u, grad_step = torch.empty_like(u), torch.empty_like(step)
        grad_a, grad_b, grad_c = torch.zeros_like(a), torch.empty_like(b), torch.empty_like(c)
        chunks = _chunks(u.shape[1], u[:, :1].numel() * a.shape[1])
        carried = torch.zeros_like(borders[0]) if borders else None  # from the steps after a chunk
        for chunk, border in zip(reversed(chunks), reversed(borders), strict=True):
            u_, step_, b_, c_ = (x[:, chunk] for x in (u, step, b, c))
            states = _chunk_states(u_, step_, a, b_, border)
            before = torch.cat((border[None], states[:-1]))
            grad_y_ = grad_y[:, chunk].transpose(0, 1)
            grad_c[:, chunk] = (states @ grad_y_[..., None])[..., 0].transpose(0, 1)
            decay = _decay(step_, a)
            # Adjoint of the state, backwards in time: lambda[t] = C g + decay[t+1] lambda[t+1].
            adjoint = c_.transpose(0, 1)[..., None] * grad_y_[..., None, :]
            adjoint[-1] += carried
            for t in range(adjoint.shape[0] - 2, -1, -1):
                adjoint[t].addcmul_(decay[t + 1], adjoint[t + 1])
            carried = decay[0] * adjoint[0]
            through_decay = adjoint.mul(before).mul_(decay)  # d loss / d (step * A)
            along_b = _weigh(b_, adjoint)
            grad_u[:, chunk] = along_b * step_
            grad_step[:, chunk] = along_b * u_ + (through_decay * a).sum(3).transpose(0, 1)
            signal = (step_ * u_).transpose(0, 1)
            grad_b[:, chunk] = (adjoint @ signal[..., None])[..., 0].transpose(0, 1)
            grad_a += through_decay.mul_(step_.transpose(0, 1)[..., None, :]).sum((0, 1))
        return grad_u, grad_step, grad_a.transpose(1, 2), grad_b, grad_c


def _chunks(steps: int, elements_per_step: int) -> list[slice]:
    size = max(1, min(steps, _CHUNK_ELEMENTS // max(1, elements_per_step)))
    return [slice(start, min(start + size, steps)) for start in range(0, steps, size)]


def _decay(step: Tensor, a: Tensor) -> Tensor:
    """exp(step * A) with time first and ``a`` (K, S, D): (T, N, K, S, D)."""
    return torch.mul(step.transpose(0, 1)[..., None, :], a).exp_()


def _weigh(weights: Tensor, states: Tensor) -> Tensor:
    """Sum (T, N, K, S, D) over states with weights (N, T, K, S): (N, T, K, D)."""
    return (weights.transpose(0, 1)[..., None, :] @ states)[..., 0, :].transpose(0, 1)


def _chunk_states(u: Tensor, step: Tensor, a: Tensor, b: Tensor, state: Tensor) -> Tensor:
    """States after each step of one chunk, (T, N, K, S, D), starting from ``state``."""
    decay = _decay(step, a)
    states = b.transpose(0, 1)[..., None] * (step * u).transpose(0, 1)[..., None, :]
    for t in range(states.shape[0]):
        states[t].addcmul_(decay[t], state)
        state = states[t]
    return states
