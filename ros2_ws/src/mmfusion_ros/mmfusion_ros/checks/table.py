"""All checks, in the order in which they run."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from mmfusion_ros.checks.clock import ClockPair, judge_jump
from mmfusion_ros.checks.finding import Finding, Level
from mmfusion_ros.checks.subject import Setup


@dataclass(frozen=True)
class Check:
    """One function that looks at something.

    Attributes:
        name: what its findings' names begin with.
        title: what it does, for the progress bar.
        function: ``module:function`` below this package; imported when it runs, so that one that
            cannot be imported costs no other.
    """

    name: str
    title: str
    function: str

    def load(self) -> Callable[[Setup], Iterable[Finding]]:
        """The function."""
        module, _, name = self.function.partition(":")
        found: Callable[[Setup], Iterable[Finding]] = getattr(
            importlib.import_module(f"{__package__}.{module}"), name
        )
        return found


CHECKS = (
    Check("ros", "ROS 2 and DDS", "ros:check_ros"),
    Check("shared_memory", "shared memory", "shared_memory:check_shared_memory"),
    Check("kernel", "kernel buffers", "kernel:check_kernel_buffers"),
    Check("libraries", "libraries", "libraries:check_libraries"),
    Check("machine", "machine", "machine:check_machine"),
    Check("gpu", "GPU", "machine:check_gpu"),
    Check("clock.sync", "clock", "clock:check_synchronisation"),
    Check("artifact", "artifact", "model:check_artifact"),
    Check("rig", "rig file", "rig:check_rig"),
    Check("engine.backends", "engines", "backends:check_backends"),
    Check("engine", "engine", "model:check_engine"),
    Check("streams", "streams between two processes", "streams:check_streams"),
    Check("graph", "live graph", "graph:check_graph"),
)


def run(checks: Sequence[Check], setup: Setup) -> list[Finding]:
    """Run every check; one that fails itself is an error and stops none of the others."""
    before = ClockPair.read()
    findings: list[Finding] = []
    for check in _with_progress(checks):
        try:
            findings.extend(check.load()(setup))
        except ImportError as error:
            advice = "install what is missing: scripts/setup.sh robot"
            findings.append(_failed(check, f"cannot run: {error}", advice))
        except Exception as error:  # noqa: BLE001 (whatever it is, the others go on)
            advice = "report it with what stands here"
            findings.append(
                _failed(check, f"failed itself: {type(error).__name__}: {error}", advice)
            )
    findings.append(judge_jump(before, ClockPair.read()))
    return findings


def _failed(check: Check, problem: str, advice: str) -> Finding:
    return Finding(check.name, Level.ERROR, f"this check {problem}", "", advice)


def _with_progress(checks: Sequence[Check]) -> Iterator[Check]:
    """The checks in turn; on a terminal with a bar that tells which one runs."""
    try:
        from tqdm import tqdm  # noqa: PLC0415 (--help is quick, and it may be what is missing)
    except ImportError:
        yield from checks
        return
    with tqdm(checks, leave=False, disable=None, bar_format="{desc} {bar:20}") as progress:
        for check in progress:
            progress.set_description(check.title)
            yield check
