"""Peak memory of a piece of work, in a process of its own."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


def peak_megabytes(script: str, *case: str) -> float:
    """Run ``script --peak CASE`` in a fresh process, which prints what `growth` gives."""
    command = [sys.executable, script, "--peak", *case]
    # Every tensor by its own mapping, given back when freed: what is resident is what is held.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TOP_PAD_": "0"}
    run = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return float(run.stdout)


def growth(work: Callable[[], object]) -> float:
    """By how many MB the peak of this process exceeds its resident size while work is done."""
    ctypes.CDLL(None).malloc_trim(0)  # what set-up has freed is not there to be used again
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    work()
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
    return max(0.0, (peak - resident) / 1e6)
