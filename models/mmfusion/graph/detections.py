"""The detection branch: both pictures in, scored boxes in RGB pixels and their depth out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmfusion.efficientmfd.deploy import EfficientMFDDeploy
from mmfusion.efficientmfd.network import EfficientMFD
from mmfusion.efficientmfd.post_processing import CANDIDATES
from mmfusion.layers.scaling import enlarge, shrink

# Depth is looked up on a grid over the middle half of a box, where the object is.
_GRID = 12
_MIDDLE = 0.5
_LEAST_KNOWN = 0.1  # share of the grid without which a box has no depth


class Candidates(NamedTuple):
    """Candidates by falling score; suppression by class and clipping are left to the host.

    Attributes:
        boxes: (K, 4) xyxy pixels of the RGB picture, perhaps beyond its edges; finite.
        scores: (K,) probability.
        classes: (K,) int32.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor


class JointOutput(NamedTuple):
    """What one run of the joint network gives.

    Attributes:
        fusion_weights: (1, 2, H, W), of infrared and of visible value.
        candidates: what was detected.
    """

    fusion_weights: Tensor
    candidates: Candidates


class JointBranch(nn.Module):
    """EfficientMFD: fusion and detection from one backbone.

    What is not used of its outputs is left out of an exported graph.
    """

    def __init__(
        self,
        network: EfficientMFD,
        *,
        rgb_size: tuple[int, int],
        scale: int = 1,
        steps: int | None = None,
        noise_seed: int = 0,
    ) -> None:
        """Build for fixed sizes.

        Args:
            network: trained.
            rgb_size: (height, width).
            scale: the network sees pictures this many times smaller.
            steps: of the diffusion sampler; None for those it was designed for.
            noise_seed: of the first boxes, which are constants of the graph.
        """
        super().__init__()
        self.rgb_size = rgb_size
        self.scale = scale
        small = (-(-rgb_size[0] // scale), -(-rgb_size[1] // scale))
        self.class_names = network.config.classes
        self.steps = steps or network.config.sampling_steps
        self.network = EfficientMFDDeploy(network, *small, self.steps, seed=noise_seed)

    def forward(self, rgb: Tensor, infrared: Tensor) -> JointOutput:
        """Fuse and detect.

        Args:
            rgb: (1, 3, H, W) in [0, 1].
            infrared: (1, 1, H, W) in [0, 1].
        """
        height, width = self.rgb_size
        visible = rgb * 255
        thermal = infrared * 255
        if self.scale != 1:
            visible, thermal = shrink(visible, self.scale), shrink(thermal, self.scale)
        weights, logits, boxes = self.network(visible, thermal)
        if self.scale != 1:
            weights = enlarge(weights, self.scale, height, width)
        return JointOutput(weights, best(logits[0], self.scale * boxes[0]))


def best(logits: Tensor, boxes: Tensor) -> Candidates:
    """The `CANDIDATES` best pairs of proposal and class.

    A box that is not finite, as an engine of reduced precision may give, scores nothing.

    Args:
        logits: (P, C).
        boxes: (P, 4) xyxy pixels.
    """
    proposals, classes = logits.shape
    finite = (boxes - boxes == 0).all(dim=1, keepdim=True)
    probabilities = torch.where(finite, logits.sigmoid(), 0.0)
    scores, index = probabilities.flatten().topk(min(CANDIDATES, proposals * classes))
    kept = torch.where(finite, boxes, 0.0).index_select(0, index // classes)
    return Candidates(kept, scores, (index % classes).to(torch.int32))


def fuse_colour(rgb: Tensor, infrared: Tensor, weights: Tensor) -> Tensor:
    """EfficientMFD's fused picture in the visible picture's hue and saturation.

    The value of each pixel (its greatest channel) becomes the weighted sum of infrared and
    visible value; colours are scaled with it, which equals going through HSV.

    Args:
        rgb: (1, 3, H, W) in [0, 1].
        infrared: (1, 1, H, W) in [0, 1].
        weights: (1, 2, H, W), of infrared and of visible value.

    Returns:
        (1, 3, H, W) in [0, 1].
    """
    value = rgb.amax(dim=1, keepdim=True)
    fused = (weights[:, :1] * infrared + weights[:, 1:] * value).clamp(0, 1)
    black = value <= 0
    return torch.where(black, fused, rgb * (fused / torch.where(black, 1.0, value)))


def box_depth(boxes: Tensor, metres: Tensor, valid: Tensor, size: tuple[int, int]) -> Tensor:
    """Robust depth of each box: the median over its middle half.

    Args:
        boxes: (K, 4) xyxy pixels of the RGB picture, finite; what lies beyond its edges is not
            looked at.
        metres: depth (1, 1, h, w) of the same view, in another resolution perhaps.
        valid: (1, 1, h, w), 1 where it is known.
        size: (height, width) of the RGB picture.

    Returns:
        (K,) metres along the optical axis; NaN where too little of the box has a depth.
    """
    rows, columns = metres.shape[-2:]
    share = 0.5 + _MIDDLE * ((torch.arange(_GRID, dtype=boxes.dtype) + 0.5) / _GRID - 0.5)
    share = share.to(boxes.device)
    limits = boxes.new_tensor([size[1], size[0], size[1], size[0]])
    boxes = torch.minimum(boxes.clamp(min=0), limits)
    x = boxes[:, :1] + share * (boxes[:, 2:3] - boxes[:, :1])  # (K, grid)
    y = boxes[:, 1:2] + share * (boxes[:, 3:] - boxes[:, 1:2])
    column = (x * (columns / size[1])).floor().clamp(0, columns - 1)
    row = (y * (rows / size[0])).floor().clamp(0, rows - 1)
    # Whole numbers: half precision does not tell pixels of a large picture apart.
    row, column = row.to(torch.int64), column.to(torch.int64)
    index = (row[:, :, None] * columns + column[:, None, :]).flatten(1)
    samples = torch.where(valid > 0, metres, torch.inf).flatten()[index]  # (K, grid^2)
    count = (samples < torch.inf).sum(dim=1)
    ordered = samples.topk(samples.shape[1], dim=1, largest=False).values
    middle = ((count - 1) // 2).clamp(min=0)
    median = ordered.gather(1, middle[:, None])[:, 0]
    return torch.where(count >= _LEAST_KNOWN * samples.shape[1], median, torch.nan)
