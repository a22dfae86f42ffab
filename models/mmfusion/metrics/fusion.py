"""How good is a fused picture? Nine classic full-size measures, without a network.

Each measure compares a fused picture F with the infrared picture A and the visible picture B it
was made from (EN, SD, SF and AG look at F alone). All pictures are single channel, ``(H, W)``,
grey levels 0..255; ``uint8`` is welcome and is cast to ``float64`` before anything is squared,
because squares of ``uint8`` wrap silently. Higher is better for all of them, with care: SD, SF
and AG also rise with noise.

Sources of the definitions:
    EN, SD, SF, AG, SCD: as infrared-visible fusion papers share them; SCD after Aslantas and
        Bendes, "A new image quality metric for image fusion: the sum of the correlations of
        differences", AEU 2015.
    MI: Qu, Zhang and Yan, "Information measure for performance of image fusion", 2002. In nats.
    VIF: Sheikh and Bovik, "Image information and visual quality", TIP 2006, pixel domain; the
        source is the reference and the fused picture the distorted one, summed over the sources.
    Q_ABF: Xydeas and Petrovic, "Objective image fusion performance measure", 2000.
    SSIM: Wang et al., "Image quality assessment: from error visibility to structural similarity",
        TIP 2004, summed over the sources.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from mmfusion.metrics.pictures import FloatImage, MetricError, grey, pair, triple
from mmfusion.metrics.windows import ssim, vif

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

LEVELS: Final = 256
_SMOOTHING: Final = np.array([1.0, 2.0, 1.0])
_DERIVATIVE: Final = np.array([-1.0, 0.0, 1.0])


def entropy(fused: NDArray[Any]) -> float:
    """EN: Shannon entropy of the rounded grey levels, in bits (0..8)."""
    levels = np.rint(grey(fused, "fused")).astype(np.intp)
    counts = np.bincount(levels.ravel(), minlength=LEVELS)
    share = counts[counts > 0] / levels.size
    return float(-(share * np.log2(share)).sum()) + 0.0  # + 0.0 turns -0.0 into 0.0


def standard_deviation(fused: NDArray[Any]) -> float:
    """SD: population standard deviation, in grey levels."""
    return float(grey(fused, "fused").std())


def spatial_frequency(fused: NDArray[Any]) -> float:
    """SF: root of the mean squared horizontal plus vertical neighbour difference.

    Each direction is averaged over the pairs it has, ``H (W - 1)`` and ``(H - 1) W``.
    """
    image = grey(fused, "fused")
    rows = _mean_square(image[:, 1:] - image[:, :-1])
    columns = _mean_square(image[1:] - image[:-1])
    return float(np.sqrt(rows + columns))


def average_gradient(fused: NDArray[Any]) -> float:
    """AG: mean over all pixels of ``sqrt((gx^2 + gy^2) / 2)``.

    Differences are central inside and one-sided on the border.
    """
    image = grey(fused, "fused")
    energy = np.square(_differences(image, axis=1))
    energy += np.square(_differences(image, axis=0))
    energy *= 0.5
    return float(np.sqrt(energy, out=energy).mean())


def mutual_information(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Mutual information of two pictures in nats, from a 256 x 256 joint histogram of unit bins.

    Biased upwards by some tenths of a nat on small noisy pictures, so compare only figures made
    at one picture size. The MI of a fusion is the sum over its two sources.
    """
    first, second = pair(first, second)
    index = first.astype(np.intp).ravel()
    index *= LEVELS
    index += second.astype(np.intp).ravel()
    joint = np.bincount(index, minlength=LEVELS * LEVELS).reshape(LEVELS, LEVELS) / index.size
    row, column = np.nonzero(joint)
    share = joint[row, column]
    independent = joint.sum(axis=1)[row] * joint.sum(axis=0)[column]
    return float((share * np.log(share / independent)).sum())


