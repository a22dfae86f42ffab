"""Windowed circular cross-correlation of feature maps, weighted by frequency.

For real planes a and b (h, w), each channel by itself::

    A = DFT(hann * a)    B = DFT(hann * b)    corr(a, b) = IDFT(A * conj(B) * R)

with an unscaled forward and a 1/(hw) inverse transform, a symmetric Hann window (zero on the
border) and zero lag at index (0, 0). The response R is real and stands on the half plane of a
real transform, rows u = 0..h-1 and columns v = 0..w//2. Of R, the columns that are their own
mirror (v = 0, and v = w/2 if w is even) count with their even part over u only: a real result
allows no more, and transform libraries differ in what they do with the rest.
(Chen, Liu, Liang, Cui, "Hamiltonian Asymmetric Fusion", ICML 2026.)

corr is linear in each argument, so a weighted sum of correlations with one query costs one
correlation with the weighted sum of the keys.

Two forms compute it: `SpectralCorrelation` by FFT, to train with, and `MatrixCorrelation` by
products with constant matrices, for engines without an FFT.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_HALF_TYPES = (torch.float16, torch.bfloat16)


def correlate(a: Tensor, b: Tensor, response: Tensor) -> Tensor:
    """Correlate by FFT, in at least float32: FFTs in half precision overflow or do not exist.

    Args:
        a: planes (..., h, w).
        b: planes of the same shape; the conjugated side.
        response: R, (h, w//2 + 1).

    Returns:
        (..., h, w), float32 for half-precision input, else of the input's type.

    Raises:
        ValueError: if the response is of another grid.
    """
    height, width = a.shape[-2:]
    _check_response(response, height, width)
    if a.dtype in _HALF_TYPES:
        a, b = a.float(), b.float()
    window = torch.outer(hann(height, a.device), hann(width, a.device)).to(a.dtype)
    spectrum = torch.fft.rfft2(a * window) * torch.fft.rfft2(b * window).conj()
    weighted = spectrum * _even_response(response.to(a.dtype), width)
    lags: Tensor = torch.fft.irfft2(weighted, s=(height, width))
    return lags


def hann(size: int, device: torch.device | None = None) -> Tensor:
    """Symmetric Hann window, (size,), float64: zero at both ends, 1 if there is one sample."""
    if size == 1:
        return torch.ones(1, dtype=torch.float64, device=device)
    index = torch.arange(size, dtype=torch.float64, device=device)
    return 0.5 * (1 - torch.cos(2 * math.pi / (size - 1) * index))


def resample_response(response: Tensor, source: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """Carry a response over to another grid, frequency by frequency.

    Bin (u, v) of an h x w grid stands for u/h and v/w cycles per token. The response is read at
    the target's frequencies by bilinear interpolation in the full plane, which is periodic and
    even, and scaled by the ratio of the areas, because corr grows with the area of its grid.

    Args:
        response: R, (h, w//2 + 1).
        source: its grid, (h, w); w cannot be told from the response.
        target: grid of the result, (h', w').

    Returns:
        (h', w'//2 + 1). On the source's own grid: the response itself.

    Raises:
        ValueError: if the response is not of the source grid.
    """
    _check_response(response, *source)
    if source == target:
        return response
    (height, width), (new_height, new_width) = source, target
    even = _even_response(response, width)
    mirrored = _negate_rows(even)[:, 1 : width - width // 2].flip(1)
    plane = torch.cat((even, mirrored), dim=1)
    rows = _periodic_interpolation(height, new_height).to(response)
    columns = _periodic_interpolation(width, new_width)[: new_width // 2 + 1].to(response)
    return (rows @ plane @ columns.T) * (height * width / (new_height * new_width))


class SpectralCorrelation(nn.Module):
    """`correlate` with a learned response, for maps of any size.

    Attributes:
        size: (h, w) that the response is stored for; other maps get it resampled.
        response: R, (h, w//2 + 1), initially ones.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.response = nn.Parameter(torch.ones(size[0], size[1] // 2 + 1))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Correlate planes (..., h, w) of any h and w; see `correlate`."""
        return correlate(a, b, self.response_at((a.shape[-2], a.shape[-1])))

    def response_at(self, size: tuple[int, int]) -> Tensor:
        """The response for maps of another size, (h, w//2 + 1)."""
        return resample_response(self.response, self.size, size)

    def as_matrices(self, size: tuple[int, int]) -> MatrixCorrelation:
        """The same correlation for one fixed size, in products with constant matrices."""
        device = self.response.device
        return MatrixCorrelation(size, self.response_at(size).detach()).to(device)


class MatrixCorrelation(nn.Module):
    """The correlation for maps of one size, in real products with constant matrices.

    The transforms are scaled so that each keeps the energy of its input and the true size
    returns with the last factor only. Unscaled, the cross spectrum of a 96 x 96 map exceeds what
    float16 holds; so it stays below about 700.

    Computed in the type of the matrices, whatever the input's: float32 unless asked otherwise.
    """

    analyse_columns: Tensor
    analyse_rows: Tensor
    weight: Tensor
    synthesise_rows: Tensor
    synthesise_columns: Tensor

    def __init__(
        self, size: tuple[int, int], response: Tensor, dtype: torch.dtype = torch.float32
    ) -> None:
        """Build the matrices, in float64, and store them in ``dtype``.

        Args:
            size: (h, w) of the maps.
            response: R, (h, w//2 + 1).
            dtype: of the matrices and of the computation.

        Raises:
            ValueError: if the response is of another grid.
        """
        super().__init__()
        height, width = size
        _check_response(response, height, width)
        bins = width // 2 + 1
        cos_w, sin_w = (table[:, :bins] / math.sqrt(width) for table in _fourier_tables(width))
        cos_h, sin_h = (table / math.sqrt(height) for table in _fourier_tables(height))
        window_h, window_w = hann(height), hann(width)
        tables = {
            "analyse_columns": window_w[:, None] * torch.cat((cos_w, -sin_w), 1),
            "analyse_rows": _complex_product(cos_h * window_h, -sin_h * window_h),
            "weight": _multiplicity(width) * response.detach().cpu().double(),
            "synthesise_rows": _complex_product(cos_h, sin_h),
            "synthesise_columns": torch.cat((cos_w, -sin_w), 1).T,
        }
        for name, table in tables.items():
            self.register_buffer(name, table.to(dtype).contiguous(), persistent=False)
        self._gain = math.sqrt(height * width)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Correlate planes (..., h, w) of the module's size; the result has the matrices' type."""
        planes = torch.cat((a, b)).to(self.weight.dtype)
        left, right = self._analyse(planes).chunk(2)
        left_re, left_im = left.chunk(2, dim=-2)
        right_re, right_im = right.chunk(2, dim=-2)
        cross_re = (left_re * right_re + left_im * right_im) * self.weight
        cross_im = (left_im * right_re - left_re * right_im) * self.weight
        rows = self.synthesise_rows @ torch.cat((cross_re, cross_im), dim=-2)
        side_by_side = rows.unflatten(-2, (2, -1)).transpose(-3, -2).flatten(-2)
        lags: Tensor = side_by_side @ self.synthesise_columns * self._gain
        return lags

    def _analyse(self, planes: Tensor) -> Tensor:
        """Half-plane spectrum, real rows above imaginary rows: (..., 2h, w//2 + 1)."""
        side_by_side = planes @ self.analyse_columns
        stacked = side_by_side.unflatten(-1, (2, -1)).transpose(-3, -2).flatten(-3, -2)
        spectrum: Tensor = self.analyse_rows @ stacked
        return spectrum


def _check_response(response: Tensor, height: int, width: int) -> None:
    expected = (height, width // 2 + 1)
    if tuple(response.shape) != expected:
        raise ValueError(
            f"a response for maps of {height}x{width} is {expected}, got {tuple(response.shape)}; "
            "carry it over with resample_response"
        )


def _negate_rows(response: Tensor) -> Tensor:
    """R(-u mod h, v)."""
    return response.flip(0).roll(1, 0)


def _own_mirror(width: int) -> Tensor:
    """Which columns of the half plane mirror onto themselves, (w//2 + 1,)."""
    column = torch.arange(width // 2 + 1)
    return (2 * column) % width == 0


def _even_response(response: Tensor, width: int) -> Tensor:
    even = 0.5 * (response + _negate_rows(response))
    return torch.where(_own_mirror(width).to(response.device), even, response)


def _multiplicity(width: int) -> Tensor:
    """How many columns of the full plane each column of the half plane stands for."""
    return torch.where(_own_mirror(width), 1.0, 2.0).double()


def _fourier_tables(size: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine of 2 pi jk / size, both (size, size), float64."""
    index = torch.arange(size)
    angle = 2 * math.pi / size * (torch.outer(index, index) % size).double()
    return angle.cos(), angle.sin()


def _complex_product(real: Tensor, imaginary: Tensor) -> Tensor:
    """Matrix that multiplies real rows above imaginary rows by (real + i imaginary)."""
    return torch.cat((torch.cat((real, -imaginary), 1), torch.cat((imaginary, real), 1)))


def _periodic_interpolation(source: int, target: int) -> Tensor:
    """Matrix (target, source) that reads a periodic signal at ``target`` even positions."""
    scaled = torch.arange(target) * source
    below, share = scaled // target, (scaled % target).double() / target
    matrix = torch.zeros(target, source, dtype=torch.float64)
    row = torch.arange(target)
    matrix.index_put_((row, below % source), 1 - share, accumulate=True)
    matrix.index_put_((row, (below + 1) % source), share, accumulate=True)
    return matrix
