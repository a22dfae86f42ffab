"""Paired augmentation: what moves one picture of a sample moves all of them.

A sample is a dictionary of torchvision's ``tv_tensors``, which say how each entry moves:

* ``rgb``: Image (3, H, W), or (1, H, W) if it is luma alone.
* ``thermal``: Image (1, H, W).
* ``depth``: Mask (1, H, W), 0 = unknown. No depth is ever invented between two others.
* ``mask``: Mask (1, H, W), of what stands out.
* ``boxes``: BoundingBoxes (n, 4), corners in pixels, with ``labels`` (n,).

All may be absent; other entries pass through. All randomness comes from a NumPy generator, so a
seed decides a training whatever else draws from PyTorch's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor
from torchvision import tv_tensors  # type: ignore[import-untyped]
from torchvision.transforms import v2  # type: ignore[import-untyped]
from torchvision.transforms.v2 import functional  # type: ignore[import-untyped]

from mmfusion.errors import DataError
from mmfusion.train.boxed_pairs import BoxedPair
from mmfusion.train.pairs import Pair
from mmfusion.train.recipes import STRICT, Share
from mmfusion.train.scenes import Scene

Sample = dict[str, Tensor]

_KEPT_SHARE = 0.4  # of a box; with less of it in sight, nobody can tell where it ends
_MILLIMETRE = 1e-3
_HAF_MARGIN = 30  # pixels that its crop may take away
_HAF_ROTATED = 0.2
_HAF_PEPPER = 0.0015


@dataclass(config=STRICT, frozen=True, kw_only=True)
class Augmentation:
    """How `augment` varies a sample; all of it but the window is off by default.

    Attributes:
        smallest_window: the window's least share of the largest that fits, 0..1.
        mirror, flip: probabilities to swap left and right, top and bottom.
        rotation: most degrees, either way; corners that come into sight are 0.
        brightness, contrast, saturation: of ``rgb`` alone; factors are 1 plus or minus up to
            this, 0..1.
    """

    smallest_window: Annotated[float, Field(ge=1e-3, le=1)] = 0.6
    mirror: Share = 0.0
    flip: Share = 0.0
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    brightness: Share = 0.0
    contrast: Share = 0.0
    saturation: Share = 0.0


def to_sample(item: Pair | BoxedPair | Scene) -> Sample:
    """The pictures of an item in their own numbers: 8 bits, and millimetres of depth."""
    if isinstance(item, Pair):
        return {"rgb": _image(item.visible), "thermal": _image(item.infrared)}
    if isinstance(item, Scene):
        depth, mask = (tv_tensors.Mask(torch.from_numpy(p)[None]) for p in (item.depth, item.mask))
        return {"rgb": _image(item.rgb), "depth": depth, "mask": mask}
    boxes = tv_tensors.BoundingBoxes(
        torch.from_numpy(item.boxes),
        format="XYXY",
        canvas_size=item.infrared.shape,
        clamping_mode=None,  # how much of a box is left must be seen first
    )
    return {
        "rgb": _image(item.visible),
        "thermal": _image(item.infrared),
        "boxes": boxes,
        "labels": torch.from_numpy(item.labels),
        "labelled": torch.from_numpy(item.labelled),
    }


def to_floats(sample: Mapping[str, Tensor]) -> Sample:
    """Images and ``mask`` in [0, 1] and ``depth`` in metres, from what `to_sample` gives."""
    floats = dict(sample)
    for name in floats.keys() & {"rgb", "thermal", "mask"}:
        floats[name] = tv_tensors.wrap(floats[name].float() / 255, like=floats[name])
    if "depth" in floats:
        floats["depth"] = tv_tensors.wrap(
            floats["depth"].float() * _MILLIMETRE, like=floats["depth"]
        )
    return floats


def square_crop(sample: Mapping[str, Tensor], side: int, rng: np.random.Generator) -> Sample:
    """S4Fusion's augmentation: a square window, flipped either way by even chance.

    Raises:
        DataError: if the sample is smaller.
    """
    height, width = _size(sample)
    if min(height, width) < side:
        raise DataError(f"a picture is {height}x{width}; expected at least the crop, {side}")
    top, left = (int(rng.integers(extent - side + 1)) for extent in (height, width))
    cut = _move(sample, lambda entry: functional.crop(entry, top, left, side, side))
    return _flip(cut, 0.5, 0.5, rng)


def augment(
    sample: Mapping[str, Tensor], size: tuple[int, int], how: Augmentation, rng: np.random.Generator
) -> Sample:
    """A random window of a sample at another size, varied.

    Images are scaled bilinearly with antialiasing; depth and masks take the nearest pixel.

    Args:
        sample: as `to_sample` gives it.
        size: (height, width) of the result; the window has the same shape.
        how: to vary it.
        rng: source of all randomness.

    Returns:
        See `to_floats`. Boxes are clipped; those of which less than 40 % is in sight are left
        out, and their labels.
    """
    extents = np.array(_size(sample))
    window = np.array(size) * (extents / size).min() * rng.uniform(how.smallest_window, 1)
    height, width = (max(1, int(side)) for side in window)
    top, left = (int(rng.integers(room + 1)) for room in extents - (height, width))
    varied = _move(sample, lambda entry: functional.crop(entry, top, left, height, width))
    varied = _move(varied, lambda entry: _resize(entry, size))
    varied = _flip(varied, how.mirror, how.flip, rng)
    varied = to_floats(varied)
    angle = rng.uniform(-how.rotation, how.rotation)
    if angle:
        varied = _move(varied, lambda entry: _rotate(entry, angle))
    if "rgb" in varied:
        for adjust, most in (
            (functional.adjust_brightness, how.brightness),
            (functional.adjust_contrast, how.contrast),
            (functional.adjust_saturation, how.saturation),
        ):
            factor = 1 + rng.uniform(-most, most)
            if most:
                varied["rgb"] = adjust(varied["rgb"], factor)
    return _keep_boxes_in_sight(varied)


def haf_sample(scene: Scene, rng: np.random.Generator) -> Scene:
    """HAF's augmentation, as published but for depth, which is metric here.

    In order: mirrored by even chance; a centred window up to 30 pixels smaller; in one of five
    samples turned by -15 to 14 degrees; brightness, contrast, colour and sharpness of ``rgb``;
    0.15 % of the mask's pixels black or white. Colour and mask are turned bicubically, depth by
    nearest pixel, so that none is invented; corners are black, and of unknown depth. Resizing is
    left to the caller.
    """
    rgb, mask = Image.fromarray(scene.rgb), Image.fromarray(scene.mask)
    depth = tv_tensors.Mask(torch.from_numpy(scene.depth.astype(np.int32))[None])
    if rng.random() < 0.5:
        rgb, mask, depth = (functional.horizontal_flip(picture) for picture in (rgb, mask, depth))
    height, width = scene.mask.shape
    sides = [
        int(rng.integers(max(1, full - _HAF_MARGIN), max(2, full))) for full in (height, width)
    ]
    top, left = (height - sides[0]) // 2, (width - sides[1]) // 2
    rgb, mask, depth = (functional.crop(p, top, left, *sides) for p in (rgb, mask, depth))
    if rng.random() < _HAF_ROTATED:
        angle = float(rng.integers(-15, 15))
        rgb, mask = (
            functional.rotate(picture, angle, interpolation=v2.InterpolationMode.BICUBIC)
            for picture in (rgb, mask)
        )
        depth = functional.rotate(depth, angle)
    for adjust, least, most in (
        (functional.adjust_brightness, 5, 15),
        (functional.adjust_contrast, 5, 15),
        (functional.adjust_saturation, 0, 20),
        (functional.adjust_sharpness, 0, 30),
    ):
        rgb = adjust(rgb, rng.integers(least, most + 1) / 10)
    peppered = np.array(mask)
    spots = rng.integers(peppered.size, size=int(_HAF_PEPPER * peppered.size))
    peppered.flat[spots] = 255 * rng.integers(2, size=spots.size, dtype=np.uint8)
    return Scene(scene.name, np.array(rgb), depth[0].numpy().astype(np.uint16), peppered)


def _image(pixels: NDArray[np.uint8]) -> Tensor:
    tensor = torch.from_numpy(pixels)
    image: Tensor = tv_tensors.Image(tensor.permute(2, 0, 1) if tensor.ndim == 3 else tensor[None])
    return image


def _size(sample: Mapping[str, Tensor]) -> tuple[int, int]:
    height, width = functional.get_size(next(iter(sample.values())))
    return height, width


def _move(sample: Mapping[str, Tensor], how: Callable[[Tensor], Tensor]) -> Sample:
    return {
        name: how(entry) if isinstance(entry, tv_tensors.TVTensor) else entry
        for name, entry in sample.items()
    }


def _flip(sample: Sample, mirror: float, flip: float, rng: np.random.Generator) -> Sample:
    if rng.random() < mirror:
        sample = _move(sample, functional.horizontal_flip)
    if rng.random() < flip:
        sample = _move(sample, functional.vertical_flip)
    return sample


def _resize(entry: Tensor, size: tuple[int, int]) -> Tensor:
    if isinstance(entry, tv_tensors.Mask):
        # Of masks, torchvision takes the pixel above and to the left, half a pixel off.
        exact = v2.InterpolationMode.NEAREST_EXACT
        plain = functional.resize(entry.as_subclass(Tensor), list(size), interpolation=exact)
        resized: Tensor = tv_tensors.wrap(plain, like=entry)
    else:
        resized = functional.resize(entry, list(size), antialias=True)
    return resized


def _rotate(entry: Tensor, angle: float) -> Tensor:
    smooth = isinstance(entry, tv_tensors.Image)
    mode = v2.InterpolationMode.BILINEAR if smooth else v2.InterpolationMode.NEAREST
    turned: Tensor = functional.rotate(entry, angle, interpolation=mode)
    return turned


def _keep_boxes_in_sight(sample: Sample) -> Sample:
    if "boxes" not in sample:
        return sample
    boxes = sample["boxes"]
    inside = functional.clamp_bounding_boxes(boxes, clamping_mode="hard")
    kept = _areas(inside) >= _KEPT_SHARE * _areas(boxes).clamp(min=1e-6)
    return sample | {
        "boxes": tv_tensors.wrap(inside[kept], like=inside),
        "labels": sample["labels"][kept],
    }


def _areas(boxes: Tensor) -> Tensor:
    x1, y1, x2, y2 = boxes.as_subclass(Tensor).unbind(1)
    return (x2 - x1) * (y2 - y1)