def correlation_of_differences(
    fused: NDArray[Any], infrared: NDArray[Any], visible: NDArray[Any]
) -> float:
    """SCD: ``r(F - B, A) + r(F - A, B)`` with Pearson's r, in -2..2.

    Returns:
        The sum, or NaN where a term has no variance (F equal to a source, a constant source).
    """
    image, first, second = triple(fused, infrared, visible)
    return _correlation(image - second, first) + _correlation(image - first, second)


def visual_information_fidelity(fused: NDArray[Any], source: NDArray[Any]) -> float:
    """Pixel-domain VIF of the fused picture with one source as the reference.

    The VIF of a fusion is the sum over its two sources.

    Returns:
        1 for F equal to the source, 0 for a constant F, NaN for a constant source.
    """
    image, reference = pair(fused, source)
    return vif(image, (reference,))[0]


def structural_similarity(fused: NDArray[Any], source: NDArray[Any]) -> float:
    """SSIM with one source: Gaussian window 11 x 11, sigma 1.5, range 255, whole windows only.

    The SSIM of a fusion is the sum over its two sources.
    """
    image, reference = pair(fused, source)
    return ssim(image, (reference,))[0]


def edge_preservation(fused: NDArray[Any], infrared: NDArray[Any], visible: NDArray[Any]) -> float:
    """Q_ABF: how much of the sources' edge strength and direction the fused picture keeps.

    The Sobel filter sees zeros outside the picture, so the outermost ring holds strong false
    edges; that belongs to the published definition. A perfect fusion scores 0.974794, not 1.

    Returns:
        The measure in 0..0.975, or NaN where neither source has any gradient.
    """
    image, *sources = triple(fused, infrared, visible)
    strength, angle = _edges(image)
    kept = weight = 0.0
    for source in sources:
        source_strength, source_angle = _edges(source)
        quality = _edge_quality(source_strength, source_angle, strength, angle)
        kept += float(np.vdot(quality, source_strength))
        weight += float(source_strength.sum())
    return kept / weight if weight > 0.0 else float("nan")


FUSION_METRICS: Final = ("EN", "SD", "SF", "AG", "MI", "SCD", "VIF", "Q_ABF", "SSIM")
"""What `fusion_metrics` reports unless told otherwise."""

_ALONE: Final[dict[str, Callable[[NDArray[Any]], float]]] = {
    "EN": entropy,
    "SD": standard_deviation,
    "SF": spatial_frequency,
    "AG": average_gradient,
}
_BOTH: Final[dict[str, Callable[[NDArray[Any], NDArray[Any], NDArray[Any]], float]]] = {
    "SCD": correlation_of_differences,
    "Q_ABF": edge_preservation,
}
_SUMMED: Final = ("MI", "VIF", "SSIM")  # also reported by source, as MI_ir, MI_vi and so on
_KNOWN: Final = (*FUSION_METRICS, *(f"{name}_{part}" for name in _SUMMED for part in ("ir", "vi")))


def fusion_metrics(
    fused: NDArray[Any],
    infrared: NDArray[Any],
    visible: NDArray[Any],
    names: Iterable[str] | None = None,
) -> dict[str, float]:
    """Measure one fused picture; work that both sources need is done once.

    Args:
        fused: ``(H, W)`` picture, grey levels 0..255, any integer or float dtype.
        infrared: source A, same size.
        visible: source B, same size.
        names: which measures, in the order wanted; by default `FUSION_METRICS`. The three that
            are sums over the sources are known by source too: ``MI_ir``, ``VIF_vi``, ...

    Returns:
        Name to value. Undefined values are NaN (see the single functions).

    Raises:
        MetricError: sizes differ, a picture is too small, not grey, or not within 0..255, or a
            name is unknown.
    """
    wanted = FUSION_METRICS if names is None else tuple(names)
    for name in wanted:
        if name not in _KNOWN:
            raise MetricError(f"unknown fusion metric {name!r}; known are {', '.join(_KNOWN)}")
    image, first, second = triple(fused, infrared, visible)
    parts: dict[str, tuple[float, float]] = {}
    for name in _SUMMED:
        if any(entry.split("_")[0] == name for entry in wanted):
            parts[name] = _by_source(name, image, first, second)
    result: dict[str, float] = {}
    for name in wanted:
        base, _, part = name.partition("_")
        if name in _ALONE:
            result[name] = _ALONE[name](image)
        elif name in _BOTH:
            result[name] = _BOTH[name](image, first, second)
        elif part:
            result[name] = parts[base][0 if part == "ir" else 1]
        else:
            result[name] = sum(parts[base])
    return result


