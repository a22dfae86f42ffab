"""The doctor's report, for people and for scripts."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Sequence

from mmfusion_ros.checks.finding import Finding, Level

SCHEMA_VERSION = 1
_COLOURS = {
    Level.SKIPPED: "90",
    Level.OK: "32",
    Level.NOTE: "36",
    Level.WARNING: "33",
    Level.ERROR: "31",
}
_NARROWEST = 80


def as_json(findings: Sequence[Finding], *, failed: bool) -> str:
    """The report for scripts; docs/doctor.md explains its keys."""
    counts = Counter(finding.level for finding in findings)
    report = {
        "schema_version": SCHEMA_VERSION,
        "failed": failed,
        "counts": {str(level): counts[level] for level in Level},
        "findings": [
            {
                "check": finding.check,
                "level": str(finding.level),
                "found": finding.found,
                "expected": finding.expected,
                "advice": finding.advice,
                "values": dict(finding.values),
            }
            for finding in findings
        ],
    }
    return json.dumps(report, indent=1) + "\n"


def as_text(findings: Sequence[Finding]) -> str:
    """The report for people: the worst last, where the eye falls, and a summary."""
    terminal = sys.stdout.isatty()
    width = max(_NARROWEST, shutil.get_terminal_size().columns) if terminal else None
    colours = terminal and not os.environ.get("NO_COLOR")
    column = 2 + max(len(finding.check) for finding in findings)
    lines: list[str] = []
    for finding in sorted(findings, key=lambda finding: finding.level.severity):
        lines += _lines(finding, column, width, colours=colours)
    counts = Counter(finding.level for finding in findings)
    lines += ["", ", ".join(_count(counts[level], level) for level in reversed(list(Level)))]
    return "\n".join(lines) + "\n"


def _lines(finding: Finding, column: int, width: int | None, *, colours: bool) -> list[str]:
    level = f"{finding.level:<9}"
    if colours:
        level = f"\x1b[{_COLOURS[finding.level]}m{level}\x1b[0m"
    indent = " " * (9 + column)
    texts = [finding.found]
    if finding.expected:
        texts.append(f"expected: {finding.expected}")
    if finding.advice:
        texts.append(f"do: {finding.advice}")
    lines = []
    for text in texts:
        if width is None:
            lines.append(text)
        else:
            # Commands stay whole, to be copied.
            lines += textwrap.wrap(text, width - len(indent), break_on_hyphens=False) or [""]
    first, *rest = lines
    return [f"{level}{finding.check:<{column}}{first}", *(indent + line for line in rest)]


def _count(count: int, level: Level) -> str:
    plural = level in {Level.ERROR, Level.WARNING, Level.NOTE} and count != 1
    return f"{count} {level}{'s' if plural else ''}"
