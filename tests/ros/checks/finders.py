"""What the tests of the doctor's checks share."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmfusion_ros.checks.finding import Finding, Level


def by_check(findings: Iterable[Finding]) -> dict[str, Finding]:
    """Findings by name, the worst of each."""
    found: dict[str, Finding] = {}
    for finding in findings:
        before = found.get(finding.check)
        if before is None or before.level.severity <= finding.level.severity:
            found[finding.check] = finding
    return found


def levels(findings: Iterable[Finding]) -> dict[str, str]:
    """Levels by name."""
    return {name: str(finding.level) for name, finding in by_check(findings).items()}


def only(findings: Iterable[Finding]) -> Finding:
    """The one finding there is."""
    (finding,) = findings
    return finding


def is_helpful(finding: Finding) -> bool:
    """Whether somebody who reads it knows what to do."""
    if finding.level in {Level.OK, Level.SKIPPED}:
        return bool(finding.found)
    return bool(finding.found and finding.advice)


def files(root: Path, **contents: Any) -> Path:
    """Write files below a root; double underscores in names stand for slashes."""
    for name, content in contents.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root
