"""A bar for the opening of an engine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from mmfusion_ros.core.engines.progress import Progress

_STEPS = 1000


@contextlib.contextmanager
def engine_bar(**how: Any) -> Iterator[Progress]:
    """Show what `open_engine` tells.

    Args:
        how: what else the bar is to be, see ``tqdm``.

    Raises:
        ImportError: if tqdm is missing.
    """
    from tqdm import tqdm  # noqa: PLC0415 (slow to import)

    layout = "{l_bar}{bar}| {elapsed}<{remaining}"
    with tqdm(total=_STEPS, bar_format=layout, leave=False, **how) as bar:

        def progress(what: str, share: float) -> None:
            bar.set_description(what, refresh=False)
            step = round(share * _STEPS)
            if step < bar.n:  # another kind of work begins
                bar.reset()
            bar.update(step - bar.n)

        yield progress
