"""Of many samples the worst are kept, and only they are drawn."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from mmfusion.drawing import draw_row
from mmfusion.errors import DataError
from mmfusion.failures import MOST, Failures


def panels(badness):
    return {"colour": np.full((8, 320, 3), (badness, 0, 200), np.uint8)}


def add(failures, values, drawn=None):
    for value in values:

        def draw(value=value):
            if drawn is not None:
                drawn.append(value)
            return panels(value)

        failures.add(value, f"sample {value}", draw)


def test_the_worst_are_written_by_rank(tmp_path):
    failures = Failures(tmp_path / "new" / "folder")
    values = np.random.default_rng(0).permutation(50).tolist()
    add(failures, values)
    failures.write()
    files = sorted((tmp_path / "new" / "folder").iterdir())
    assert [path.name for path in files] == [f"worst_{rank}.png" for rank in range(1, MOST + 1)]
    for rank, path in enumerate(files):
        value = 49 - rank
        expected = draw_row(f"sample {value}", panels(value))
        np.testing.assert_array_equal(cv2.imread(str(path))[..., ::-1], expected)


def test_what_is_not_among_the_worst_is_not_drawn(tmp_path):
    drawn = []
    add(Failures(tmp_path), [*range(20, 0, -1), 21], drawn)
    assert drawn == [*range(20, 20 - MOST, -1), 21]


def test_of_equals_the_first_are_kept(tmp_path):
    drawn = []
    add(Failures(tmp_path), [3] * 20, drawn)
    assert drawn == [3] * MOST


def test_few_and_undefined_samples(tmp_path):
    failures = Failures(tmp_path)
    add(failures, [math.nan, 2])
    failures.write()
    assert [path.name for path in tmp_path.iterdir()] == ["worst_1.png"]


def test_a_file_in_the_way_is_told_before_anything_is_measured(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file is a file; expected a folder"):
        Failures(tmp_path / "file")
