"""A path in a message is replaced as a whole, never a part of a word or of another path."""

from __future__ import annotations

import pytest

from mmfusion_ros.paths_in_text import replace_path


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [
        ("cannot write out/yard: full", "out/", "cannot write ./yard: full"),
        ("without --out out; see layout/a", "out/", "without --out out; see layout/a"),
        ("see there/out/yard", "out/", "see there/out/yard"),
        ("/data/a is not /data/ab, /data/a.mcap or /b/data/a", "/data/a", None),
        ("/data/a/rgb lacks", "/data/a", "X/rgb lacks"),
        ("it is '/data/a'.", "/data/a", "it is 'X'."),
        ("in /data/a.", "/data/a", "in X."),
    ],
)
def test_replace_path(text, path, expected):
    shown = "./" if path == "out/" else "X"
    if expected is None:
        expected = "X" + text.removeprefix(path)
    assert replace_path(text, path, shown) == expected
