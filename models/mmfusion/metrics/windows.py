"""Measures made of local statistics under a Gaussian window: VIF and SSIM.

Both look only at positions where the whole window lies inside the picture.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from mmfusion.metrics.pictures import FloatImage, MetricError, size

SSIM_WINDOW: Final = 11
SSIM_SIGMA: Final = 1.5
VIF_SCALES: Final = 4
VIF_MIN_SIDE: Final = 41  # the fourth scale still fits its 3 x 3 window
VIF_NOISE_VARIANCE: Final = 2.0
VIF_EPS: Final = 1e-10


def vif(image: FloatImage, references: tuple[FloatImage, ...]) -> list[float]:
    """VIF of one picture against several references, sharing the picture's pyramid and moments."""
    if min(image.shape) < VIF_MIN_SIDE:
        raise MetricError(
            f"VIF needs sides of at least {VIF_MIN_SIDE} pixels, the pictures are "
            f"{size(image)}; leave VIF out through names="
        )
    # Variances do not change with a shift. Around zero they lose fewer digits, and a constant
    # picture has a variance of exactly zero.
    image = image - image.mean()
    levels = [reference - reference.mean() for reference in references]
    information = [0.0] * len(levels)
    available = [0.0] * len(levels)
    for scale in range(VIF_SCALES):
        window = 2 ** (VIF_SCALES - scale) + 1
        kernel = gaussian(window, window / 5.0)
        if scale > 0:
            image = smooth(image, kernel)[::2, ::2]
            levels = [smooth(level, kernel)[::2, ::2] for level in levels]
        mean, variance = moments(image, kernel)
        for i, level in enumerate(levels):
            kept, total = _vif_terms(level, image, mean, variance, kernel)
            information[i] += kept
            available[i] += total
    return [
        kept / total if total > 0.0 else float("nan")
        for kept, total in zip(information, available, strict=True)
    ]


def _vif_terms(
    reference: FloatImage,
    image: FloatImage,
    mean: FloatImage,
    variance: FloatImage,
    kernel: FloatImage,
) -> tuple[float, float]:
    """Sums over one scale of the information kept by the image and held by the reference."""
    reference_mean, reference_variance = moments(reference, kernel)
    covariance = smooth(reference * image, kernel)
    covariance -= reference_mean * mean

    gain = covariance / (reference_variance + VIF_EPS)
    noise = variance - gain * covariance
    # The order of these rules matters: a later one may overrule an earlier one.
    flat = reference_variance < VIF_EPS
    gain[flat] = 0.0
    noise[flat] = variance[flat]
    reference_variance[flat] = 0.0
    flat = variance < VIF_EPS
    gain[flat] = 0.0
    noise[flat] = 0.0
    inverse = gain < 0.0
    noise[inverse] = variance[inverse]
    gain[inverse] = 0.0
    np.maximum(noise, VIF_EPS, out=noise)

    noise += VIF_NOISE_VARIANCE
    gain *= gain
    gain *= reference_variance
    gain /= noise
    reference_variance *= 1.0 / VIF_NOISE_VARIANCE
    # The ratio of the two sums is free of the logarithm's base.
    return float(np.log1p(gain).sum()), float(np.log1p(reference_variance).sum())


def ssim(image: FloatImage, references: tuple[FloatImage, ...]) -> list[float]:
    """SSIM of one picture against several references, sharing the picture's moments."""
    if min(image.shape) < SSIM_WINDOW:
        raise MetricError(
            f"SSIM needs sides of at least {SSIM_WINDOW} pixels, the pictures are "
            f"{size(image)}; leave SSIM out through names="
        )
    luminance, contrast = (0.01 * 255.0) ** 2, (0.03 * 255.0) ** 2
    kernel = gaussian(SSIM_WINDOW, SSIM_SIGMA)
    mean, variance = moments(image, kernel)
    result = []
    for reference in references:
        other_mean, other_variance = moments(reference, kernel)
        product = mean * other_mean
        covariance = smooth(image * reference, kernel)
        covariance -= product
        top = (2.0 * product + luminance) * (2.0 * covariance + contrast)
        bottom = np.square(mean) + np.square(other_mean) + luminance
        bottom *= variance + other_variance + contrast
        result.append(float((top / bottom).mean()))
    return result


def gaussian(size: int, sigma: float) -> FloatImage:
    """A Gaussian window of odd ``size``, sum one; its outer product is the 2-D window."""
    offset = np.arange(size, dtype=np.float64) - (size - 1) / 2.0
    window = np.exp(-0.5 * np.square(offset / sigma))
    return np.asarray(window / window.sum(), np.float64)


def smooth(image: FloatImage, kernel: FloatImage) -> FloatImage:
    """Weighted local mean at the positions where the whole window lies inside the picture."""
    radius = kernel.size // 2
    full = cv2.sepFilter2D(image, cv2.CV_64F, kernel, kernel, borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(full, np.float64)[radius:-radius, radius:-radius]


def moments(image: FloatImage, kernel: FloatImage) -> tuple[FloatImage, FloatImage]:
    """Local mean and local variance (never below zero)."""
    mean = smooth(image, kernel)
    variance = smooth(np.square(image), kernel)
    variance -= np.square(mean)
    return mean, np.maximum(variance, 0.0, out=variance)
