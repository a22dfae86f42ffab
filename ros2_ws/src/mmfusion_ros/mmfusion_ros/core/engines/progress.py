"""How far the building of an engine is."""

from __future__ import annotations

from collections.abc import Callable

# Called with what is being done and the share of it that is done, 0 to 1. What it raises cancels
# the building and comes out of `open_engine`, if it is no EngineError.
Progress = Callable[[str, float], None]


class Cancelled(Exception):  # noqa: N818 (it is no error)
    """Nobody wants the engine any more; for a `Progress` to raise.

    No EngineError, as no other engine is to be opened instead.
    """
