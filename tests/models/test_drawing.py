"""Rows of pictures."""

from __future__ import annotations

import numpy as np

from mmfusion.drawing import draw_row

WHITE = 255


def test_pictures_stand_side_by_side():
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 200, (20, 320), np.uint8)
    colour = rng.integers(0, 200, (20, 320, 3), np.uint8)
    row = draw_row("both", {"grey": grey, "colour": colour})
    assert row.dtype == np.uint8
    assert row.shape == (54 + 20, 2 * 326 + 6, 3)
    np.testing.assert_array_equal(row[54:, 6:326], np.repeat(grey[..., None], 3, axis=2))
    np.testing.assert_array_equal(row[54:, 332:652], colour)
    for gap in (np.s_[:6], np.s_[326:332], np.s_[652:]):
        assert (row[54:, gap] == WHITE).all()


def test_caption_and_titles_are_written():
    panels = {"one": np.zeros((8, 320), np.uint8)}
    bare = draw_row("", {"": panels["one"]})
    assert (bare[:54] == WHITE).all()
    captioned, titled = draw_row("caption", {"": panels["one"]}), draw_row("", panels)
    assert (captioned[:30] < WHITE).any()
    assert (captioned[30:] == bare[30:]).all()
    assert (titled[30:54] < WHITE).any()
    assert (titled[:30] == WHITE).all()


def test_small_pictures_are_enlarged_by_a_whole_number():
    small = np.arange(12, dtype=np.uint8).reshape(3, 4)
    row = draw_row("", {"": small})
    assert row.shape == (54 + 3 * 80, 6 + 320 + 6, 3)
    np.testing.assert_array_equal(row[54::80, 6:326:80, 0], small)
