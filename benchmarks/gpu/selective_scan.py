"""The selective scan on a GPU: fused kernels against plain PyTorch, beside what memory allows.

    python benchmarks/gpu/selective_scan.py [--rounds 100]

Forwards, and forwards with backwards. The baseline is the chunked scan of operators that runs where
Triton is missing; ``step by step`` is the plain recurrence in eager PyTorch, forwards only and a
few rounds, as it launches several kernels a step. The floor is signals read and results written
once, gradients too, over the bandwidth of a copy measured in the same run. Before timing, values
and gradients of the kernels are compared with the baseline's. Writes
``results/selective_scan.json`` beside this file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from _device import Spread, ceilings, interleaved, name_of, require_cuda
from torch import Tensor

from mmfusion.layers.selective_scan import (
    _SelectiveScan,
    selective_scan,
    selective_scan_reference,
)

RESULT = Path(__file__).resolve().parent / "results" / "selective_scan.json"
BASELINE = "chunks of operators fp32"
# (steps, directions, channels, states), at 480x640.
CASES = {
    "published S4Fusion's widest": (68160, 4, 96, 16),
    "s4fusion level 0, encoder": (34560, 8, 72, 12),
    "s4fusion_tiny level 0, as bundled": (2240, 8, 36, 4),
}
SLOW_ROUNDS = 3
TOLERANCES = {torch.float32: 1e-4, torch.float16: 1e-2}  # of the largest value

Scan = Callable[..., Tensor]


def draw(shape: Sequence[int], device: torch.device) -> list[Tensor]:
    """Inputs with the spread of a trained network's, see benchmarks/selective_scan.py."""
    steps, directions, channels, states = shape
    random = torch.Generator(device).manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=random, device=device)

    order = torch.arange(1, states + 1, device=device).log()
    return [
        normal(1, steps, directions, channels),
        (0.5 * normal(1, steps, directions, channels) - 4).exp(),
        -(order + 0.1 * normal(directions, channels, states)).exp(),
        normal(1, steps, directions, states),
        normal(1, steps, directions, states),
        normal(directions, channels),
    ]


def narrowed(inputs: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Signals in a dtype; decay rates stay float32."""
    return [x if index == 2 else x.to(dtype) for index, x in enumerate(inputs)]


def by_operators(u: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:  # noqa: PLR0917
    """What `selective_scan` does without Triton."""
    y: Tensor = _SelectiveScan.apply(u, step, a, b, c)
    return y + d * u


def forwards(scan: Scan, inputs: Sequence[Tensor]) -> Callable[[], Tensor]:
    def run() -> Tensor:
        with torch.no_grad():
            return scan(*inputs)

    return run


def backwards(scan: Scan, inputs: Sequence[Tensor]) -> Callable[[], tuple[Tensor, ...]]:
    leaves = [x.clone().requires_grad_() for x in inputs]
    grad = torch.ones_like(inputs[0])

    def run() -> tuple[Tensor, ...]:
        return torch.autograd.grad(scan(*leaves), leaves, grad)

    return run


def check(ours: Sequence[Tensor], theirs: Sequence[Tensor], tolerance: float) -> float:
    """Largest difference of any result, by its largest value; ends the program if it is large."""
    worst = max(
        float((one.double() - other.double()).abs().max() / other.double().abs().max())
        for one, other in zip(ours, theirs, strict=True)
    )
    if not worst <= tolerance:  # NaN, too
        raise SystemExit(f"the kernels are wrong: off by {worst:.1e}, expected {tolerance:.0e}")
    return worst


def moved(inputs: Sequence[Tensor], *, gradients: bool) -> int:
    """Bytes: inputs and output once; with gradients, all again, and theirs."""
    once = sum(x.nbytes for x in inputs) + inputs[0].nbytes
    return once + (2 * once - inputs[0].nbytes if gradients else 0)


def measure(
    shape: Sequence[int], device: torch.device, bandwidth: float, rounds: int
) -> dict[str, Any]:
    """All ways of a case."""
    inputs = draw(shape, device)
    given = {dtype: narrowed(inputs, dtype) for dtype in (torch.float32, torch.float16)}
    errors = {}
    for dtype, values in given.items() if device.type == "cuda" else ():
        single = [x.float() for x in values]
        tolerance = TOLERANCES[dtype]
        ours = forwards(selective_scan, values)(), *backwards(selective_scan, values)()
        theirs = forwards(by_operators, single)(), *backwards(by_operators, single)()
        errors[str(dtype)] = check(ours, theirs, tolerance)
    record: dict[str, Any] = {"shape": list(shape), "errors": errors}
    for direction, make in {"forwards": forwards, "with backwards": backwards}.items():
        ways: dict[str, Callable[[], object]] = {BASELINE: make(by_operators, inputs)}
        if device.type == "cuda":
            ways["fused kernels fp32"] = make(selective_scan, given[torch.float32])
            ways["fused kernels fp16"] = make(selective_scan, given[torch.float16])
        times: dict[str, Spread] = interleaved(ways, device, rounds)
        if direction == "forwards":
            slow = {"step by step fp32": forwards(selective_scan_reference, inputs)}
            times |= interleaved(slow, device, min(rounds, SLOW_ROUNDS))
        record[direction] = {}
        for name, spread in times.items():
            dtype = torch.float16 if name.endswith("fp16") else torch.float32
            floor = 1e3 * moved(given[dtype], gradients=direction != "forwards") / bandwidth
            record[direction][name] = {
                "p50_ms": spread.p50,
                "p99_ms": spread.p99,
                "floor_ms": floor,
                "of_floor": spread.p50 / floor,
                "speed_up": times[BASELINE].p50 / spread.p50,
            }
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--cpu", action="store_true", help="try the benchmark itself; no result")
    options = parser.parse_args()
    device = torch.device("cpu") if options.cpu else require_cuda()
    bandwidth = ceilings(device, [], scale=64 if options.cpu else 1).bytes_per_s
    cases = {}
    for case, (steps, *rest) in CASES.items():
        shape = (steps // 256 if options.cpu else steps, *rest)
        cases[case] = record = measure(shape, device, bandwidth, options.rounds)
        print(f"{case}: T, K, D, S = {shape}")
        for direction in ("forwards", "with backwards"):
            print(f"  {direction}")
            for name, row in record[direction].items():
                print(
                    f"    {name:26} p50 {row['p50_ms']:9.3f} ms  p99 {row['p99_ms']:9.3f} ms  "
                    f"{row['speed_up']:7.2f} x {BASELINE}  {row['of_floor']:8.1f} x floor"
                )
    if not options.cpu:
        RESULT.parent.mkdir(exist_ok=True)
        record = {
            "device": name_of(device),
            "torch": torch.__version__,
            "copy_gb_per_s": bandwidth / 1e9,
            "rounds": options.rounds,
            "cases": cases,
        }
        RESULT.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
