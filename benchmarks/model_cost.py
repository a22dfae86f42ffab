"""What each network costs: parameters, multiply-adds, memory and CPU time.

    python benchmarks/model_cost.py [FAMILY ...]

Every preset as it is deployed, in PyTorch on two threads, against the published system as it was
published (`_published.py`), which is the named baseline of its family; the full-size preset is
checked to give the same result. Times are the least wall time of a few interleaved rounds; memory
is the growth of a fresh process's peak while it runs once; multiply-adds are those of
convolutions and matrix products (scans and Fourier transforms are not counted). Writes
``results/model_cost.json`` and the table of ``docs/model_cost.md``.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from _peak_memory import growth, peak_megabytes
from _published import PublishedEfficientMFD, PublishedHAF, PublishedS4Fusion
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmfusion import create_model, list_models
from mmfusion.efficientmfd.deploy import EfficientMFDDeploy
from mmfusion.graph.luma_fusion import LumaFusion
from mmfusion.haf.deploy import HAFDeploy
from mmfusion.registry import Role

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "model_cost.json"
TABLE = HERE.parent / "docs" / "model_cost.md"
THREADS = 2
ROUNDS = 2
BASELINE = "as published"


class Family(NamedTuple):
    """A published system: its presets, the size they are compared at, and how they are run."""

    role: Role
    published: str
    size: tuple[int, int]
    channels: tuple[int, int]
    deployed: Callable[[Any, tuple[int, int]], nn.Module]
    as_published: Callable[[Any], nn.Module]


FAMILIES = {
    "S4Fusion": Family(
        Role.FUSION,
        "s4fusion",
        (121, 169),
        (1, 1),
        lambda net, _: LumaFusion(net),
        PublishedS4Fusion,
    ),
    "HAF": Family(Role.SALIENCY, "haf_swin_base", (384, 384), (3, 1), HAFDeploy, PublishedHAF),
    "EfficientMFD": Family(
        Role.DETECTION,
        "efficientmfd_r50",
        (480, 640),
        (3, 1),
        lambda net, size: EfficientMFDDeploy(net, *size),
        PublishedEfficientMFD,
    ),
}


def build(family: Family, name: str) -> nn.Module:
    """A network ready to run; ``BASELINE`` for the published one."""
    torch.manual_seed(0)
    network = create_model(family.published if name == BASELINE else name).eval()
    if name == BASELINE:
        return family.as_published(network).eval()
    return family.deployed(network, family.size).eval()


def inputs(family: Family) -> tuple[Tensor, ...]:
    """Images of noise."""
    generator = torch.Generator().manual_seed(0)
    scale = 255.0 if family.role is Role.DETECTION else 1.0
    return tuple(
        scale * torch.rand(1, channels, *family.size, generator=generator)
        for channels in family.channels
    )


def first_output(output: Any) -> Tensor:
    """The output that is compared: the fused picture, its weights, or the finest logit."""
    return cast("Tensor", output if isinstance(output, Tensor) else output[0])


def measure(name: str, family: Family) -> dict[str, dict[str, float]]:
    """All presets of a family beside the baseline."""
    names = [BASELINE, *list_models(family.role)]
    runs = {preset: build(family, preset) for preset in names}
    images = inputs(family)
    seconds = dict.fromkeys(names, float("inf"))
    outputs = {}
    for _ in range(ROUNDS):
        for preset, run in runs.items():
            print(f"{name}: {preset} ...", flush=True, file=sys.stderr)
            start = time.perf_counter()
            outputs[preset] = first_output(run(*images))
            seconds[preset] = min(seconds[preset], time.perf_counter() - start)
    expected = outputs[BASELINE]
    error = (outputs[family.published] - expected).abs().max() / expected.abs().max()
    assert error < 1e-3, f"{family.published} is not the published network: {error}"
    rows = {}
    for preset, run in runs.items():
        with FlopCounterMode(display=False) as counter:
            run(*images)
        # Of the network itself: a deployed one has constants in place of some parameters.
        network = create_model(family.published if preset == BASELINE else preset)
        held = run if preset == BASELINE else network
        rows[preset] = {
            "parameters_m": sum(p.numel() for p in held.parameters()) / 1e6,
            "gmac": counter.get_total_flops() / 2e9,
            "gmac_ratio": 0.0,
            "peak_mb": peak_megabytes(__file__, name, preset),
            "seconds": seconds[preset],
            "time_ratio": seconds[preset] / seconds[BASELINE],
        }
    for row in rows.values():
        row["gmac_ratio"] = row["gmac"] / rows[BASELINE]["gmac"]
    return rows


def markdown(record: dict[str, dict[str, dict[str, float]]]) -> str:
    """The table."""
    lines = []
    for name, rows in record.items():
        height, width = FAMILIES[name].size
        lines += [
            f"## {name}, {width}x{height}\n",
            "| network | parameters, M | GMAC | ratio | peak memory, MB | CPU time, s | ratio |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        lines += [
            f"| {preset} | {row['parameters_m']:.2f} | {row['gmac']:.2f} | {row['gmac_ratio']:.3f} "
            f"| {row['peak_mb']:.0f} | {row['seconds']:.2f} | {row['time_ratio']:.3f} |"
            for preset, row in rows.items()
        ]
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Measure and write."""
    chosen = sys.argv[1:] or list(FAMILIES)
    record = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    with torch.inference_mode():
        for name in chosen:
            record[name] = measure(name, FAMILIES[name])
    record = {name: record[name] for name in FAMILIES if name in record}
    RESULT.write_text(json.dumps(record, indent=2) + "\n")
    head, *_ = TABLE.read_text().partition("<!-- table -->")
    TABLE.write_text(f"{head}<!-- table -->\n\n{markdown(record)}")
    print(markdown(record))


if __name__ == "__main__":
    torch.set_num_threads(THREADS)
    if sys.argv[1:2] == ["--peak"]:
        chosen_family = FAMILIES[sys.argv[2]]
        network = build(chosen_family, sys.argv[3])
        images = inputs(chosen_family)
        with torch.inference_mode():
            print(growth(lambda: network(*images)))
    else:
        main()
