"""The two kinds of state-space block of S4Fusion, and what changes resolution between them.

Maps are channels-last, (N, h, w, C).
"""

from __future__ import annotations

import contextlib
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmfusion.layers.cross_scan import (
    DIRECTIONS,
    deinterleave,
    from_sequences,
    interleave,
    to_sequences,
)
from mmfusion.layers.selective_scan import selective_scan

_EXPANSION = 1.5  # inner channels per model channel
_TOKENS_PER_RANK = 16  # model channels per rank of the step-size projection


class ScanInputs(NamedTuple):
    """Data-dependent inputs of a selective scan, see `selective_scan` for shapes."""

    u: Tensor
    step: Tensor
    b: Tensor
    c: Tensor


def _without_autocast(device: str) -> contextlib.AbstractContextManager[object]:
    # Entered only where needed: the ONNX exporter does not trace autocast regions.
    if torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return contextlib.nullcontext()


class StateSpace(nn.Module):
    """What a scan over a map needs and both kinds of block share.

    Input projection with gate, depth-wise convolution, per-direction step lift, decay and skip,
    output norm and projection. `projections` says how many modalities have their own map from
    features to (step, B, C).
    """

    def __init__(self, channels: int, states: int, projections: int) -> None:
        super().__init__()
        self.states = states
        self.inner = int(_EXPANSION * channels)
        self.rank = math.ceil(channels / _TOKENS_PER_RANK)
        self.in_proj = nn.Linear(channels, 2 * self.inner, bias=False)
        self.conv = nn.Conv2d(self.inner, self.inner, 3, padding=1, groups=self.inner)
        rows = self.rank + 2 * states
        self.projections = nn.ParameterList(
            torch.empty(DIRECTIONS, rows, self.inner) for _ in range(projections)
        )
        self.step_weight = nn.Parameter(torch.empty(DIRECTIONS, self.inner, self.rank))
        self.step_bias = nn.Parameter(torch.empty(DIRECTIONS, self.inner))
        self.log_a = nn.Parameter(torch.empty(DIRECTIONS, self.inner, states))
        self.skip = nn.Parameter(torch.ones(DIRECTIONS, self.inner))
        self.out_norm = nn.LayerNorm(self.inner)
        self.out_proj = nn.Linear(self.inner, channels, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as published: decays 1..S, steps log-uniform in [1e-3, 1e-1]."""
        for linear in (self.in_proj, self.out_proj):
            nn.init.trunc_normal_(linear.weight, std=0.02)
        for projection in self.projections:
            nn.init.uniform_(projection, -(self.inner**-0.5), self.inner**-0.5)
        nn.init.uniform_(self.step_weight, -(self.rank**-0.5), self.rank**-0.5)
        with torch.no_grad():
            low, high = math.log(1e-3), math.log(1e-1)
            step = torch.empty_like(self.step_bias).uniform_(low, high).exp().clamp(min=1e-4)
            self.step_bias.copy_(step + torch.log(-torch.expm1(-step)))  # inverse of softplus
            self.log_a.copy_(torch.arange(1, self.states + 1).log().expand_as(self.log_a))

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Signal map and gate, both (N, h, w, inner), of a map (N, h, w, channels)."""
        u, gate = self.in_proj(x).chunk(2, dim=-1)
        u = self.conv(u.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return functional.silu(u), gate

    def scan_inputs(self, features: Tensor, signal: Tensor, modality: int = 0) -> ScanInputs:
        """Sequences in four directions; step, B and C come from ``features``, u from ``signal``.

        In at least float32, also under autocast: the scan multiplies thousands of decays.
        """
        if features.dtype in {torch.float16, torch.bfloat16}:
            features, signal = features.float(), signal.float()
        with _without_autocast(features.device.type):
            weight = self.projections[modality].flatten(0, 1)
            rows = functional.linear(features, weight).unflatten(-1, (DIRECTIONS, -1))
            low_rank, b, c = to_sequences(rows).split([self.rank, self.states, self.states], dim=-1)
            step = torch.einsum("ntkr,kdr->ntkd", low_rank, self.step_weight)
            step = functional.softplus(step + self.step_bias)
        return ScanInputs(to_sequences(signal), step, b, c)

    def decay(self) -> Tensor:
        """A, (4, inner, states)."""
        return -torch.exp(self.log_a)

    def output(self, sequences: Tensor, gate: Tensor) -> Tensor:
        """Merge the four directions, normalise, gate and project: (N, h, w, channels)."""
        merged = from_sequences(sequences, gate.shape[1], gate.shape[2])
        out: Tensor = self.out_proj(self.out_norm(merged) * functional.silu(gate))
        return out


class VSSBlock(nn.Module):
    """Visual state-space block: ``x + SS2D(LayerNorm(x))``."""

    def __init__(self, channels: int, states: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.ss2d = StateSpace(channels, states, projections=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, h, w, C) to the same shape."""
        return run_together((self,), (x,))[0]


def run_together(blocks: tuple[VSSBlock, ...], maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Run blocks of equal shape, each on its own map, in one scan.

    The two encoders have equal shapes and separate weights, so their four directions each stack
    to eight: the scan's sequential depth, which bounds its speed, is paid once.
    """
    inputs, gates = [], []
    for block, x in zip(blocks, maps, strict=True):
        u, gate = block.ss2d.features(block.norm(x))
        inputs.append(block.ss2d.scan_inputs(u, u))
        gates.append(gate)
    joined = ScanInputs(*(torch.cat(parts, dim=2) for parts in zip(*inputs, strict=True)))
    decay = torch.cat([block.ss2d.decay() for block in blocks])
    skip = torch.cat([block.ss2d.skip for block in blocks])
    y = selective_scan(joined.u, joined.step, decay, joined.b, joined.c, skip)
    outputs = zip(blocks, maps, y.split(DIRECTIONS, dim=2), gates, strict=True)
    return tuple(x + block.ss2d.output(own, gate) for block, x, own, gate in outputs)


class CrossModalBlock(nn.Module):
    """Cross-modal block (CMSA): one scan over both modalities, infrared before visible.

    Only the way from features to (step, B, C) is private to a modality. The patch mark tells
    each pixel's signal of the other modality; the projections see unmarked features.
    """

    def __init__(self, channels: int, states: int) -> None:
        super().__init__()
        self.space = StateSpace(channels, states, projections=2)
        inner = self.space.inner
        self.mark = nn.Parameter(torch.empty(inner, 2 * inner))
        nn.init.uniform_(self.mark, -((2 * inner) ** -0.5), (2 * inner) ** -0.5)

    def forward(self, infrared: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        """Two maps (N, h, w, C) to what each gains, same shapes."""
        u_ir, gate_ir = self.space.features(infrared)
        u_vi, gate_vi = self.space.features(visible)
        mark = functional.linear(torch.cat((u_ir, u_vi), dim=-1), self.mark)
        inputs_ir = self.space.scan_inputs(u_ir, u_ir + mark, 0)
        inputs_vi = self.space.scan_inputs(u_vi, u_vi + mark, 1)
        both = ScanInputs(*map(interleave, inputs_ir, inputs_vi))
        y = selective_scan(both.u, both.step, self.space.decay(), both.b, both.c, self.space.skip)
        y_ir, y_vi = deinterleave(y)
        return self.space.output(y_ir, gate_ir), self.space.output(y_vi, gate_vi)


class FusionLayer(nn.Module):
    """A few cross-modal blocks with residuals, then the sum of both modalities."""

    def __init__(self, channels: int, states: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(CrossModalBlock(channels, states) for _ in range(blocks))

    def forward(self, infrared: Tensor, visible: Tensor) -> Tensor:
        """Two maps (N, h, w, C) to one."""
        for block in self.blocks:
            gain_ir, gain_vi = block(infrared, visible)
            infrared, visible = infrared + gain_ir, visible + gain_vi
        return infrared + visible


class PatchEmbed(nn.Module):
    """Overlapping patches: 4x4 at stride 3, (N, 1, H, W) to (N, h, w, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, channels, kernel_size=4, stride=3)
        self.norm = nn.LayerNorm(channels)

    def forward(self, image: Tensor) -> Tensor:
        """Embed one image per row of the batch."""
        tokens: Tensor = self.norm(self.proj(image).permute(0, 2, 3, 1))
        return tokens


class PatchMerge(nn.Module):
    """Halve the resolution: (N, h, w, C) to (N, h/2, w/2, 2C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)
        nn.init.trunc_normal_(self.reduction.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Concatenate the four sub-grids, normalise, reduce."""
        grids = [x[:, row::2, column::2] for row, column in ((0, 0), (1, 0), (0, 1), (1, 1))]
        merged: Tensor = self.reduction(self.norm(torch.cat(grids, dim=-1)))
        return merged


class PatchExpand(nn.Module):
    """Double the resolution: (N, h, w, 2C) to (N, 2h, 2w, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * channels, 4 * channels, bias=False)
        self.norm = nn.LayerNorm(channels)
        nn.init.trunc_normal_(self.linear.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Spread each token's channels over a 2x2 patch."""
        patches = self.linear(x).unflatten(-1, (2, 2, -1))
        expanded: Tensor = self.norm(patches.permute(0, 1, 3, 2, 4, 5).flatten(3, 4).flatten(1, 2))
        return expanded
