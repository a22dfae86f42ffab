"""Whether camera images reach another process of this machine, measured over real DDS."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

from mmfusion_ros.checks.finding import Finding, Level, ok, skipped
from mmfusion_ros.checks.processes import finish, start
from mmfusion_ros.checks.ros import NO_ROS, our_profile_command, ros_here, user_profile
from mmfusion_ros.checks.subject import Setup, megabytes

_MARGIN_S = 30.0
_PATIENCE_S = 10.0  # for two processes to find each other
_SOME_LOST, _MANY_LOST = 0.01, 0.2
_TOO_SLOW = 0.9  # of the rate that was asked for
_NAMES = ("streams.best_effort", "streams.reliable", "streams.without_profile")


def check_streams(setup: Setup) -> Iterator[Finding]:
    """Send the images of all cameras; also without a profile, where none is set."""
    if not setup.streams or setup.quick:
        option = "--quick" if setup.quick else "--no-streams"
        for name in _NAMES:
            yield skipped(name, f"left out by {option}")
        return
    here = ros_here(setup)
    if not here.rmw:
        for name in _NAMES:
            yield skipped(name, NO_ROS)
        return
    chosen = user_profile(setup)
    yield from _measure(setup, "profile", {"best_effort": _NAMES[0], "reliable": _NAMES[1]})
    if not here.is_fastdds:
        yield skipped(_NAMES[2], f"{here.rmw} takes no Fast DDS profile")
    elif chosen is not None:
        yield skipped(_NAMES[2], f"a profile is set: {chosen}")
    else:
        yield from _measure(setup, "none", {"best_effort": _NAMES[2]})


def _measure(setup: Setup, profile: str, names: dict[str, str]) -> Iterator[Finding]:
    """Send one or two kinds of streams; ``names`` has the check of each reliability."""
    task = {
        # Unknown to everybody else, in case this is the domain of a robot at work.
        "prefix": f"/mmfusion_doctor_{os.getpid()}/{profile}",
        "phases": list(names),
        "rate": setup.rate,
        "frames": max(1, round(setup.rate * setup.seconds)),
        "patience_s": _PATIENCE_S,
        "our_profile": profile == "profile",
        "cameras": [
            {
                "name": str(camera.modality),
                "encoding": camera.encoding,
                "height": camera.height,
                "width": camera.width,
                "step": camera.step,
            }
            for camera in setup.cameras
        ],
    }
    receiver = start(setup, "mmfusion_ros.checks.stream_receiver", json.dumps(task))
    sender = start(setup, "mmfusion_ros.checks.stream_sender", json.dumps(task))
    try:
        sent, problem = finish(sender, len(names) * setup.seconds * 3 + _MARGIN_S)
        # Closes its input, upon which it ends.
        received, other_problem = finish(receiver, _MARGIN_S)
    finally:
        for process in (sender, receiver):
            if process.poll() is None:
                process.kill()
    for phase, name in names.items():
        if sent is None or received is None:
            yield _broken(name, problem or other_problem)
        elif phase not in sent["phases"]:
            yield _unmatched(name)
        else:
            yield _judge(setup, name, phase, sent, received)


def _broken(name: str, problem: str) -> Finding:
    return Finding(
        name, Level.ERROR, f"the streams broke off: {problem}", "two processes that exchange images"
    )


def _unmatched(name: str) -> Finding:
    return Finding(
        name,
        Level.ERROR,
        "two processes of this machine do not find each other",
        f"discovery within {_PATIENCE_S:g} s",
        "let multicast through on the interface (ip link set lo multicast on; firewall: UDP ports "
        "7400 and up), or set ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST; see dds.discovery",
    )


def _judge(
    setup: Setup, name: str, phase: str, sent: dict[str, Any], received: dict[str, Any]
) -> Finding:
    facts, latencies = sent["phases"][phase], received["latencies_ms"][phase]
    counts = {camera: len(times) for camera, times in latencies.items()}
    total, arrived = facts["sent"] * len(counts), sum(counts.values())
    lost = 1 - arrived / total
    times = sorted(time for entries in latencies.values() for time in entries)
    rate = facts["sent"] / facts["seconds"]
    values = {
        "sent": total,
        "received": arrived,
        "received_by_camera": counts,
        "latency_p50_ms": _share(times, 0.5),
        "latency_p99_ms": _share(times, 0.99),
        "sender_cpu": round(facts["cpu"], 3),
        "receiver_cpu": round(received["cpu"], 3),
        "rate": round(rate, 2),
        "segment_bytes": sent["segment_bytes"],
    }
    sizes = ", ".join(
        f"{camera.width}x{camera.height} {camera.encoding}" for camera in setup.cameras
    )
    found = f"{arrived} of {total} images arrived ({sizes} at {setup.rate:g} Hz)"
    if times:
        found += f", latency p50 {values['latency_p50_ms']} p99 {values['latency_p99_ms']} ms"
    found += f", CPU {facts['cpu']:.0%} sending {received['cpu']:.0%} receiving"
    if lost > _SOME_LOST:
        return _loss(setup, name, found, lost, values)
    if rate < _TOO_SLOW * setup.rate:
        return Finding(
            name,
            Level.WARNING,
            f"{found}, but only {rate:.3g} Hz could be sent",
            f"{setup.rate:g} Hz",
            "the machine is too busy or too slow for these cameras: smaller images, lower rates",
            values,
        )
    return ok(name, found, **values)


def _loss(
    setup: Setup,
    name: str,
    found: str,
    lost: float,
    values: dict[str, Any],
) -> Finding:
    expected, segment = "all of them", values["segment_bytes"]
    if name == _NAMES[2]:
        return Finding(
            name,
            Level.WARNING,
            f"without a profile, as for a camera driver started from here: {found}",
            expected,
            f"set the profile in the publishing process: {our_profile_command(setup)}",
            values,
        )
    if segment is None or segment < setup.largest_bytes:
        got = "no shared memory" if segment is None else f"{megabytes(segment)} of shared memory"
        advice = (
            f"the publishing process has {got}, one image takes {megabytes(setup.largest_bytes)}: "
            "see dds.profile and shared_memory.size"
        )
    else:
        advice = (
            "shared memory is large enough, so the receiver did not keep up: see machine.cpu; "
            "try again with nothing else running, a lower --rate or a smaller --size"
        )
    return Finding(
        name,
        Level.ERROR if lost > _MANY_LOST else Level.WARNING,
        found,
        expected,
        advice,
        values,
    )


def _share(times: list[float], share: float) -> float | None:
    """Quantile of sorted times, rounded; None if there are none."""
    if not times:
        return None
    return round(times[min(len(times) - 1, int(share * len(times)))], 1)
