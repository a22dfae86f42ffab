"""What goes wrong with a robot's cameras, done to training samples.

A network that has met it in training can be relied on when a camera stalls, shakes or drifts.
What stands in for a missing picture is what a compiled graph shows in its place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional as nn_functional
from torchvision.transforms import v2  # type: ignore[import-untyped]
from torchvision.transforms.v2 import functional  # type: ignore[import-untyped]

from mmfusion.errors import DataError
from mmfusion.train.recipes import STRICT, Share, Weight

MODALITIES = ("rgb", "depth", "thermal")  # in the order of a graph's present flags

_LUMA = (0.299, 0.587, 0.114)
_FROZEN_SHIFT = 0.1  # of each side: how far a scene may have moved on from a frozen frame
_HOLE = 16  # pixels, about as wide as holes in depth are
# What makes each fault felt, of which one at least must be above 0.
_STRENGTHS = {
    "noise": ("noise_sigma",),
    "blur": ("blur_sigma",),
    "misregistered": ("misregistration_pixels", "misregistration_degrees"),
    "holes": ("holes_share",),
}


@dataclass(config=STRICT, frozen=True, kw_only=True)
class Degradation:
    """How often each fault happens to a sample, and how strongly; nothing by default.

    Attributes:
        drop_rgb, drop_depth, drop_thermal: probability that the picture is missing; of all that
            a sample has, one is always left, ``rgb`` if there is.
        noise_rgb, noise_depth, noise_thermal: probability of Gaussian noise.
        noise_sigma: its largest deviation, as a share of white; of depth, of the distance.
        blur_rgb, blur_thermal: probability of Gaussian blur.
        blur_sigma: its largest deviation, pixels.
        misregistered_depth, misregistered_thermal: probability that the picture is shifted and
            turned against ``rgb``, whose frame masks and boxes are in.
        misregistration_pixels, misregistration_degrees: the most it is, either way.
        frozen_depth, frozen_thermal: probability that the picture is an old one, unnoticed.
        holes_depth: probability that depth has holes besides those it has.
        holes_share: the most of its pixels that they take, 0..1.

    Raises:
        DataError: if a fault is given a probability but no strength.
    """

    drop_rgb: Share = 0.0
    drop_depth: Share = 0.0
    drop_thermal: Share = 0.0
    noise_rgb: Share = 0.0
    noise_depth: Share = 0.0
    noise_thermal: Share = 0.0
    noise_sigma: Weight = 0.0
    blur_rgb: Share = 0.0
    blur_thermal: Share = 0.0
    blur_sigma: Weight = 0.0
    misregistered_depth: Share = 0.0
    misregistered_thermal: Share = 0.0
    misregistration_pixels: Weight = 0.0
    misregistration_degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    frozen_depth: Share = 0.0
    frozen_thermal: Share = 0.0
    holes_depth: Share = 0.0
    holes_share: Share = 0.0

    def __post_init__(self) -> None:
        strengths = {name for names in _STRENGTHS.values() for name in names}
        for name, value in asdict(self).items():
            needed = _STRENGTHS.get(name.split("_")[0], ())
            if (
                name not in strengths
                and value
                and needed
                and not any(getattr(self, strength) for strength in needed)
            ):
                raise DataError(
                    f"degradation {name} is {value:g} but {' and '.join(needed)} 0; expected a "
                    "strength, or no probability"
                )


def degrade(
    sample: Mapping[str, Tensor],
    how: Degradation,
    rng: np.random.Generator,
    white: float = 1.0,
) -> dict[str, Tensor]:
    """Do to a sample what cameras do.

    A frozen picture is the sample's own, shifted by up to a tenth of its sides: a scene has moved
    on a little since.

    Args:
        sample: some of ``rgb`` (3, H, W), or (1, H, W) if it is luma alone, and ``thermal``
            (1, H, W), floats from 0 to ``white``; and ``depth`` (1, h, w), metres, 0 = unknown.
            Other entries, such as masks and boxes, stay as they are.
        how: to degrade it.
        rng: source of all randomness.
        white: 1 or 255.

    Returns:
        A new sample, and as ``present`` (3,) 1 where rgb, depth and thermal are usable, else 0.
        Missing thermal, and what misregistration takes out of its sight, is the luma of ``rgb``;
        missing ``rgb`` is ``thermal``, or 0 if there is none; missing depth is 0.
    """
    seen = {name: sample[name].as_subclass(Tensor) for name in MODALITIES if name in sample}
    in_sight = torch.ones_like(seen["thermal"]) if "thermal" in seen else None

    def strikes(fault: str, name: str) -> bool:
        return name in seen and rng.random() < getattr(how, f"{fault}_{name}")

    for name in ("depth", "thermal"):
        if strikes("frozen", name):
            seen[name] = _frozen(seen[name], rng)
        if strikes("misregistered", name):
            pixels, degrees = how.misregistration_pixels, how.misregistration_degrees
            shift, angle = rng.uniform(-pixels, pixels, 2).tolist(), rng.uniform(-degrees, degrees)
            seen[name] = _moved(seen[name], shift, angle, smooth=name == "thermal")
            if name == "thermal" and in_sight is not None:
                in_sight = _moved(in_sight, shift, angle, smooth=True)
                seen[name] = seen[name] / in_sight.clamp(min=1e-3)  # no darkness mixed in
    for name in ("rgb", "thermal"):
        if strikes("blur", name):
            seen[name] = _blurred(seen[name], rng.uniform(0, how.blur_sigma))
    for name in MODALITIES:
        if strikes("noise", name):
            noise = rng.uniform(0, how.noise_sigma) * _normal(seen[name], rng)
            seen[name] = (
                (seen[name] * (1 + noise)).clamp(min=0)
                if name == "depth"
                else (seen[name] + white * noise).clamp(0, white)
            )
    if strikes("holes", "depth"):
        seen["depth"] = seen["depth"] * _whole(seen["depth"], rng.uniform(0, how.holes_share), rng)
    missing = [name for name in MODALITIES if strikes("drop", name)]
    if len(missing) == len(seen):
        missing = missing[1:]
    present = torch.tensor([float(name in seen and name not in missing) for name in MODALITIES])
    return {**sample, **_stand_in(seen, in_sight, missing), "present": present}


def _stand_in(
    seen: Mapping[str, Tensor], in_sight: Tensor | None, missing: list[str]
) -> dict[str, Tensor]:
    """Let pictures stand in for others where those are missing, as a compiled graph does."""
    shown = {n: torch.zeros_like(p) if n in missing else p for n, p in seen.items()}
    if in_sight is None:
        return shown
    thermal = shown["thermal"] * in_sight
    if "rgb" in shown:
        if "rgb" in missing:
            shown["rgb"] = thermal.expand_as(shown["rgb"])
        if "thermal" in missing:
            in_sight = torch.zeros_like(in_sight)
        thermal = thermal + (1 - in_sight) * _luma(shown["rgb"])
    return {**shown, "thermal": thermal}


def _luma(rgb: Tensor) -> Tensor:
    if len(rgb) == 1:
        return rgb
    return (rgb * rgb.new_tensor(_LUMA)[:, None, None]).sum(dim=0, keepdim=True)


def _frozen(picture: Tensor, rng: np.random.Generator) -> Tensor:
    height, width = picture.shape[-2:]
    down, right = (
        int(side * rng.uniform(-_FROZEN_SHIFT, _FROZEN_SHIFT)) for side in (height, width)
    )
    rows, columns = torch.arange(height) - down, torch.arange(width) - right
    # What has left the sight of this frame is not known; its edges are the best guess.
    moved: Tensor = picture[..., rows.clamp(0, height - 1), :]
    return moved[..., columns.clamp(0, width - 1)]


def _moved(picture: Tensor, shift: list[float], angle: float, *, smooth: bool) -> Tensor:
    """Shifted by (x, y) pixels and turned; 0 comes into sight."""
    mode = v2.InterpolationMode.BILINEAR if smooth else v2.InterpolationMode.NEAREST
    moved: Tensor = functional.affine(picture, angle, shift, 1.0, [0.0, 0.0], interpolation=mode)
    return moved


def _blurred(picture: Tensor, sigma: float) -> Tensor:
    # Three deviations each way; what is reflected at the edges must lie in the picture.
    reach = min(math.ceil(3 * sigma), *(side - 1 for side in picture.shape[-2:]))
    if reach < 1:
        return picture
    blurred: Tensor = functional.gaussian_blur(picture, [2 * reach + 1] * 2, [sigma] * 2)
    return blurred


def _normal(picture: Tensor, rng: np.random.Generator) -> Tensor:
    return torch.from_numpy(rng.standard_normal(picture.shape, np.float32))


def _whole(depth: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """0 in blotches that take a share of the picture, else 1."""
    height, width = depth.shape[-2:]
    coarse = rng.standard_normal((1, 1, height // _HOLE + 2, width // _HOLE + 2), np.float32)
    smooth = nn_functional.interpolate(
        torch.from_numpy(coarse), (height, width), mode="bilinear", align_corners=True
    )[0]
    return (smooth >= smooth.quantile(share)).to(depth)
