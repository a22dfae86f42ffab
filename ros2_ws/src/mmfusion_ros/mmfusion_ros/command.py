"""How a command ends."""

from __future__ import annotations

import sys
from collections.abc import Callable

from mmfusion_ros.core.errors import MmfusionError

INTERRUPTED = 130  # as shells have it


def exit_code_of(name: str, run: Callable[[], object]) -> int:
    """Run a command; what a user can cause becomes one line on stderr, and the code 1."""
    try:
        run()
    except (MmfusionError, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0
