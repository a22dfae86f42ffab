"""Kernel buffers for images that travel over UDP."""

from __future__ import annotations

from collections.abc import Iterator

from mmfusion_ros.checks.finding import Finding, Level, ok, skipped
from mmfusion_ros.checks.subject import Setup, megabytes

# What the DDS tuning guide of ROS 2 gives for large messages, where more than fits a frame.
_MEMORY = {"net/core/rmem_max": 8 << 20, "net/core/wmem_max": 8 << 20}
_FRAGMENTS = {"net/ipv4/ipfrag_high_thresh": 128 << 20}
_LONGEST_FRAGMENT_S = 5
_ADVICE = (
    "sudo sysctl -w net.core.rmem_max=33554432 net.core.wmem_max=33554432 "
    "net.ipv4.ipfrag_time=3 net.ipv4.ipfrag_high_thresh=134217728 (and in /etc/sysctl.d/ to stay)"
)


def check_kernel_buffers(setup: Setup) -> Iterator[Finding]:
    """Whether whole images fit into the buffers of UDP."""
    found: dict[str, int] = {}
    for name in (*_MEMORY, *_FRAGMENTS, "net/ipv4/ipfrag_time"):
        value = setup.read_number(f"proc/sys/{name}")
        if value is not None:
            found[name.replace("/", ".")] = value
    if not found:
        yield skipped("kernel.buffers", f"{setup.root / 'proc/sys/net'} cannot be read")
        return
    low = [
        f"{name} {megabytes(found[name])}"
        for name, wanted in _wanted().items()
        if found.get(name, wanted) < wanted
    ]
    if found.get("net.ipv4.ipfrag_time", 0) > _LONGEST_FRAGMENT_S:
        low.append(f"net.ipv4.ipfrag_time {found['net.ipv4.ipfrag_time']} s")
    if not low:
        yield ok("kernel.buffers", "large enough for images over UDP", **found)
        return
    over_udp = "cyclonedds" in setup.environment.get("RMW_IMPLEMENTATION", "")
    why = (
        "Cyclone DDS sends all images over UDP"
        if over_udp
        else "of no matter while cameras and node share this machine and its shared memory"
    )
    yield Finding(
        "kernel.buffers",
        Level.WARNING if over_udp else Level.NOTE,
        f"{', '.join(low)}; {why}",
        "room for several images, and short waits for lost fragments",
        f"for images from other machines: {_ADVICE}" if not over_udp else _ADVICE,
        found,
    )


def _wanted() -> dict[str, int]:
    return {name.replace("/", "."): size for name, size in {**_MEMORY, **_FRAGMENTS}.items()}
