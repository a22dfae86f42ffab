"""Bytes to values and back: colour, counts, and the thermal display range."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

# Least range adaptation per frame: at 30 Hz a change is followed in about a third of a second,
# while a hot object entering the picture does not make everything else flicker.
RANGE_ADAPTATION = 0.1
RANGE_ADAPTATION_MAX = 0.5
RANGE_TAIL = 0.005  # share of pixels outside the display range on each side
_RANGE_SAMPLES = 3072  # TensorRT's TopK takes at most 3840


class Colour(NamedTuple):
    """A visible image as luma and chroma, each (1, 1, H, W) in [0, 1]."""

    luma: Tensor
    cr: Tensor
    cb: Tensor


def unpack_rgb8(pixels: Tensor) -> Tensor:
    """uint8 (H, W, 3) to float32 (1, 3, H, W) in [0, 1]."""
    return pixels.permute(2, 0, 1)[None].float() / 255


def unpack_counts(raw: Tensor) -> Tensor:
    """uint8 (H, W, 1), or little-endian 16-bit pairs (H, W, 2), to float32 counts (1, 1, H, W).

    TensorRT has no uint16, so sixteen bits arrive as two bytes; float32 holds them exactly.
    """
    counts = raw[..., 0].float()
    if raw.shape[-1] == 2:
        counts = counts + 256 * raw[..., 1].float()
    return counts[None, None]


def split_colour(rgb: Tensor) -> Colour:
    """RGB (1, 3, H, W) to luma and chroma by the rule of S4Fusion (BT.601)."""
    red, green, blue = rgb.split(1, dim=1)
    luma = (0.299 * red + 0.587 * green + 0.114 * blue).clamp(0, 1)
    cr = (0.713 * (red - luma) + 0.5).clamp(0, 1)
    cb = (0.564 * (blue - luma) + 0.5).clamp(0, 1)
    return Colour(luma, cr, cb)


def recombine(colour: Colour) -> Tensor:
    """Undo `split_colour`, with whatever luma was put in: (1, 3, H, W) in [0, 1]."""
    luma, cr, cb = colour.luma, colour.cr - 0.5, colour.cb - 0.5
    rgb = torch.cat((luma + 1.403 * cr, luma - 0.714 * cr - 0.344 * cb, luma + 1.773 * cb), dim=1)
    return rgb.clamp(0, 1)


def pack_uint8(image: Tensor) -> Tensor:
    """Values in [0, 1], (1, C, H, W), to publishable uint8 (H, W, C)."""
    return (image.clamp(0, 1) * 255).round().to(torch.uint8)[0].permute(1, 2, 0)


def next_thermal_range(
    counts: Tensor, previous: Tensor, present: Tensor, min_span: float
) -> Tensor:
    """Low and high count of the display range, carried from frame to frame.

    The picture's own range is the span of all but its lowest and highest `RANGE_TAIL` pixels,
    at least ``min_span`` wide. The carried range moves a tenth of the way towards it per frame,
    up to half of it when they overlap little or one is many times wider, and all of it when
    there is none yet or the whole scene lies outside it.

    Args:
        counts: (1, 1, H, W).
        previous: (2,) low and high of the previous frame; equal values mean none yet.
        present: scalar, 1 if this frame's thermal image is usable; 0 leaves the range as it is.
        min_span: in counts; keeps noise of a uniform scene from filling the display.

    Returns:
        (2,) low and high for this frame and the next call.
    """
    stride = max(1, math.ceil(math.sqrt(counts.shape[-2] * counts.shape[-1] / _RANGE_SAMPLES)))
    samples = counts[0, 0, ::stride, ::stride].flatten()
    tail = max(1, round(RANGE_TAIL * samples.numel()))
    high = samples.topk(tail).values[-1]
    low = -((-samples).topk(tail).values[-1])
    centre, half = (high + low) / 2, ((high - low) / 2).clamp(min=min_span / 2)
    target = torch.stack((centre - half, centre + half))
    span, target_span = previous[1] - previous[0], target[1] - target[0]
    smaller, larger = torch.minimum(span, target_span), torch.maximum(span, target_span)
    shared = torch.minimum(previous[1], target[1]) - torch.maximum(previous[0], target[0])
    urgency = torch.maximum(1 - shared / smaller, RANGE_ADAPTATION * larger / smaller)
    share = urgency.clamp(RANGE_ADAPTATION, RANGE_ADAPTATION_MAX)
    blind = (span <= 0) | (shared <= 0)
    return previous + torch.where(blind, 1.0, share) * present * (target - previous)


def normalise_counts(counts: Tensor, display_range: Tensor) -> Tensor:
    """Counts to [0, 1] within a display range (2,)."""
    span = (display_range[1] - display_range[0]).clamp(min=1e-6)
    return ((counts - display_range[0]) / span).clamp(0, 1)
