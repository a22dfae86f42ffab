"""Both forms of the spectral correlation against its definition, and responses on other grids."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from hypothesis import given, settings
from hypothesis import strategies as st

from mmfusion.layers.spectral import (
    MatrixCorrelation,
    SpectralCorrelation,
    correlate,
    hann,
    resample_response,
)

pytestmark = pytest.mark.torch

SIDES = st.integers(1, 20)
SEEDS = st.integers(0, 2**32 - 1)


def full_plane(response, width):
    """The response as a real even function of the whole plane, bin by bin."""
    height = response.shape[0]
    plane = np.empty((height, width))
    for u in range(height):
        for v in range(width // 2 + 1):
            own, mirrored = response[u, v], response[-u % height, v]
            if v == 0 or 2 * v == width:
                plane[u, v] = (own + mirrored) / 2
            else:
                plane[u, v] = own
                plane[-u % height, width - v] = own
    return plane


def by_definition(a, b, response):
    """The correlation with complex transforms of the full plane, in float64."""
    height, width = a.shape[-2:]
    windows = [np.hanning(side) for side in (height, width)]  # numpy's is the symmetric one
    window = np.outer(*windows)
    spectrum = np.fft.fft2(a * window) * np.conj(np.fft.fft2(b * window))
    lags = np.fft.ifft2(spectrum * full_plane(response, width))
    assert np.abs(lags.imag).max() <= 1e-9 * max(1, np.abs(lags.real).max())
    return lags.real


def draw(height, width, seed, channels=3):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((2, 1, channels, height, width))
    return a, b, 1 + 0.5 * rng.standard_normal((height, width // 2 + 1))


def error(values, reference):
    return np.abs(values.double().numpy() - reference).max() / max(1e-3, np.abs(reference).max())


@given(SIDES, SIDES, SEEDS)
@settings(deadline=None, max_examples=150)
def test_both_forms_are_the_definition(height, width, seed):
    a, b, response = draw(height, width, seed)
    reference = by_definition(a, b, response)
    for dtype, limit in ((torch.float64, 1e-12), (torch.float32, 3e-6)):
        planes = [torch.from_numpy(x).to(dtype) for x in (a, b, response)]
        matrices = MatrixCorrelation((height, width), planes[2], dtype)
        for result in (correlate(*planes), matrices(*planes[:2])):
            assert result.dtype == dtype
            assert error(result, reference) < limit


def test_sums_of_shifted_products():
    a, b, _ = draw(4, 5, 0)
    window = np.outer(np.hanning(4), np.hanning(5))
    expected = np.empty_like(a)
    for dy in range(4):
        for dx in range(5):
            moved = np.roll(a * window, (-dy, -dx), (-2, -1))
            expected[..., dy, dx] = (moved * (b * window)).sum((-2, -1))
    ones = torch.ones(4, 3, dtype=torch.float64)
    assert error(correlate(torch.from_numpy(a), torch.from_numpy(b), ones), expected) < 1e-12


def test_one_correlation_with_a_sum_of_keys_is_the_sum_of_two():
    a, b, response = (torch.from_numpy(x) for x in draw(9, 12, 1))
    other = torch.randn_like(b)
    both = correlate(a, b, response) - 0.4 * correlate(a, other, response)
    torch.testing.assert_close(correlate(a, b - 0.4 * other, response), both)


def test_the_window_is_zero_at_both_ends():
    assert hann(5).tolist() == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert hann(1).tolist() == [1]


def test_float16_matrices_do_not_overflow():
    torch.manual_seed(0)
    size = (96, 96)
    wave = torch.sin(torch.arange(96) / 7)[:, None] + torch.cos(torch.arange(96) / 5) + 1
    a, b = (wave + 0.3 * torch.randn(1, 4, *size) for _ in range(2))  # magnitude of features: 3
    response = 1 + 0.3 * torch.randn(96, 49)
    spectrum = torch.fft.rfft2(a * torch.outer(hann(96), hann(96))).abs().square()
    assert spectrum.max() > torch.finfo(torch.float16).max  # would overflow unscaled
    reference = correlate(a.double(), b.double(), response.double())
    result = MatrixCorrelation(size, response, torch.float16)(a, b)
    assert torch.isfinite(result).all()
    assert error(result, reference.numpy()) < 3e-3


def test_half_precision_features_are_correlated_in_float32():
    a, b, response = (torch.from_numpy(x).half() for x in draw(6, 7, 2))
    exact = correlate(a.double(), b.double(), response.double())
    for form in (SpectralCorrelation((6, 7)), MatrixCorrelation((6, 7), torch.ones(6, 4))):
        assert form(a, b).dtype == torch.float32
    assert error(correlate(a, b, response), exact.numpy()) < 1e-5


@given(SIDES, SIDES, SEEDS)
@settings(deadline=None, max_examples=50)
def test_columns_that_mirror_themselves_learn_evenly(height, width, seed):
    a, b, response = (torch.from_numpy(x) for x in draw(height, width, seed))
    response.requires_grad_()
    weights = torch.randn_like(a)
    (correlate(a, b, response) * weights).sum().backward()
    mirrored = response.grad.flip(0).roll(1, 0)
    own_mirror = [0] + ([width // 2] if width % 2 == 0 else [])
    torch.testing.assert_close(response.grad[:, own_mirror], mirrored[:, own_mirror])


def test_every_transform_library_gets_a_spectrum_of_real_planes(monkeypatch):
    """What is left to a library is defined: columns that mirror themselves are Hermitian."""
    inverse, seen = torch.fft.irfft2, []
    monkeypatch.setattr(torch.fft, "irfft2", lambda x, s: seen.append(x) or inverse(x, s=s))
    correlate(*(torch.from_numpy(x) for x in draw(6, 8, 4)))
    columns = seen[0][..., [0, 4]]
    torch.testing.assert_close(columns, columns.flip(-2).roll(1, -2).conj())


def test_gradients():
    a, b, response = (torch.from_numpy(x).requires_grad_() for x in draw(4, 5, 3, channels=1))
    torch.autograd.gradcheck(correlate, (a, b, response))
    torch.autograd.gradcheck(lambda r: resample_response(r, (4, 5), (7, 6)), (response,))


@given(SIDES, SIDES, SIDES, SIDES)
@settings(deadline=None, max_examples=100)
def test_resampling_scales_a_constant_by_the_areas(height, width, new_height, new_width):
    response = torch.full((height, width // 2 + 1), 3.0, dtype=torch.float64)
    moved = resample_response(response, (height, width), (new_height, new_width))
    scale = height * width / (new_height * new_width)
    torch.testing.assert_close(
        moved, torch.full((new_height, new_width // 2 + 1), 3 * scale, dtype=torch.float64)
    )


def test_resampling_to_the_same_grid_is_the_identity():
    response = torch.randn(6, 4)
    assert torch.equal(resample_response(response, (6, 7), (6, 7)), response)


@pytest.mark.parametrize("target", [(50, 60), (97, 31), (24, 80), (101, 160)])
def test_resampling_keeps_the_response_at_each_frequency(target):
    def smooth(height, width):
        u, v = torch.fft.fftfreq(height)[:, None], torch.arange(width // 2 + 1) / width
        return 1 + 0.5 * torch.cos(6.28318531 * (u + v)) + 0.3 * torch.sin(6.28318531 * v).square()

    moved = resample_response(smooth(48, 63), (48, 63), target)
    scale = 48 * 63 / (target[0] * target[1])
    # Columns 0 and the last come out even in u; elsewhere the response need not be.
    inner = slice(1, (target[1] - 1) // 2)
    torch.testing.assert_close(
        moved[:, inner], smooth(*target)[:, inner] * scale, atol=0.01 * scale, rtol=0
    )


def test_other_map_sizes_use_the_resampled_response():
    torch.manual_seed(0)
    learned = SpectralCorrelation((12, 12))
    with torch.no_grad():
        learned.response.add_(0.3 * torch.randn(12, 7))
    a, b = torch.randn(2, 2, 3, 9, 16)
    expected = correlate(a, b, resample_response(learned.response, (12, 12), (9, 16)))
    torch.testing.assert_close(learned(a, b), expected)
    torch.testing.assert_close(learned.as_matrices((9, 16))(a, b), expected)


def test_a_response_of_another_grid_is_refused():
    plane = torch.zeros(6, 8)
    with pytest.raises(ValueError, match=r"6x8 is \(6, 5\), got \(6, 4\)"):
        correlate(plane, plane, torch.ones(6, 4))
    with pytest.raises(ValueError, match="resample_response"):
        MatrixCorrelation((6, 8), torch.ones(5, 5))
