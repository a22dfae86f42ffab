"""VIF and Q_ABF, the measures of `mmfusion.metrics.fusion`, as losses.

Both follow that module's definitions, but for the roots in `fidelity_loss`, and for the outermost
ring, which `edge_loss` leaves out: its edges are those of the black beyond the picture.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from mmfusion.metrics.windows import VIF_MIN_SIDE, VIF_NOISE_VARIANCE, VIF_SCALES
from mmfusion.train.sobel import sobel

LEAST_SIDE = VIF_MIN_SIDE
_WHITE = 255.0
_EPS = 1e-10
_LEAST_STRENGTH = 1e-3  # grey levels; an edge has a direction above it


def fidelity_loss(fused: Tensor, infrared: Tensor, visible: Tensor) -> Tensor:
    """1 less the mean root of the visual information fidelity to each source.

    Sheikh and Bovik, TIP 2006, in the pixel domain. Fusions are measured by the plain sum, of
    which a copy of one source has 1, more than most fusions of both; the root of what is kept of
    the poorer source counts for more.

    Args:
        fused: (N, 1, H, W) in [0, 1], sides of at least `LEAST_SIDE`.
        infrared: same shape.
        visible: same shape.
    """
    sources = torch.cat((infrared, visible)).squeeze(1) * _WHITE
    pictures = torch.cat((fused, fused)).squeeze(1) * _WHITE
    # As in the metric: around zero, variances lose fewer digits.
    sources = sources - sources.mean(dim=(1, 2), keepdim=True)
    pictures = pictures - pictures.mean(dim=(1, 2), keepdim=True)
    kept = available = sources.new_zeros(len(sources))
    for scale in range(VIF_SCALES):
        width = 2 ** (VIF_SCALES - scale) + 1
        if scale:
            sources, pictures = (_smooth(x, width)[:, ::2, ::2] for x in (sources, pictures))
        kept_here, available_here = _information(sources, pictures, width)
        kept, available = kept + kept_here, available + available_here
    return 1 - (kept / available.clamp(min=_EPS) + _EPS).sqrt().mean()


def edge_loss(fused: Tensor, infrared: Tensor, visible: Tensor) -> Tensor:
    """1 less Q_ABF, the share of the sources' edges that is kept, mean over the pictures.

    Xydeas and Petrovic, "Objective image fusion performance measure", 2000.

    Args:
        fused: (N, 1, H, W) in [0, 1].
        infrared: same shape.
        visible: same shape.
    """
    sources = torch.stack((infrared, visible)) * _WHITE
    strength, angle = _edges(sources)
    fused_strength, fused_angle = _edges(fused[None] * _WHITE)
    ratio = torch.minimum(strength, fused_strength) / torch.maximum(strength, fused_strength)
    turn = (angle - fused_angle).abs() / (math.pi / 2)
    quality = 0.9994 * torch.sigmoid(15 * (ratio - 0.5))
    quality = quality * 0.9879 * torch.sigmoid(22 * (0.2 - turn))
    # Sources, colour channel, rows and columns: what is left are the pictures.
    kept, weight = (x.sum(dim=(0, 2, 3, 4)) for x in (quality * strength, strength))
    return 1 - (kept / weight).mean()


def _information(source: Tensor, picture: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """What pictures keep of sources at one scale, and what the sources hold: (N,) each."""
    mean_s, mean_p = _smooth(source, width), _smooth(picture, width)
    variance_s = (_smooth(source * source, width) - mean_s**2).clamp(min=0)
    variance_p = (_smooth(picture * picture, width) - mean_p**2).clamp(min=0)
    covariance = _smooth(source * picture, width) - mean_s * mean_p
    gain = (covariance / (variance_s + _EPS)).clamp(min=0)
    noise = (variance_p - gain * covariance).clamp(min=_EPS)
    kept = torch.log1p(gain**2 * variance_s / (noise + VIF_NOISE_VARIANCE))
    available = torch.log1p(variance_s / VIF_NOISE_VARIANCE)
    return kept.sum(dim=(1, 2)), available.sum(dim=(1, 2))


def _edges(images: Tensor) -> tuple[Tensor, Tensor]:
    """Sobel strength and angle, -pi/2..pi/2, of all but the outermost ring."""
    across, down = sobel(images)
    strength = (across**2 + down**2 + _LEAST_STRENGTH**2).sqrt()
    flat = across.abs() < _LEAST_STRENGTH
    angle = torch.atan(down / torch.where(flat, _LEAST_STRENGTH, across))
    return strength, torch.where(flat, math.pi / 2, angle)


def _smooth(images: Tensor, width: int) -> Tensor:
    """Gaussian mean where the whole window lies inside: (N, H, W), ``width - 1`` shorter.

    As products with matrices: on CPUs convolutions of one channel are slow to differentiate.
    """
    height, length = (_window(side, width).to(images) for side in images.shape[-2:])
    return height @ images @ length.T


@cache
def _window(length: int, width: int) -> Tensor:
    """The mean as a matrix, (length - width + 1, length)."""
    offsets = torch.arange(width, dtype=torch.float64) - width // 2
    window = torch.exp(-0.5 * (offsets / (width / 5.0)) ** 2)
    impulses = torch.eye(length, dtype=torch.float64)[:, None]
    return functional.conv1d(impulses, (window / window.sum()).view(1, 1, -1))[:, 0].T
