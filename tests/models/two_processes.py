"""Commands in two processes that torchrun starts."""

from __future__ import annotations

import os
import subprocess
import sys


def in_two_processes(*command: str) -> str:
    """Run ``-m MODULE ARGUMENTS`` or ``SCRIPT ARGUMENTS``; what they said, or fail with it."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    result = subprocess.run(
        [sys.executable, *launcher, *command],
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr
