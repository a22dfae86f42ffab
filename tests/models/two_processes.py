"""Commands in two processes that torchrun starts."""

from __future__ import annotations

import os
import subprocess
import sys


def in_two_processes(*command: str) -> None:
    """Run ``-m MODULE ARGUMENTS`` or ``SCRIPT ARGUMENTS``; fail with what they said."""
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
