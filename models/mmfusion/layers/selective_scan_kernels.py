"""The kernels of the fused selective scan, see `mmfusion.layers.selective_scan_triton`.

All arrays are contiguous, of the shapes told there; ``a``, ends, borders, carried and scratch hold
(.., D, S) in float32, sums (.., D). ``CHUNK`` is in time steps. A program takes ``BLOCK_D``
channels with all their states of one direction of one image; ``BLOCK_S`` is the power of 2 that
holds them. Arguments are inputs, sizes, outputs: TensorRT hands them to a plugin in that order.
"""

from __future__ import annotations

import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]


@triton.jit
def scan_states(
    u_ptr, step_ptr, a_ptr, b_ptr,
    steps, directions, channels, states,
    ends_ptr, sums_ptr,
    CHUNK: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    """Kernel 1; grid (chunks, channel blocks, images * directions)."""
    chunk = tl.program_id(0)
    image, direction = tl.program_id(2) // directions, tl.program_id(2) % directions
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    s = tl.arange(0, BLOCK_S)
    in_d, in_s = d < channels, s < states
    inside = in_d[:, None] & in_s[None, :]
    a = tl.load(a_ptr + (direction * channels + d[:, None]) * states + s[None, :], inside, 0.0)
    state = tl.zeros((BLOCK_D, BLOCK_S), tl.float32)
    total = tl.zeros((BLOCK_D,), tl.float32)
    for t in range(chunk * CHUNK, min(chunk * CHUNK + CHUNK, steps)):
        row = (image * steps + t).to(tl.int64) * directions + direction
        step = tl.load(step_ptr + row * channels + d, in_d, 0.0).to(tl.float32)
        u = tl.load(u_ptr + row * channels + d, in_d, 0.0).to(tl.float32)
        b = tl.load(b_ptr + row * states + s, in_s, 0.0).to(tl.float32)
        state = tl.exp(step[:, None] * a) * state + (step * u)[:, None] * b[None, :]
        total += step
    row = (image * tl.num_programs(0) + chunk).to(tl.int64) * directions + direction
    tl.store(ends_ptr + (row * channels + d[:, None]) * states + s[None, :], state, inside)
    tl.store(sums_ptr + row * channels + d, total, in_d)


@triton.jit
def scan_carry(
    a_ptr, ends_ptr, sums_ptr,
    chunks, directions, channels, states,
    borders_ptr,
    BACKWARDS: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    """Kernel 2; grid (channel blocks, images * directions).

    What comes into each chunk from those before it; backwards, from those behind it.
    """
    image, direction = tl.program_id(1) // directions, tl.program_id(1) % directions
    d = tl.program_id(0) * BLOCK_D + tl.arange(0, BLOCK_D)
    s = tl.arange(0, BLOCK_S)
    in_d = d < channels
    inside = in_d[:, None] & (s < states)[None, :]
    a = tl.load(a_ptr + (direction * channels + d[:, None]) * states + s[None, :], inside, 0.0)
    state = tl.zeros((BLOCK_D, BLOCK_S), tl.float32)
    for index in range(chunks):
        chunk = chunks - 1 - index if BACKWARDS else index
        row = (image * chunks + chunk).to(tl.int64) * directions + direction
        tile = (row * channels + d[:, None]) * states + s[None, :]
        tl.store(borders_ptr + tile, state, inside)
        total = tl.load(sums_ptr + row * channels + d, in_d, 0.0)
        state = tl.exp(total[:, None] * a) * state + tl.load(ends_ptr + tile, inside, 0.0)


@triton.jit
def scan_emit(
    u_ptr, step_ptr, a_ptr, b_ptr, c_ptr, d_ptr, borders_ptr,
    steps, directions, channels, states,
    y_ptr,
    CHUNK: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    """Kernel 3; grid (chunks, channel blocks, images * directions)."""
    chunk = tl.program_id(0)
    image, direction = tl.program_id(2) // directions, tl.program_id(2) % directions
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    s = tl.arange(0, BLOCK_S)
    in_d, in_s = d < channels, s < states
    inside = in_d[:, None] & in_s[None, :]
    a = tl.load(a_ptr + (direction * channels + d[:, None]) * states + s[None, :], inside, 0.0)
    skip = tl.load(d_ptr + direction * channels + d, in_d, 0.0).to(tl.float32)
    row = (image * tl.num_programs(0) + chunk).to(tl.int64) * directions + direction
    border = borders_ptr + (row * channels + d[:, None]) * states + s[None, :]
    state = tl.load(border, inside, 0.0)
    for t in range(chunk * CHUNK, min(chunk * CHUNK + CHUNK, steps)):
        row = (image * steps + t).to(tl.int64) * directions + direction
        step = tl.load(step_ptr + row * channels + d, in_d, 0.0).to(tl.float32)
        u = tl.load(u_ptr + row * channels + d, in_d, 0.0).to(tl.float32)
        b = tl.load(b_ptr + row * states + s, in_s, 0.0).to(tl.float32)
        c = tl.load(c_ptr + row * states + s, in_s, 0.0).to(tl.float32)
        state = tl.exp(step[:, None] * a) * state + (step * u)[:, None] * b[None, :]
        y = tl.sum(state * c[None, :], 1) + skip * u
        tl.store(y_ptr + row * channels + d, y.to(y_ptr.dtype.element_ty), in_d)


@triton.jit
def scan_adjoints(
    step_ptr, a_ptr, c_ptr, grad_ptr,
    steps, directions, channels, states,
    ends_ptr,
    CHUNK: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    """As kernel 1, for the adjoint: what each chunk hands to the one before it."""
    chunk = tl.program_id(0)
    image, direction = tl.program_id(2) // directions, tl.program_id(2) % directions
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    s = tl.arange(0, BLOCK_S)
    in_d, in_s = d < channels, s < states
    inside = in_d[:, None] & in_s[None, :]
    a = tl.load(a_ptr + (direction * channels + d[:, None]) * states + s[None, :], inside, 0.0)
    carried = tl.zeros((BLOCK_D, BLOCK_S), tl.float32)
    first, last = chunk * CHUNK, min(chunk * CHUNK + CHUNK, steps)
    for index in range(last - first):
        row = (image * steps + last - 1 - index).to(tl.int64) * directions + direction
        step = tl.load(step_ptr + row * channels + d, in_d, 0.0).to(tl.float32)
        grad = tl.load(grad_ptr + row * channels + d, in_d, 0.0).to(tl.float32)
        c = tl.load(c_ptr + row * states + s, in_s, 0.0).to(tl.float32)
        carried = tl.exp(step[:, None] * a) * (grad[:, None] * c[None, :] + carried)
    row = (image * tl.num_programs(0) + chunk).to(tl.int64) * directions + direction
    tl.store(ends_ptr + (row * channels + d[:, None]) * states + s[None, :], carried, inside)


@triton.jit
def scan_gradients(
    u_ptr, step_ptr, a_ptr, b_ptr, c_ptr, grad_ptr, borders_ptr, carried_ptr,
    steps, chunks, first_chunk, directions, channels, states,
    scratch_ptr, grad_u_ptr, grad_step_ptr, grad_a_ptr, grad_b_ptr, grad_c_ptr,
    CHUNK: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    """As kernel 3, for the gradients; grid (some chunks, channel blocks, images * directions).

    Forwards, the states of the chunk are written to the scratch; backwards, they are read again.
    """
    local, image = tl.program_id(0), tl.program_id(2) // directions
    chunk, direction = first_chunk + local, tl.program_id(2) % directions
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    s = tl.arange(0, BLOCK_S)
    in_d, in_s = d < channels, s < states
    inside = in_d[:, None] & in_s[None, :]
    tile = d[:, None] * states + s[None, :]
    a_tile = direction * channels * states + tile
    a = tl.load(a_ptr + a_tile, inside, 0.0)
    row = (image * chunks + chunk).to(tl.int64) * directions + direction
    state = tl.load(borders_ptr + row * channels * states + tile, inside, 0.0)
    carried = tl.load(carried_ptr + row * channels * states + tile, inside, 0.0)
    slot = (image * tl.num_programs(0) + local).to(tl.int64) * directions + direction
    kept = scratch_ptr + slot * CHUNK * channels * states + tile
    first, last = chunk * CHUNK, min(chunk * CHUNK + CHUNK, steps)
    for t in range(first, last):
        tl.store(kept + (t - first) * channels * states, state, inside)  # before the step
        row = (image * steps + t).to(tl.int64) * directions + direction
        step = tl.load(step_ptr + row * channels + d, in_d, 0.0).to(tl.float32)
        u = tl.load(u_ptr + row * channels + d, in_d, 0.0).to(tl.float32)
        b = tl.load(b_ptr + row * states + s, in_s, 0.0).to(tl.float32)
        state = tl.exp(step[:, None] * a) * state + (step * u)[:, None] * b[None, :]
    tl.debug_barrier()
    grad_a = tl.zeros((BLOCK_D, BLOCK_S), tl.float32)
    for index in range(last - first):
        t = last - 1 - index
        row = (image * steps + t).to(tl.int64) * directions + direction
        step = tl.load(step_ptr + row * channels + d, in_d, 0.0).to(tl.float32)
        u = tl.load(u_ptr + row * channels + d, in_d, 0.0).to(tl.float32)
        grad = tl.load(grad_ptr + row * channels + d, in_d, 0.0).to(tl.float32)
        b = tl.load(b_ptr + row * states + s, in_s, 0.0).to(tl.float32)
        c = tl.load(c_ptr + row * states + s, in_s, 0.0).to(tl.float32)
        before = tl.load(kept + (t - first) * channels * states, inside, 0.0)
        decay = tl.exp(step[:, None] * a)
        signal = step * u
        after = decay * before + signal[:, None] * b[None, :]
        # Adjoint of the state: lambda[t] = C g + decay[t+1] lambda[t+1].
        adjoint = grad[:, None] * c[None, :] + carried
        carried = decay * adjoint
        through_decay = carried * before  # d loss / d (step * A)
        along_b = tl.sum(adjoint * b[None, :], 1)
        grad_step = along_b * u + tl.sum(through_decay * a, 1)
        grad_a += through_decay * step[:, None]
        tl.store(grad_u_ptr + row * channels + d, along_b * step, in_d)
        tl.store(grad_step_ptr + row * channels + d, grad_step, in_d)
        tl.atomic_add(grad_b_ptr + row * states + s, tl.sum(adjoint * signal[:, None], 0), in_s)
        tl.atomic_add(grad_c_ptr + row * states + s, tl.sum(after * grad[:, None], 0), in_s)
    tl.atomic_add(grad_a_ptr + a_tile, grad_a, inside)
