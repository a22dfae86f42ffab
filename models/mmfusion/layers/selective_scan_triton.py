"""The selective scan as fused Triton kernels, for CUDA devices.

The recurrence of `mmfusion.layers.selective_scan` runs along time, but is linear in its state: time
is cut into chunks, and three kernels run over all chunks side by side but for the second, which is
short:

1. states: of each chunk, the state at its end if it had begun with zero, and its sum of steps;
2. carry: from chunk to chunk, the state that each really begins with, as the decay of a whole
   chunk is ``exp(A * sum of steps)``;
3. emit: each chunk again from its true beginning, writing ``y``.

So states never leave the registers but at the borders of chunks, and inputs are read twice. The
backward pass does the same with the adjoint, backwards in time. States and sums are float32
whatever the inputs are.

Import this only where Triton is installed. With ``TRITON_INTERPRET=1`` set before that, the kernels
run on CPU tensors, for tests.
"""

from __future__ import annotations

from typing import Any

import torch
import triton  # type: ignore[import-untyped]
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from mmfusion.layers.selective_scan_kernels import (
    scan_adjoints,
    scan_carry,
    scan_emit,
    scan_gradients,
    scan_states,
)

CHUNK = 256  # time steps
BLOCK_D = 32  # channels of one program; with 16 states, 512 numbers in registers
_MAX_LINES = 65535  # blocks of a grid in its third dimension
_MAX_ROWS = 2**31 - 1 - CHUNK  # rows are counted in 32 bits, elements in 64
_SCRATCH_BYTES = 1 << 28  # states that the backward pass writes out at a time


def triton_selective_scan(  # noqa: PLR0917 (the order of the published operator)
    u: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor
) -> Tensor:
    """See `mmfusion.layers.selective_scan.selective_scan`; shapes are as there, and checked there.

    ``u``, ``step``, ``b`` and ``c`` may be float16, bfloat16 or float32; ``y`` has the dtype of
    ``u``, its gradients those of the inputs.

    Raises:
        ValueError: if there are more images times directions, or images times steps, than the
            kernels count.
    """
    images, steps, directions, _ = u.shape
    if images * directions > _MAX_LINES or images * steps > _MAX_ROWS:
        raise ValueError(
            f"selective_scan on a GPU takes up to {_MAX_LINES} images times directions and "
            f"{_MAX_ROWS} images times steps, got {images} images of {directions} directions and "
            f"{steps} steps; use a smaller batch"
        )
    y: Tensor = _TritonScan.apply(u, step, a, b, c, d)
    return y


class _TritonScan(Function):
    @staticmethod
    def forward(  # noqa: PLR0917
        ctx: Any, u: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor
    ) -> Tensor:
        u, step, b, c, d = (x.contiguous() for x in (u, step, b, c, d))
        a32 = a.float().contiguous()
        y = torch.empty_like(u)
        images, steps, directions, channels = u.shape
        states = a.shape[2]
        chunks = triton.cdiv(steps, CHUNK)
        borders = u.new_empty(images, chunks, directions, channels, states, dtype=torch.float32)
        sums = u.new_empty(images, chunks, directions, channels, dtype=torch.float32)
        if u.numel():
            ends = torch.empty_like(borders)
            sizes, blocks = (directions, channels, states), _blocks(states)
            grid = _grid(chunks, u)
            scan_states[grid](u, step, a32, b, steps, *sizes, ends, sums, CHUNK, **blocks)
            scan_carry[grid[1:]](a32, ends, sums, chunks, *sizes, borders, False, **blocks)  # noqa: FBT003
            scan_emit[grid](u, step, a32, b, c, d, borders, steps, *sizes, y, CHUNK, **blocks)
        ctx.save_for_backward(u, step, a32, b, c, d, borders, sums)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        u, step, a, b, c, d, borders, sums = ctx.saved_tensors
        grad = grad.contiguous()
        images, steps, directions, channels = u.shape
        states, chunks = a.shape[2], borders.shape[1]
        grad_u, grad_step = (torch.zeros_like(x, dtype=torch.float32) for x in (u, step))
        grad_a = torch.zeros_like(a)
        grad_b, grad_c = (torch.zeros_like(x, dtype=torch.float32) for x in (b, c))
        if u.numel():
            sizes, blocks = (directions, channels, states), _blocks(states)
            ends, carried = torch.empty_like(borders), torch.empty_like(borders)
            grid = _grid(chunks, u)
            scan_adjoints[grid](step, a, c, grad, steps, *sizes, ends, CHUNK, **blocks)
            scan_carry[grid[1:]](a, ends, sums, chunks, *sizes, carried, True, **blocks)  # noqa: FBT003
            group = max(1, min(chunks, _SCRATCH_BYTES // (borders[:, 0].nbytes * CHUNK)))
            scratch = borders.new_empty(images, group, directions, CHUNK, channels, states)
            for first in range(0, chunks, group):
                grid = _grid(min(group, chunks - first), u)
                scan_gradients[grid](
                    u, step, a, b, c, grad, borders, carried,
                    steps, chunks, first, *sizes,
                    scratch, grad_u, grad_step, grad_a, grad_b, grad_c,
                    CHUNK, **blocks,
                )  # fmt: skip
        grad_d = (grad.float() * u.float()).sum((0, 1))
        grad_u += d.float() * grad.float()
        pairs = ((grad_u, u), (grad_step, step), (grad_a, a), (grad_b, b), (grad_c, c), (grad_d, d))
        return tuple(gradient.to(of.dtype) for gradient, of in pairs)


def _blocks(states: int) -> dict[str, int]:
    return {"BLOCK_D": BLOCK_D, "BLOCK_S": triton.next_power_of_2(states)}


def _grid(chunks: int, u: Tensor) -> tuple[int, int, int]:
    images, _, directions, channels = u.shape
    return chunks, triton.cdiv(channels, BLOCK_D), images * directions