def _by_source(
    name: str, image: FloatImage, first: FloatImage, second: FloatImage
) -> tuple[float, float]:
    """One summed measure's two parts, (infrared, visible)."""
    if name == "MI":
        return mutual_information(image, first), mutual_information(image, second)
    infrared, visible = (vif if name == "VIF" else ssim)(image, (first, second))
    return infrared, visible


def _edges(image: FloatImage) -> tuple[FloatImage, FloatImage]:
    """Sobel edge strength and angle of each pixel, zeros outside the picture.

    Returns:
        Strength >= 0 and angle in -pi/2..pi/2, both ``(H, W)``; +pi/2 where the horizontal part
        is zero. The horizontal part counts left minus right and the vertical part bottom minus
        top: with another sign the +pi/2 case would fall differently.
    """
    border = cv2.BORDER_CONSTANT
    across = np.asarray(
        cv2.sepFilter2D(image, cv2.CV_64F, -_DERIVATIVE, _SMOOTHING, borderType=border), np.float64
    )
    along = np.asarray(
        cv2.sepFilter2D(image, cv2.CV_64F, _SMOOTHING, _DERIVATIVE, borderType=border), np.float64
    )
    strength = np.sqrt(across * across + along * along)
    vertical = across == 0.0
    across[vertical] = 1.0
    along /= across
    angle = np.arctan(along, out=along)
    angle[vertical] = np.pi / 2.0
    return strength, angle


def _edge_quality(
    source_strength: FloatImage, source_angle: FloatImage, strength: FloatImage, angle: FloatImage
) -> FloatImage:
    """How well each edge of a source is kept: the product of two sigmoids, in 0..0.975."""
    high = np.maximum(source_strength, strength)
    low = np.minimum(source_strength, strength)
    # Both zero: equal, hence a ratio of one.
    both_flat = high == 0.0
    high[both_flat] = 1.0
    low[both_flat] = 1.0
    low /= high
    low -= 0.5
    low *= -15.0
    quality = np.exp(low, out=low)
    quality += 1.0

    turn = source_angle - angle
    np.abs(turn, out=turn)
    turn *= 22.0 / (np.pi / 2.0)
    turn -= 22.0 * (1.0 - 0.8)
    np.exp(turn, out=turn)
    turn += 1.0

    quality *= turn
    preserved: FloatImage = np.divide(0.9994 * 0.9879, quality, out=quality)
    return preserved


def _differences(image: FloatImage, axis: int) -> FloatImage:
    """First differences along an axis, central inside and one-sided at both ends."""
    image = np.moveaxis(image, axis, 0)
    result = np.empty_like(image)
    np.subtract(image[2:], image[:-2], out=result[1:-1])
    result[1:-1] *= 0.5
    np.subtract(image[1], image[0], out=result[0])
    np.subtract(image[-1], image[-2], out=result[-1])
    return np.moveaxis(result, 0, axis)


def _mean_square(values: FloatImage) -> float:
    return float(np.square(values).mean())


def _correlation(first: FloatImage, second: FloatImage) -> float:
    """Pearson's r over all pixels; NaN where one side does not vary."""
    first = first - first.mean()
    second = second - second.mean()
    scale = float(np.sqrt(np.vdot(first, first) * np.vdot(second, second)))
    return float(np.vdot(first, second)) / scale if scale > 0.0 else float("nan")
