"""The machine: processors, memory, disk, C library, GPU."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator

from mmfusion_ros.checks.finding import Finding, Level, ok, skipped
from mmfusion_ros.checks.subject import Setup, megabytes
from mmfusion_ros.memory import keep_image_memory

_FEW_CORES = 2
_LITTLE_MEMORY = 512 << 20
_LITTLE_DISK = 2 << 30


def check_machine(setup: Setup) -> Iterator[Finding]:
    """Processors and their load, memory, disk, and how the C library keeps image memory."""
    yield _cpu(setup)
    yield _governor(setup)
    yield _memory(setup)
    yield _disk(setup)
    yield _malloc()


def check_gpu(setup: Setup) -> Iterator[Finding]:
    """What there is of an NVIDIA GPU; none is no fault."""
    nodes = sorted(path.name for path in (setup.root / "dev").glob("nvidia[0-9]*"))
    driver = setup.read("proc/driver/nvidia/version")
    library = _loads("libcuda.so.1")
    tensorrt = importlib.util.find_spec("tensorrt") is not None
    values = {
        "devices": nodes,
        "driver": driver is not None,
        "libcuda": library,
        "tensorrt": tensorrt,
    }
    if not nodes and driver is None:
        yield ok("gpu", "no NVIDIA GPU here: the CPU engine is used", **values)
        return
    there = [
        name
        for name, present in (
            (f"devices {', '.join(nodes)}", bool(nodes)),
            ("driver", driver is not None),
            ("libcuda", library),
            ("tensorrt for Python", tensorrt),
        )
        if present
    ]
    if nodes and driver is not None and library:
        yield ok(
            "gpu", f"{', '.join(there)}; engine.backend tells what runs the artifact", **values
        )
        return
    yield Finding(
        "gpu",
        Level.NOTE,
        f"an NVIDIA GPU is here in part only: {', '.join(there)}; the CPU engine is used",
        "device nodes, driver and libcuda",
        "in a container: docker run --gpus all with the NVIDIA container toolkit",
        values,
    )


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _cpu(setup: Setup) -> Finding:
    usable = len(os.sched_getaffinity(0))
    quota = _cpu_quota(setup)
    cores = usable if quota is None else min(usable, quota)
    load = (setup.read("proc/loadavg") or "").split()
    busy = float(load[0]) if load else None
    limit = "" if quota is None or quota >= usable else f", limited to {quota:.3g} by the container"
    found = f"{usable} cores{limit}"
    if busy is not None:
        found += f", load {busy:g}"
    values = {"cores": usable, "quota": quota, "load_1min": busy}
    if busy is not None and busy > cores:
        return Finding(
            "machine.cpu",
            Level.WARNING,
            f"{found}: more work than cores",
            "idle cores for cameras, engine and node",
            "see what runs (top); figures measured now are pessimistic",
            values,
        )
    if cores < _FEW_CORES:
        return Finding(
            "machine.cpu",
            Level.NOTE,
            found,
            f"{_FEW_CORES} or more: the engine takes half of them",
            "choose a small artifact and low camera rates",
            values,
        )
    return ok("machine.cpu", found, **values)


def _cpu_quota(setup: Setup) -> float | None:
    """Cores that the control group may use; None for no limit."""
    pair = (setup.read("sys/fs/cgroup/cpu.max") or "").split()
    if not pair:  # version 1
        quota = setup.read("sys/fs/cgroup/cpu/cpu.cfs_quota_us")
        period = setup.read("sys/fs/cgroup/cpu/cpu.cfs_period_us")
        pair = [quota, period] if quota and period else []
    try:
        quota_us, period_us = (float(number) for number in pair)
    except ValueError:  # none, or "max"
        return None
    return quota_us / period_us if quota_us > 0 and period_us > 0 else None


def _governor(setup: Setup) -> Finding:
    folder = "sys/devices/system/cpu/cpu0/cpufreq"
    governor = setup.read(f"{folder}/scaling_governor")
    if governor is None:
        return skipped("machine.governor", "the frequency governor cannot be read here")
    driver = setup.read(f"{folder}/scaling_driver") or ""
    # With these drivers "powersave" is the usual one and still reaches full speed.
    if governor == "powersave" and driver not in {"intel_pstate", "amd-pstate-epp"}:
        return Finding(
            "machine.governor",
            Level.WARNING,
            f"cores stay at their lowest frequency: governor {governor} of {driver or 'cpufreq'}",
            "schedutil, ondemand or performance",
            "sudo cpupower frequency-set -g performance (boards: their power mode)",
        )
    return ok("machine.governor", f"{governor} ({driver})" if driver else governor)


def _memory(setup: Setup) -> Finding:
    available = _available(setup)
    if available is None:
        return skipped("machine.memory", "the free memory cannot be read here")
    limit, used = _memory_limit(setup)
    source = "free"
    if limit is not None and limit - used < available:
        available, source = max(0, limit - used), f"left of the container's {megabytes(limit)}"
    found = f"{megabytes(available)} {source}"
    if available < _LITTLE_MEMORY:
        return Finding(
            "machine.memory",
            Level.WARNING,
            found,
            f"{megabytes(_LITTLE_MEMORY)} or more for an engine and images on their way",
            "stop other programs, or give the container more",
            {"available_bytes": available},
        )
    return ok("machine.memory", found, available_bytes=available)


def _available(setup: Setup) -> int | None:
    for line in (setup.read("proc/meminfo") or "").splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) * 1024
    return None


def _memory_limit(setup: Setup) -> tuple[int | None, int]:
    """The control group's limit in bytes, None for none, and what is used of it."""
    folder = "sys/fs/cgroup"
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),  # version 1
    ):
        number = setup.read_number(f"{folder}/{limit}")
        if number is not None:
            return number, setup.read_number(f"{folder}/{used}") or 0
    return None, 0


def _disk(setup: Setup) -> Finding:
    free = shutil.disk_usage(setup.folder).free
    per_second = setup.set_bytes * setup.rate
    minutes = free / per_second / 60
    found = f"{megabytes(free)} free: {minutes:.0f} minutes of raw recordings"
    values = {"free_bytes": free, "recording_bytes_per_second": round(per_second)}
    if free < _LITTLE_DISK:
        return Finding(
            "machine.disk",
            Level.NOTE,
            found,
            f"{megabytes(_LITTLE_DISK)} for logs and recordings",
            "free some, or record elsewhere",
            values,
        )
    return ok("machine.disk", found, **values)


def _malloc() -> Finding:
    library, version = platform.libc_ver()
    if keep_image_memory():
        return ok("machine.malloc", f"{library} {version} keeps image buffers for the next frame")
    return Finding(
        "machine.malloc",
        Level.NOTE,
        f"the C library ({library or platform.system()}) takes no malloc settings",
        "glibc",
        "receiving images then takes about twice the CPU time; use an image based on glibc",
    )
