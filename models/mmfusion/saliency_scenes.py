"""A saliency network at work on scenes on disk."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mmfusion.errors import DataError
from mmfusion.graph.depth_range import DepthRange
from mmfusion.graph.photometry import pack_uint8
from mmfusion.graph.saliency import SaliencyBranch
from mmfusion.haf.network import HAF
from mmfusion.train.scenes import Scene

_FOREGROUND = 128


def trained_depth_range(checkpoint: Path) -> DepthRange:
    """Range of depth that a network was trained with, by the recipe beside its weights.

    The default range if there is no recipe.

    Raises:
        DataError: if the recipe is unreadable.
        ExportError: if its range is impossible.
    """
    path = checkpoint.with_name("recipe.json")
    if not path.is_file():
        return DepthRange()
    try:
        recipe = json.loads(path.read_text(encoding="utf-8")).items()
        return DepthRange(**{k: float(value) for k, value in recipe if k in {"near_m", "far_m"}})
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is no recipe of a training ({error}); mend it, or move the weights elsewhere "
            "to have the default range of depth"
        ) from error


def scenes_with_branch(
    network: nn.Module, scenes: Sequence[Scene], depth_range: DepthRange
) -> Iterator[tuple[SaliencyBranch, Scene]]:
    """Yield every scene, ordered by size, with the branch that takes its size."""
    for size, alike in itertools.groupby(sorted(scenes, key=_size), _size):
        branch = SaliencyBranch(
            cast("HAF", network),
            rgb_size=size,
            depth_size=size,
            input_size=None,
            depth_range=depth_range,
        ).eval()
        for scene in alike:
            yield branch, scene


def find_salient(
    branch: SaliencyBranch, rgb: Tensor, metres: Tensor, valid: Tensor
) -> NDArray[np.uint8]:
    """Saliency map uint8 (H, W); arguments as for `SaliencyBranch`."""
    with torch.inference_mode():
        picture: NDArray[np.uint8] = pack_uint8(branch(rgb, metres, valid))[..., 0].numpy()
    return picture


def truth_of(scene: Scene) -> NDArray[np.uint8]:
    """Mask of a scene as uint8 (H, W), 255 on what stands out, else 0."""
    return np.where(scene.mask > _FOREGROUND, 255, 0).astype(np.uint8)


def _size(scene: Scene) -> tuple[int, int]:
    return cast("tuple[int, int]", scene.mask.shape)
