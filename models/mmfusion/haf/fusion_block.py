"""The fusion block: a query moves in a force field spanned by both streams' keys."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmfusion.haf.config import HAFConfig
from mmfusion.layers.spectral import MatrixCorrelation, SpectralCorrelation


class FusionBlock(nn.Module):
    """Fuse the auxiliary and the primary stream's map of one level.

    The query q comes from the auxiliary stream. It is drawn towards its correlation with the
    primary keys and pushed off its correlation with the auxiliary ones, with force::

        f = (corr(q0, K_primary) - q) + repulsion * (q - corr(q0, K_auxiliary))

    Both correlations start from the first query, and corr is linear in the keys, so one
    correlation with ``K_primary - repulsion * K_auxiliary`` gives their sum.

    Attributes:
        correlation: by FFT with a learned response, or its matrix form.
    """

    correlation: SpectralCorrelation | MatrixCorrelation

    def __init__(self, channels: int, size: tuple[int, int], config: HAFConfig) -> None:
        """Build it.

        Args:
            channels: of either map.
            size: (h, w) of the map at the configured input size.
            config: of the network.
        """
        super().__init__()
        self.steps, self.repulsion = config.steps, config.repulsion
        self.query = nn.Conv2d(channels, channels, 1, bias=False)
        self.auxiliary_key = nn.Conv2d(channels, channels, 1, bias=False)
        self.primary_key = nn.Conv2d(channels, channels, 1, bias=False)
        self.correlation = SpectralCorrelation(size)
        self.auxiliary_share = nn.Parameter(torch.tensor(0.8))
        self.primary_share = nn.Parameter(torch.tensor(0.2))
        head = config.head_channels
        # A single step starts with no momentum for the gate to see.
        seen = head if config.steps == 1 else 2 * head
        self.gate = nn.Sequential(nn.Conv2d(seen, head, 1), nn.GELU(), nn.Conv2d(head, head, 1))
        self.head_channels = head
        self.project = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, auxiliary: Tensor, primary: Tensor) -> Tensor:
        """Two maps (N, C, h, w) to one."""
        query = self.query(auxiliary)
        key = self.primary_key(primary) - self.repulsion * self.auxiliary_key(auxiliary)
        moved = self._move(query, self.correlation(query, key))
        both = (auxiliary + self.auxiliary_share * moved, primary + self.primary_share * moved)
        fused: Tensor = self.project(torch.cat(both, dim=1))
        return fused

    def _move(self, query: Tensor, attraction: Tensor) -> Tensor:
        momentum = None
        for _ in range(self.steps):
            force = attraction - (1 - self.repulsion) * query
            gate = self._gate(query, momentum)
            momentum = gate * force if momentum is None else momentum + gate * (force - momentum)
            query = query + momentum
        return query

    def _gate(self, query: Tensor, momentum: Tensor | None) -> Tensor:
        """Share of the force that becomes momentum, (N, C, h, w); one rule for all heads."""
        heads = query.unflatten(1, (-1, self.head_channels)).flatten(0, 1)
        if self.steps > 1:
            still = torch.zeros_like(query) if momentum is None else momentum
            still = still.unflatten(1, (-1, self.head_channels)).flatten(0, 1)
            heads = torch.cat((heads, still), dim=1)
        return torch.sigmoid(self.gate(heads)).reshape(query.shape)
