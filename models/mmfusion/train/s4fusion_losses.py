"""What S4Fusion's fused picture owes to its two sources. Ma et al., arXiv:2405.20881.

Terms as the public code computes them, weights from the article.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmfusion.train.classifier import Classifier
from mmfusion.train.information import information_weights
from mmfusion.train.sobel import sobel_magnitude

WEIGHTS = {"ssim": 15.0, "intensity": 15.0, "gradient": 15.0, "entropy": 1.0}
_SSIM_WINDOW, _SSIM_SIGMA = 11, 1.5
_SSIM_C1, _SSIM_C2 = 0.01**2, 0.03**2
_LEAST_PROBABILITY = 1e-9


class S4FusionLoss(nn.Module):
    """The four terms of the loss, to be weighted by `WEIGHTS` and added.

    Without a classifier there is no entropy term, and the sources weigh by their own contrast.
    """

    def __init__(self, classifier: Classifier | None, temperature: float) -> None:
        """Build it.

        Args:
            classifier: the published loss needs one.
            temperature: see `information_weights`.
        """
        super().__init__()
        self.classifier, self.temperature = classifier, temperature

    def forward(self, fused: Tensor, infrared: Tensor, visible: Tensor) -> dict[str, Tensor]:
        """Terms by name, a scalar each.

        Args:
            fused: luminance in units of white, (N, 1, H, W), sides of at least 8.
            infrared: same shape, in [0, 1].
            visible: luma, same shape, in [0, 1].
        """
        weights = information_weights(infrared, visible, self.classifier, self.temperature)
        terms = {
            "ssim": ssim_loss(fused, infrared, visible, weights),
            "intensity": intensity_loss(fused, infrared, visible, weights),
            "gradient": gradient_loss(fused, infrared, visible),
        }
        if self.classifier is not None:
            terms["entropy"] = entropy_loss(self.classifier(fused))
        return terms


def ssim_loss(fused: Tensor, infrared: Tensor, visible: Tensor, weights: Tensor) -> Tensor:
    """Dissimilarity of structure from both sources, each by its weight.

    Args:
        fused: (N, 1, H, W).
        infrared: same shape.
        visible: same shape.
        weights: of infrared and visible, (N, 2).
    """
    distances = torch.stack([_dissimilarity(source, fused) for source in (infrared, visible)], 1)
    return (weights * distances).sum(dim=1).mean()


def intensity_loss(fused: Tensor, infrared: Tensor, visible: Tensor, weights: Tensor) -> Tensor:
    """Mean absolute distance from both sources, each by its weight; as for `ssim_loss`."""
    distances = torch.stack(
        [(source - fused).abs().mean(dim=(1, 2, 3)) for source in (infrared, visible)], 1
    )
    return (weights * distances).sum(dim=1).mean()


def gradient_loss(fused: Tensor, infrared: Tensor, visible: Tensor) -> Tensor:
    """Mean absolute distance of Sobel magnitudes from the larger one of the sources."""
    wanted = torch.maximum(sobel_magnitude(infrared), sobel_magnitude(visible))
    return functional.l1_loss(sobel_magnitude(fused), wanted)


def entropy_loss(logits: Tensor) -> Tensor:
    """Mean entropy, in nats, of a classifier's verdict: low where it recognises something.

    Args:
        logits: (N, classes) of the fused pictures.
    """
    probability = logits.softmax(dim=1) + _LEAST_PROBABILITY
    return -(probability * probability.log()).sum(dim=1).mean()


def _dissimilarity(one: Tensor, other: Tensor) -> Tensor:
    """Mean of (1 - SSIM) / 2, cut to [0, 1], of each picture: (N,). Borders are reflected."""

    def blur(image: Tensor) -> Tensor:
        height, width = (_blur_matrix(side).to(image) for side in image.shape[-2:])
        return height.T @ image @ width

    mean_1, mean_2 = blur(one), blur(other)
    variances = blur(one * one) - mean_1**2 + blur(other * other) - mean_2**2
    covariance = blur(one * other) - mean_1 * mean_2
    similarity = ((2 * mean_1 * mean_2 + _SSIM_C1) * (2 * covariance + _SSIM_C2)) / (
        (mean_1**2 + mean_2**2 + _SSIM_C1) * (variances + _SSIM_C2)
    )
    return ((1 - similarity) / 2).clamp(0, 1).mean(dim=(1, 2, 3))


@cache
def _blur_matrix(length: int) -> Tensor:
    """Gaussian blur of a row of pixels as a product from the right, (length, length).

    As in `joint_fusion_losses`: on CPUs convolutions of one channel are slow to differentiate.
    """
    offsets = torch.arange(_SSIM_WINDOW, dtype=torch.float64) - _SSIM_WINDOW // 2
    window = torch.exp(-(offsets**2) / (2 * _SSIM_SIGMA**2))
    impulses = torch.eye(length, dtype=torch.float64)[:, None]
    reflected = functional.pad(impulses, 2 * (_SSIM_WINDOW // 2,), mode="reflect")
    return functional.conv1d(reflected, (window / window.sum()).view(1, 1, -1))[:, 0]
