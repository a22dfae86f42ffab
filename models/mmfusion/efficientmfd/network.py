"""The EfficientMFD network: one pyramid of both modalities, fusion and detection on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmfusion.efficientmfd.backbone import FeaturePyramid, Pyramid
from mmfusion.efficientmfd.config import SIZE_MULTIPLE, EfficientMFDConfig
from mmfusion.efficientmfd.diffusion import (
    LAST_TIME,
    latents_to_boxes,
    noise_draws,
    sample,
    sampling_steps,
    standard_noise,
)
from mmfusion.efficientmfd.diffusion_head import DiffusionHead
from mmfusion.efficientmfd.fusion_tree import FusionTree
from mmfusion.errors import ModelError
from mmfusion.timm_weights import colour_statistics, copy_weights

_WHITE = 255.0
NOISE_SEED = 0


class MFDOutput(NamedTuple):
    """What the network gives.

    Attributes:
        fusion_weights: weight of infrared, weight of visible, (N, 2, H, W) in (0, 1).
        fused: luminance in units of white, (N, 1, H, W); up to 2, not clipped.
        logits: class scores of every stage, (S, N, P, C).
        boxes: corners in pixels of the unpadded image, (S, N, P, 4), not clipped.
    """

    fusion_weights: Tensor
    fused: Tensor
    logits: Tensor
    boxes: Tensor


class EfficientMFD(nn.Module):
    """Fuse a registered infrared-visible pair and detect objects in it.

    Fusion and detection depend on the pyramid alone: either may run without the other.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: EfficientMFDConfig | None = None) -> None:
        """Build with fresh weights.

        Raises:
            ModelError: if timm has no such backbone.
        """
        super().__init__()
        self.config = config = config or EfficientMFDConfig()
        self.features = FeaturePyramid(
            config.backbone, config.channels, frozen_start=config.frozen_start
        )
        self.fusion = FusionTree(config.channels, config.pixel_channels)
        self.head = DiffusionHead(config)
        mean, std = colour_statistics(config.backbone)
        for name, values in (("mean", mean), ("std", std)):
            statistic = _WHITE * torch.tensor(values).view(3, 1, 1)
            self.register_buffer(name, statistic, persistent=False)

    def start_from(self, whole: nn.Module) -> None:
        """Give the backbone the weights of the whole network that timm has by its name."""
        copy_weights(self.features.body, whole)

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """Those that `start_from` sets."""
        return self.features.body.parameters()

    def forward(self, visible: Tensor, infrared: Tensor, noise: Tensor | None = None) -> MFDOutput:
        """Fuse and detect, in one diffusion step.

        Args:
            visible: RGB, (N, 3, H, W), 0..255, of any size.
            infrared: (N, 1, H, W), 0..255, registered to the visible image.
            noise: standard normal start of detection, (N, P, 4). Without, a fixed draw serves
                every image: equal images give equal results.

        Raises:
            ModelError: if shapes do not fit.
        """
        pyramid = self.pyramid(visible, infrared)
        weights, fused = self.fuse(visible, infrared, pyramid)
        if noise is None:
            noise = self.default_noise(1, len(visible))[0].to(visible)
        logits, boxes = self.detect(pyramid, noise, (visible.shape[-2], visible.shape[-1]))
        return MFDOutput(weights, fused, logits, boxes)

    def pyramid(self, visible: Tensor, infrared: Tensor) -> Pyramid:
        """Features of both modalities, added; of the images padded to multiples of 32.

        Arguments and errors are those of `forward`.
        """
        _check_pair(visible, infrared)
        images = torch.cat((visible, infrared.expand(-1, 3, -1, -1)))
        # Padded when normalised, so that the border is the mean colour, as published.
        both = self.features(_pad((images - self.mean) / self.std))
        p2, p3, p4, p5 = (sum(level.chunk(2)) for level in both)
        return p2, p3, p4, p5

    def fuse(self, visible: Tensor, infrared: Tensor, pyramid: Pyramid) -> tuple[Tensor, Tensor]:
        """Fusion weights (N, 2, H, W) and fused luminance (N, 1, H, W), see `MFDOutput`."""
        height, width = visible.shape[-2:]
        images = _pad(torch.cat((infrared, visible), dim=1) / _WHITE)
        stride = self.config.fusion_stride
        if stride == 1:
            weights = self.fusion(images, pyramid)
        else:
            squares = images.unflatten(3, (-1, stride)).unflatten(2, (-1, stride))
            # Not average pooling: ONNX Runtime would merge the padding into it, and refuse.
            weights = self.fusion(squares.mean(dim=5).mean(dim=3), pyramid)
            weights = functional.interpolate(weights, images.shape[-2:], mode="bilinear")
        weights = weights[..., :height, :width]
        luminances = torch.cat((infrared, visible.amax(dim=1, keepdim=True)), dim=1) / _WHITE
        return weights, (weights * luminances).sum(dim=1, keepdim=True)

    def detect(
        self,
        pyramid: Pyramid,
        latents: Tensor,
        size: tuple[int, int],
        time: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """One run of the detection head.

        Args:
            pyramid: from `pyramid`.
            latents: boxes in signal space, (N, P, 4): noise, or noisy boxes.
            size: (height, width) of the unpadded image.
            time: diffusion time of each image's latents, (N,); 999 (noise alone) if None.

        Returns:
            Logits (S, N, P, C) and boxes (S, N, P, 4), see `MFDOutput`.
        """
        if time is None:
            time = latents.new_full((1,), LAST_TIME)
        boxes = latents_to_boxes(latents, size)
        logits, boxes = self.head(pyramid, boxes, self.head.modulations(time))
        return logits, boxes

    def sample(
        self,
        pyramid: Pyramid,
        size: tuple[int, int],
        noises: Tensor | None = None,
        steps: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Detect in several diffusion steps.

        Args:
            pyramid: from `pyramid`.
            size: (height, width) of the unpadded image.
            noises: standard normal, (2 K - 1, N, P, 4), see `diffusion.sample`; a fixed draw
                if None.
            steps: K; as configured if None.

        Returns:
            Logits (N, K * P, C) and boxes (N, K * P, 4) of the last stage in every step.

        Raises:
            ModelError: if steps and noises do not fit.
        """
        steps = self.config.sampling_steps if steps is None else steps
        plan = sampling_steps(steps)
        if noises is None:
            noises = self.default_noise(noise_draws(steps), len(pyramid[0])).to(pyramid[0])

        def detect(latents: Tensor, index: int) -> tuple[Tensor, Tensor]:
            time = latents.new_full((1,), plan[index].time)
            logits, boxes = self.detect(pyramid, latents, size, time)
            return logits[-1], boxes[-1]

        return sample(detect, noises, plan, size)

    def default_noise(self, draws: int, images: int) -> Tensor:
        """The fixed draw, the same for each image: (draws, N, P, 4)."""
        noise = standard_noise(draws, self.config.proposals, NOISE_SEED)
        return noise[:, None].expand(-1, images, -1, -1)


def _pad(images: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    return functional.pad(images, (0, -width % SIZE_MULTIPLE, 0, -height % SIZE_MULTIPLE))


def _check_pair(visible: Tensor, infrared: Tensor) -> None:
    if visible.dim() == 4 and visible.shape[1] == 3:
        expected = (visible.shape[0], 1, *visible.shape[2:])
        if infrared.shape == expected:
            return
    raise ModelError(
        f"images of shapes {tuple(visible.shape)} and {tuple(infrared.shape)} are no pair; "
        "expected visible (N, 3, H, W) and infrared (N, 1, H, W): resample one to the other"
    )
