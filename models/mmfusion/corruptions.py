"""What befalls one camera in the robustness protocol, see docs/evaluate.md.

A stream is an image in [0, 1] with a mask of what is known of it. Of a colour image all is known
at first, and black is what stands where nothing is known any more; of depth, the mask says where
there is a value, and the image is its closeness (`closeness_of`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]
Pixels = NDArray[Any]

# Side of a square hole as a share of the image's shorter side.
_HOLE_SIDE = 1 / 16
_LEAST_KNOWN = 1e-3


@dataclass(frozen=True)
class Stream:
    """What one camera shows.

    Attributes:
        image: float32 (H, W) or (H, W, 3) in [0, 1], 0 where nothing is known.
        known: bool (H, W).
    """

    image: Image
    known: Mask


@dataclass(frozen=True)
class Corruption:
    """One kind of fault.

    Attributes:
        name: of the fault.
        meaning: of a level, for axes.
        levels: from mild to severe.
        drawn: whether chance decides; if not, the generator is left alone.
        apply: the fault itself, of a level.
    """

    name: str
    meaning: str
    levels: tuple[float, ...]
    drawn: bool
    apply: Callable[[Stream, float, np.random.Generator], Stream]


def add_noise(stream: Stream, sigma: float, rng: np.random.Generator) -> Stream:
    """Gaussian noise of a standard deviation on what is known, each channel by itself, clipped."""
    noise = rng.standard_normal(stream.image.shape, np.float32)
    return _masked(np.clip(stream.image + sigma * noise, 0, 1), stream.known)


def cut_holes(stream: Stream, share: float, rng: np.random.Generator) -> Stream:
    """Square holes at random, until a share of the image is covered.

    They may overlap and reach beyond the border. With the same generator, a larger share has the
    holes of a smaller one and more.
    """
    height, width = stream.known.shape
    side = max(1, round(_HOLE_SIDE * min(height, width)))
    cut = np.zeros((height, width), bool)
    covered = 0
    while covered < share * cut.size:
        top, left = rng.integers(1 - side, (height, width))
        window = cut[max(0, top) : top + side, max(0, left) : left + side]
        covered += int(window.size - window.sum())
        window[:] = True
    return _masked(stream.image, stream.known & ~cut)


def blur(stream: Stream, sigma: float) -> Stream:
    """Gaussian blur of a standard deviation in pixels, averaging over what is known alone."""
    weight = _gaussian(stream.known.astype(np.float32), sigma)
    weight = np.maximum(weight, _LEAST_KNOWN)
    mean = _gaussian(stream.image, sigma) / _like(weight, stream.image)
    return _masked(np.clip(mean, 0, 1), stream.known)


def shift(stream: Stream, pixels: int) -> Stream:
    """Moved to the right, as by a registration that is off; nothing is known of what is bared."""
    image, known = np.zeros_like(stream.image), np.zeros_like(stream.known)
    image[:, pixels:] = stream.image[:, :-pixels]
    known[:, pixels:] = stream.known[:, :-pixels]
    return Stream(image, known)


def lose(stream: Stream) -> Stream:
    """Nothing at all."""
    return Stream(np.zeros_like(stream.image), np.zeros_like(stream.known))


CORRUPTIONS = (
    Corruption("noise", "sigma", (0.05, 0.1, 0.2, 0.4), drawn=True, apply=add_noise),
    Corruption("holes", "share", (0.1, 0.25, 0.5, 0.75), drawn=True, apply=cut_holes),
    Corruption("blur", "sigma, px", (2, 4, 8), drawn=False, apply=lambda s, x, _: blur(s, x)),
    Corruption("shift", "px", (4, 8, 16), drawn=False, apply=lambda s, x, _: shift(s, int(x))),
    Corruption("lost", "share", (1,), drawn=False, apply=lambda s, _x, _: lose(s)),
)


def closeness_of(metres: Image, near_m: float, far_m: float) -> Image:
    """Depth as saliency networks see it: 1 at the near end of their range, 0 at the far one.

    Linear in inverse depth between and clipped beyond, as in `DepthMapping`.

    Args:
        metres: float32 (H, W), positive where known.
        near_m: see `DepthRange`.
        far_m: likewise.

    Returns:
        float32 (H, W) in [0, 1].
    """
    inverse = 1 / np.clip(metres, near_m, far_m)
    closeness: Image = ((inverse - 1 / far_m) / (1 / near_m - 1 / far_m)).astype(np.float32)
    return closeness


def metres_of(closeness: Image, near_m: float, far_m: float) -> Image:
    """Depth in metres that has this closeness, the inverse of `closeness_of` within the range."""
    metres: Image = (1 / (closeness * (1 / near_m - 1 / far_m) + 1 / far_m)).astype(np.float32)
    return metres


def _masked(image: Image, known: Mask) -> Stream:
    return Stream(np.where(_like(known, image), image, 0).astype(np.float32), known)


def _like(mask: Pixels, image: Image) -> Pixels:
    """The mask with a channel axis if the image has one."""
    return mask[..., None] if image.ndim == 3 else mask


def _gaussian(image: Image, sigma: float) -> Image:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.float32)  # borders are reflected
