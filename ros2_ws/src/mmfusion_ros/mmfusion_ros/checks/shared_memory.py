"""Shared memory, through which Fast DDS hands images to other processes."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mmfusion_ros.checks.finding import Finding, Level, ok, skipped
from mmfusion_ros.checks.subject import Setup, megabytes

# Each of our processes takes 16 MiB, a camera driver too: node, driver and a viewer.
_PROCESSES = 3
_SEGMENT = 17 << 20


def check_shared_memory(setup: Setup) -> Iterator[Finding]:
    """Whether it is there, can be written to, is large enough, and what dead processes left."""
    folder = setup.root / "dev" / "shm"
    if not folder.is_dir():
        yield Finding(
            "shared_memory.size",
            Level.ERROR,
            f"{folder} is not there",
            "a tmpfs",
            "mount it: mount -t tmpfs -o mode=1777 tmpfs /dev/shm",
        )
        yield skipped("shared_memory.leftovers", f"{folder} is not there")
        return
    yield _writable_and_large(folder)
    yield _leftovers(folder)


def _writable_and_large(folder: Path) -> Finding:
    total, _, free = shutil.disk_usage(folder)
    values = {"total_bytes": total, "free_bytes": free}
    needed = _PROCESSES * _SEGMENT
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        return Finding(
            "shared_memory.size",
            Level.ERROR,
            f"{folder} cannot be written to ({error.strerror})",
            "a folder everybody may write to",
            "in a container leave it writable, or share the host's: docker run --ipc host",
            values,
        )
    found = f"{folder} has {megabytes(total)}, {megabytes(free)} of it free"
    expected = f"{megabytes(needed)} free: 16 MiB for each of the node, a driver and a viewer"
    advice = (
        "docker run --ipc host (or --shm-size 256m); without a container: "
        "mount -o remount,size=256M /dev/shm; see also shared_memory.leftovers"
    )
    if free < _SEGMENT:
        return Finding("shared_memory.size", Level.ERROR, found, expected, advice, values)
    if free < needed:
        return Finding("shared_memory.size", Level.WARNING, found, expected, advice, values)
    return ok("shared_memory.size", found, **values)


def _leftovers(folder: Path) -> Finding:
    dead = list(_dead_segments(folder))
    size = sum(dead)
    if not dead:
        return ok("shared_memory.leftovers", "nothing left by dead processes", bytes=0)
    few = size < _SEGMENT
    return Finding(
        "shared_memory.leftovers",
        Level.NOTE if few else Level.WARNING,
        f"{len(dead)} files of dead processes, {megabytes(size)}",
        "none; each killed program leaves some",
        "fastdds shm clean (needs psutil), or stop all ROS programs and "
        f"rm {folder}/fastdds_* {folder}/fastrtps_*",
        {"bytes": size, "files": len(dead)},
    )


def _dead_segments(folder: Path) -> Iterator[int]:
    """Bytes of each segment whose owner lacks the lock that it holds as long as it lives."""
    for lock in sorted(folder.glob("fast*_el")):
        segment = lock.with_name(lock.name.removesuffix("_el"))
        if not lock.name.startswith(("fastdds_", "fastrtps_")) or not segment.is_file():
            continue
        try:
            with lock.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            size = segment.stat().st_size
        except OSError:
            continue  # held by a living process, of another user, or removed meanwhile
        yield size
