"""A saliency network at work on scenes on disk."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor, nn

from mmfusion.errors import DataError
from mmfusion.graph.depth import unpack_depth
from mmfusion.graph.depth_range import DepthRange
from mmfusion.graph.photometry import pack_uint8, unpack_rgb8
from mmfusion.graph.saliency import SaliencyBranch
from mmfusion.haf.network import HAF
from mmfusion.relative_depth import DepthReading, RelativeDepth
from mmfusion.train.lazy import LazySequence
from mmfusion.train.output import RECIPE
from mmfusion.train.scenes import Scene

_FOREGROUND = 128


def trained_depth(checkpoint: Path) -> DepthReading:
    """How depth was read when a network was trained, by the recipe beside its weights.

    The default range, and no relative depth, if there is no recipe.

    Raises:
        DataError: if the recipe is unreadable.
        ExportError: if its range is impossible.
    """
    path = checkpoint.with_name(RECIPE)
    if not path.is_file():
        return DepthReading()
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
        ends = {key: float(recipe[key]) for key in ("near_m", "far_m") if key in recipe}
        return DepthReading(DepthRange(**ends), _known(recipe.get("relative_depth", "left_out")))
    except (yaml.YAMLError, ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is no recipe of a training ({error}); mend it, or move the weights elsewhere "
            "to have depth read by default"
        ) from error


def _known(relative: Any) -> RelativeDepth:
    if relative not in (ways := get_args(RelativeDepth)):
        raise ValueError(f"relative_depth is {relative!r}, expected one of {', '.join(ways)}")
    return cast("RelativeDepth", relative)


def scenes_with_branch(
    network: nn.Module, scenes: LazySequence[Scene], depth_range: DepthRange
) -> Iterator[tuple[SaliencyBranch, Scene]]:
    """Yield every scene, ordered by size, with the branch that takes its size."""
    sizes = scenes.sizes
    places = sorted(range(len(scenes)), key=sizes.__getitem__)
    device = next(network.parameters()).device
    for size, alike in itertools.groupby(places, sizes.__getitem__):
        branch = SaliencyBranch(
            # Tables are made on the CPU, where the weights must be to be folded with them.
            cast("HAF", copy.deepcopy(network).cpu()),
            rgb_size=size,
            depth_size=size,
            input_size=None,
            depth_range=depth_range,
        )
        branch.to(device).eval()
        for place in alike:
            yield branch, scenes[place]


def see_scene(branch: SaliencyBranch, scene: Scene, *, with_depth: bool) -> NDArray[np.uint8]:
    """Saliency map of a scene, uint8 (H, W)."""
    rgb = unpack_rgb8(torch.from_numpy(scene.rgb))
    raw = scene.depth.astype("<u2").view(np.uint8).reshape(*scene.depth.shape, 2)
    metres, valid = unpack_depth(torch.from_numpy(raw))
    return find_salient(branch, rgb, metres, valid * float(with_depth))


def find_salient(
    branch: SaliencyBranch, rgb: Tensor, metres: Tensor, valid: Tensor
) -> NDArray[np.uint8]:
    """Saliency map uint8 (H, W); arguments as for `SaliencyBranch`."""
    device = next(branch.parameters()).device
    with torch.inference_mode():
        probability = branch(*(plane.to(device) for plane in (rgb, metres, valid)))
        picture: NDArray[np.uint8] = pack_uint8(probability)[..., 0].cpu().numpy()
    return picture


def truth_of(scene: Scene) -> NDArray[np.uint8]:
    """Mask of a scene as uint8 (H, W), 255 on what stands out, else 0."""
    return np.where(scene.mask > _FOREGROUND, 255, 0).astype(np.uint8)
