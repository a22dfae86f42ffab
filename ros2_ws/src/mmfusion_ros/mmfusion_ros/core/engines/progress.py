"""How far the building of an engine is."""

from __future__ import annotations

from collections.abc import Callable

# Called with what is being done and the share of it that is done, 0 to 1. What it raises cancels
# the building and comes out of `open_engine`.
Progress = Callable[[str, float], None]
