"""What the benchmarks of the node share: a domain of their own, processes, files, figures."""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "ros"))

from artifacts import write_artifact, write_rig  # noqa: E402

__all__ = ["isolate", "node_files", "percentiles", "running", "save", "write_artifact"]


def isolate() -> None:
    """Use a ROS domain nobody else uses, and the DDS profile; before the first node."""
    find = runpy.run_path(str(ROOT / "scripts" / "free_ros_domain.py"))["free_domain"]
    os.environ.setdefault("ROS_DOMAIN_ID", str(find()))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    from mmfusion_ros.dds_profile import apply_dds_profile  # noqa: PLC0415

    apply_dds_profile()


def node_files(folder: Path, size: tuple[int, int]) -> list[str]:
    """Write artifact and rig; return the node's arguments for them, with autostart."""
    artifact = write_artifact(folder / "bench", rgb=size, depth=size, thermal=size)
    rig = write_rig(folder / "rig.yaml", size)
    values = {"artifact": artifact, "rig": rig, "autostart": "true", "backend": "pass_through"}
    pairs = [part for name, value in values.items() for part in ("-p", f"{name}:={value}")]
    return ["--ros-args", *pairs]


@contextlib.contextmanager
def running(*arguments: str | Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a Python program until the block ends."""
    command = [sys.executable, *map(str, arguments)]
    with subprocess.Popen(command, text=True, **options) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            finally:
                process.kill()


def percentiles(milliseconds: Sequence[float]) -> dict[str, float]:
    """Median, p99 and number."""
    return {
        "p50_ms": round(float(np.percentile(milliseconds, 50)), 3),
        "p99_ms": round(float(np.percentile(milliseconds, 99)), 3),
        "count": len(milliseconds),
    }


def save(name: str, figures: dict[str, Any]) -> None:
    """Write the figures where the report looks for them."""
    path = ROOT / "benchmarks" / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"written to {path.relative_to(ROOT)}")
