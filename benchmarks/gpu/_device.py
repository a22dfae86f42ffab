"""What the GPU benchmarks share: the device, its ceilings, and times with their spread."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

_COPY_ELEMENTS = 1 << 28  # 1 GiB in float32, far beyond any cache
_MATRIX = 8192


class Ceilings(NamedTuple):
    """What the device reaches at best, measured.

    Attributes:
        bytes_per_s: of a copy on the device, read and written.
        flops: by dtype, of a large matrix product, multiply and add counted apiece.
    """

    bytes_per_s: float
    flops: dict[torch.dtype, float]

    def floor_s(self, moved: float, computed: float, dtype: torch.dtype) -> float:
        """Least time for so many bytes and so many operations."""
        return max(moved / self.bytes_per_s, computed / self.flops[dtype])


class Spread(NamedTuple):
    """Milliseconds of repeated runs."""

    p50: float
    p99: float


def require_cuda() -> torch.device:
    """The GPU; ends the program with one line where there is none."""
    if not torch.cuda.is_available():
        sys.exit("needs an NVIDIA GPU that PyTorch can use (torch.cuda.is_available() is false)")
    return torch.device("cuda")


def name_of(device: torch.device) -> str:
    """For the record."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def synchronise(device: torch.device) -> None:
    """Wait for what was launched."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def milliseconds(run: Callable[[], object], device: torch.device) -> float:
    """Wall time of one run, until its result is there."""
    synchronise(device)
    start = time.perf_counter()
    run()
    synchronise(device)
    return 1e3 * (time.perf_counter() - start)


def interleaved(
    runs: dict[str, Callable[[], object]], device: torch.device, rounds: int
) -> dict[str, Spread]:
    """Times of several ways to do a thing, in turns, after one warm-up each."""
    for run in runs.values():
        milliseconds(run, device)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(milliseconds(run, device))
    return {name: _spread(values) for name, values in times.items()}


def ceilings(device: torch.device, dtypes: list[torch.dtype], *, scale: int = 1) -> Ceilings:
    """Measure what the device reaches.

    Args:
        device: to measure.
        dtypes: of matrix products.
        scale: make copies and matrices so many times smaller, for tests.
    """
    source = torch.empty(_COPY_ELEMENTS // scale, device=device)
    target = torch.empty_like(source)
    copy = min(milliseconds(lambda: target.copy_(source), device) for _ in range(10))
    flops = {}
    side = _MATRIX // scale
    for dtype in dtypes:
        matrix = torch.ones(side, side, device=device, dtype=dtype)
        product = min(milliseconds(lambda m=matrix: m @ m, device) for _ in range(10))
        flops[dtype] = 2 * side**3 / (product / 1e3)
    return Ceilings(2 * source.nbytes / (copy / 1e3), flops)


def _spread(values: list[float]) -> Spread:
    ordered = sorted(values)
    return Spread(
        statistics.median(ordered), ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
    )
