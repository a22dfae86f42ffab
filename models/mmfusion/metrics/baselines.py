"""Fusions anyone can write, to read figures against."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
_PYRAMID_LEVELS = 5


def average_fusion(infrared: Picture, visible: Picture) -> Picture:
    """Pixel-wise mean of two uint8 pictures of one shape, halves rounded up."""
    total = infrared.astype(np.uint16) + visible + 1
    return (total // 2).astype(np.uint8)


def maximum_fusion(infrared: Picture, visible: Picture) -> Picture:
    """Pixel-wise maximum of two uint8 pictures of one shape."""
    brighter: Picture = np.maximum(infrared, visible)
    return brighter


def pyramid_fusion(infrared: Picture, visible: Picture) -> Picture:
    """Fusion of Laplacian pyramids of two uint8 pictures of one shape.

    Of each detail the stronger one, and the mean of what is left at a 32nd of the size, or before
    that where a side would be shorter than two pixels. After Burt and Adelson, "The Laplacian
    Pyramid as a Compact Image Code", 1983, and Burt and Kolczynski, ICCV 1993, without its
    windows.
    """
    left: list[NDArray[np.float32]] = [image.astype(np.float32) for image in (infrared, visible)]
    details = []
    for _ in range(_PYRAMID_LEVELS):
        if min(left[0].shape) < 4:
            break
        smaller = [np.asarray(cv2.pyrDown(image), np.float32) for image in left]
        first, second = (
            image - cv2.pyrUp(small, dstsize=image.shape[::-1])
            for image, small in zip(left, smaller, strict=True)
        )
        details.append(np.where(np.abs(first) > np.abs(second), first, second))
        left = smaller
    fused = (left[0] + left[1]) / 2
    for detail in reversed(details):
        fused = detail + cv2.pyrUp(fused, dstsize=detail.shape[::-1])
    picture: Picture = np.rint(fused.clip(0, 255)).astype(np.uint8)
    return picture
