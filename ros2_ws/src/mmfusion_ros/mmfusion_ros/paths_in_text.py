"""Paths in messages for people."""

from __future__ import annotations

import re


def replace_path(text: str, path: str, shown: str) -> str:
    """Show another path wherever a whole one stands, or the beginning of a longer one.

    Args:
        text: of a message.
        path: to look for; with a slash at the end, only where something follows it.
        shown: in its place.
    """
    end = "" if path.endswith("/") else r"(?![\w-]|\.\w)"
    return re.sub(rf"(?<![\w./-]){re.escape(path)}{end}", lambda _: shown, text)
