"""Networks in PyTorch on a GPU: eager, compiled, and as published, beside what memory allows.

    python benchmarks/gpu/networks.py [PRESET ...]

Every preset as it is deployed, at the size that benchmarks/model_cost.py compares it at. The
baseline is eager float16 (autocast). ``published`` is the authors' formulation of the full-size
presets. The floor is the larger of two times: bytes of weights, input and output once, over the
bandwidth of a copy; operations of convolutions and matrix products, over the rate of a large
matrix product; both ceilings measured in the same run. Scans and Fourier transforms are not
counted among the operations. Writes ``results/networks.json`` beside this file.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _device import Ceilings, ceilings, interleaved, milliseconds, name_of, require_cuda
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from model_cost import BASELINE as PUBLISHED
from model_cost import FAMILIES, Family, build, inputs

from mmfusion import list_models

RESULT = Path(__file__).resolve().parent / "results" / "networks.json"
BASELINE = "eager fp16"


def routes(
    family: Family, preset: str, images: tuple[torch.Tensor, ...], *, compiled: bool
) -> dict[str, Callable[[], object]]:
    """Ways to run a preset, by name."""
    device = images[0].device
    network = build(family, preset).to(device)

    def half(module: Callable[..., object]) -> Callable[[], object]:
        def run() -> object:
            with torch.autocast(device.type, torch.float16):
                return module(*images)

        return run

    ways: dict[str, Callable[[], object]] = {
        BASELINE: half(network),
        "eager fp32": lambda: network(*images),
    }
    if compiled:
        ways["torch.compile fp16"] = half(torch.compile(network))
    if preset == family.published:
        published = build(family, PUBLISHED).to(device)
        ways["published fp32"] = lambda: published(*images)
    return ways


def measure(
    family: Family, preset: str, device: torch.device, limits: Ceilings, options: argparse.Namespace
) -> dict[str, Any]:
    """All routes of a preset."""
    images = tuple(image.to(device) for image in inputs(family))
    ways = routes(family, preset, images, compiled=not options.no_compile)
    first = {name: milliseconds(run, device) for name, run in ways.items()}
    times = interleaved(ways, device, options.rounds)
    moved, computed = work(family, preset, images)
    return {
        "size": family.size,
        "floor_ms": 1e3 * limits.floor_s(moved, computed, torch.float16),
        "gflop": computed / 1e9,
        "routes": {
            name: {
                "p50_ms": spread.p50,
                "p99_ms": spread.p99,
                "first_ms": first[name],
                "speed_up": times[BASELINE].p50 / spread.p50,
            }
            for name, spread in times.items()
        },
    }


def work(family: Family, preset: str, images: tuple[torch.Tensor, ...]) -> tuple[float, float]:
    """Bytes in half precision that must be moved once, and operations."""
    network: nn.Module = build(family, preset).to(images[0].device)
    with FlopCounterMode(display=False) as counter:
        output = network(*images)
    tensors = [*network.parameters(), *images, *_tensors(output)]
    return 2.0 * sum(tensor.numel() for tensor in tensors), float(counter.get_total_flops())


def _tensors(output: Any) -> list[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        return [output]
    values = output.values() if isinstance(output, dict) else output
    return [tensor for value in values for tensor in _tensors(value)]


def main() -> None:
    presets = {name: family for family in FAMILIES.values() for name in list_models(family.role)}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("presets", nargs="*", metavar="PRESET", help=f"of: {', '.join(presets)}")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--cpu", action="store_true", help="try the benchmark itself; no result")
    options = parser.parse_args()
    unknown = set(options.presets) - presets.keys()
    if unknown:
        parser.error(f"no preset {min(unknown)!r}; expected some of: {', '.join(presets)}")
    device = torch.device("cpu") if options.cpu else require_cuda()
    with torch.inference_mode():
        limits = ceilings(device, [torch.float16], scale=64 if options.cpu else 1)
        rows = {
            preset: measure(presets[preset], preset, device, limits, options)
            for preset in options.presets or presets
        }
    for preset, row in rows.items():
        print(f"{preset}, {row['size'][1]}x{row['size'][0]}, floor {row['floor_ms']:.3f} ms")
        for name, route in row["routes"].items():
            print(
                f"  {name:20} p50 {route['p50_ms']:9.3f} ms  p99 {route['p99_ms']:9.3f} ms  "
                f"{route['speed_up']:6.2f} x {BASELINE}"
            )
    if not options.cpu:
        RESULT.parent.mkdir(exist_ok=True)
        record = {
            "device": name_of(device),
            "torch": torch.__version__,
            "copy_gb_per_s": limits.bytes_per_s / 1e9,
            "fp16_tflops": limits.flops[torch.float16] / 1e12,
            "rounds": options.rounds,
            "presets": rows,
        }
        RESULT.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
