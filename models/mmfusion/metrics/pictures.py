"""What may be measured: channel choices and checks of the pictures."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mmfusion.errors import MmfusionError

FloatImage = NDArray[np.float64]


class MetricError(MmfusionError, ValueError):
    """A picture cannot be measured as given; the message says which and why."""


def luma(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Luma Y = 0.299 R + 0.587 G + 0.114 B, the channel most papers measure.

    Args:
        rgb: ``(H, W, 3)`` uint8 in R, G, B order, or ``(H, W)`` uint8, which is its own luma.

    Returns:
        ``(H, W)`` uint8.
    """
    rgb = _colour(rgb)
    if rgb.ndim == 2:
        return rgb
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY), np.uint8)


def value(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """V of HSV = max(R, G, B), the channel EfficientMFD measures.

    Args:
        rgb: ``(H, W, 3)`` uint8 in R, G, B order, or ``(H, W)`` uint8, which is its own value.

    Returns:
        ``(H, W)`` uint8.
    """
    rgb = _colour(rgb)
    if rgb.ndim == 2:
        return rgb
    # Two pairwise maxima run several times faster than a reduction over a short last axis.
    largest: NDArray[np.uint8] = np.maximum(np.maximum(rgb[..., 0], rgb[..., 1]), rgb[..., 2])
    return largest


def grey(image: NDArray[Any], name: str) -> FloatImage:
    """A checked ``float64`` view or copy of one picture."""
    image = np.asarray(image)
    if image.ndim != 2:
        raise MetricError(
            f"{name} has shape {image.shape}, expected one channel (H, W); "
            "choose one with luma() or value()"
        )
    if min(image.shape) < 2:
        raise MetricError(f"{name} is {size(image)}, a side needs at least 2 pixels")
    if image.dtype == np.uint8:
        return image.astype(np.float64)
    if image.dtype.kind not in "iuf":
        raise MetricError(f"{name} has dtype {image.dtype}, expected integers or floats in 0..255")
    low, high = float(image.min()), float(image.max())
    if not (low >= 0.0 and high <= 255.0):  # also true for NaN
        raise MetricError(f"{name} holds {low:g}..{high:g}, expected finite grey levels in 0..255")
    return np.asarray(image, np.float64)


def pair(first: NDArray[Any], second: NDArray[Any]) -> tuple[FloatImage, FloatImage]:
    """Two checked pictures of one size."""
    one, two = grey(first, "the first picture"), grey(second, "the second picture")
    if one.shape != two.shape:
        raise MetricError(
            f"the pictures are {size(one)} and {size(two)}; bring them to one size first, "
            "nothing is resized here"
        )
    return one, two


def triple(
    fused: NDArray[Any], infrared: NDArray[Any], visible: NDArray[Any]
) -> tuple[FloatImage, FloatImage, FloatImage]:
    """A fused picture and its two sources, checked and of one size."""
    image = grey(fused, "fused")
    sources = grey(infrared, "infrared"), grey(visible, "visible")
    for name, source in zip(("infrared", "visible"), sources, strict=True):
        if source.shape != image.shape:
            raise MetricError(
                f"fused is {size(image)} but {name} is {size(source)}; bring them to one size "
                "first, nothing is resized here"
            )
    return image, *sources


def _colour(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    rgb = np.asarray(rgb)
    if rgb.dtype != np.uint8 or not (rgb.ndim == 2 or (rgb.ndim == 3 and rgb.shape[2] == 3)):
        raise MetricError(
            f"got {rgb.dtype} of shape {rgb.shape}, expected uint8 (H, W, 3) or (H, W)"
        )
    return rgb


def size(image: NDArray[Any]) -> str:
    """Width and height for messages, as in ``640x480``."""
    return f"{image.shape[1]}x{image.shape[0]}"
