"""Faults of one camera: how strong they are, and what they leave alone."""

from __future__ import annotations

import numpy as np
import pytest

from mmfusion.corruptions import (
    CORRUPTIONS,
    Stream,
    add_noise,
    blur,
    closeness_of,
    cut_holes,
    lose,
    metres_of,
    shift,
)

HEIGHT, WIDTH = 96, 128
BY_NAME = {corruption.name: corruption for corruption in CORRUPTIONS}


def colour(value=0.5):
    return Stream(np.full((HEIGHT, WIDTH, 3), value, np.float32), np.ones((HEIGHT, WIDTH), bool))


def depth():
    """Half-close everywhere, with a hole of 20 x 30 pixels."""
    known = np.ones((HEIGHT, WIDTH), bool)
    known[30:50, 40:70] = False
    return Stream(np.where(known, 0.5, 0).astype(np.float32), known)


def rng(seed=0):
    return np.random.default_rng(seed)


def test_the_protocol_has_its_levels():
    assert {name: corruption.levels for name, corruption in BY_NAME.items()} == {
        "noise": (0.05, 0.1, 0.2, 0.4),
        "holes": (0.1, 0.25, 0.5, 0.75),
        "blur": (2, 4, 8),
        "shift": (4, 8, 16),
        "lost": (1,),
    }
    assert [name for name, corruption in BY_NAME.items() if corruption.drawn] == ["noise", "holes"]


@pytest.mark.parametrize("make", [colour, depth])
@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda corruption: corruption.name)
def test_a_corrupted_stream_is_one_still(corruption, make):
    stream = make()
    image, known = stream.image.copy(), stream.known.copy()
    for level in corruption.levels:
        found = corruption.apply(stream, level, rng())
        assert found.image.dtype == np.float32
        assert found.known.dtype == bool
        assert found.image.shape == image.shape
        assert found.known.shape == known.shape
        assert found.image.min() >= 0
        assert found.image.max() <= 1
        assert not found.image[~found.known].any()
        if corruption.name != "shift":
            assert not (found.known & ~known).any()
    np.testing.assert_array_equal(stream.image, image)
    np.testing.assert_array_equal(stream.known, known)


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda corruption: corruption.name)
def test_chance_decides_only_where_it_says_so(corruption):
    stream = Stream(rng(5).random((HEIGHT, WIDTH), np.float32), np.ones((HEIGHT, WIDTH), bool))
    first, again, other = (
        corruption.apply(stream, corruption.levels[0], rng(seed)).image for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any() == corruption.drawn


@pytest.mark.parametrize("sigma", [0.05, 0.1])
def test_noise_has_its_deviation_in_each_channel(sigma):
    noise = add_noise(colour(), sigma, rng()).image - 0.5
    assert noise.std(axis=(0, 1)) == pytest.approx([sigma] * 3, rel=0.03)
    assert np.abs(np.corrcoef(noise.reshape(-1, 3).T) - np.eye(3)).max() < 0.05


def test_noise_leaves_holes_of_depth():
    stream = depth()
    found = add_noise(stream, 0.1, rng())
    np.testing.assert_array_equal(found.known, stream.known)
    assert found.image[stream.known].std() == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.75])
def test_holes_cover_their_share(share):
    found = cut_holes(colour(), share, rng())
    hole = (HEIGHT // 16) ** 2 / (HEIGHT * WIDTH)
    assert share <= 1 - found.known.mean() < share + hole
    assert (found.image[found.known] == 0.5).all()


def test_holes_are_squares():
    missing = ~cut_holes(colour(), 1e-9, rng(3)).known  # one hole
    rows, columns = np.flatnonzero(missing.any(axis=1)), np.flatnonzero(missing.any(axis=0))
    assert missing.sum() == len(rows) * len(columns)
    assert len(rows) == len(columns) == HEIGHT // 16


def test_more_holes_are_the_same_and_more():
    few, many = (cut_holes(colour(), share, rng()).known for share in (0.25, 0.5))
    assert not (many & ~few).any()


def test_holes_reach_every_corner():
    cut = np.mean([~cut_holes(colour(), 0.5, rng(seed)).known for seed in range(60)], axis=0)
    corners = cut[:12, :12], cut[:12, -12:], cut[-12:, :12], cut[-12:, -12:]
    assert all(0.35 < corner.mean() < 0.65 for corner in corners)


def test_blur_spreads_an_impulse_by_its_deviation():
    image = np.zeros((101, 101), np.float32)
    image[50, 50] = 1
    found = blur(Stream(image, np.ones_like(image, bool)), 4).image
    across = found.sum(axis=0)
    offsets = np.arange(101) - 50
    assert across.sum() == pytest.approx(1, rel=1e-4)
    assert np.sqrt((across * offsets**2).sum()) == pytest.approx(4, rel=0.02)


def test_blur_of_depth_does_not_smear_holes():
    stream = depth()
    found = blur(stream, 4)
    np.testing.assert_array_equal(found.known, stream.known)
    np.testing.assert_allclose(found.image[found.known], 0.5, rtol=1e-5)


def test_shift_moves_right_and_bares_the_left():
    stream = Stream(rng(1).random((HEIGHT, WIDTH, 3), np.float32), np.ones((HEIGHT, WIDTH), bool))
    found = shift(stream, 8)
    np.testing.assert_array_equal(found.image[:, 8:], stream.image[:, :-8])
    assert not found.known[:, :8].any()
    assert found.known[:, 8:].all()
    assert not shift(stream, WIDTH + 3).known.any()


def test_a_lost_stream_shows_nothing():
    found = lose(depth())
    assert not found.image.any()
    assert not found.known.any()


def test_closeness_is_what_networks_see():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from mmfusion.graph.depth import DepthMapping
    from mmfusion.graph.depth_range import DepthRange

    metres = np.linspace(0.1, 14, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
    mapping = DepthMapping(metres.shape, metres.shape, DepthRange(0.5, 8))
    tensor = torch.from_numpy(metres)[None, None]
    expected = mapping(tensor, torch.ones_like(tensor))[0, 0].numpy()
    closeness = closeness_of(metres, 0.5, 8)
    np.testing.assert_allclose(closeness, expected, atol=1e-6)
    np.testing.assert_allclose(metres_of(closeness, 0.5, 8), np.clip(metres, 0.5, 8), rtol=1e-4)
