"""Start programs of this package as processes of their own and read what they print."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

from mmfusion_ros.checks.subject import Setup

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def start(setup: Setup, module: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a module of this package as a program started from here would be."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(setup.environment),
        cwd=setup.folder,
    )


def finish(process: subprocess.Popen[str], timeout_s: float) -> tuple[Any, str]:
    """Wait for the JSON it prints last.

    Returns:
        What it printed, None if it failed; and what it said on its error output, the lines that
        tell most.
    """
    try:
        output, errors = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return None, f"no answer within {timeout_s:g} s"
    complaint = _complaint(errors)
    lines = output.strip().splitlines()
    if process.returncode != 0 or not lines:
        return None, complaint or f"it ended with status {process.returncode}"
    return json.loads(lines[-1]), complaint


def _complaint(errors: str) -> str:
    lines = [_COLOURS.sub("", line).strip() for line in errors.splitlines()]
    lines = [line for line in lines if line]
    telling = [line for line in lines if "rror" in line]
    return telling[-1] if telling else "".join(lines[-1:])
