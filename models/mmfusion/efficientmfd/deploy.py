"""EfficientMFD with fixed shapes, for inference engines."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from timm.layers.norm_act import unfreeze_batch_norm_2d
from torch import Tensor, nn

from mmfusion.efficientmfd.diffusion import (
    latents_to_boxes,
    noise_draws,
    sample,
    sampling_steps,
    standard_noise,
)
from mmfusion.efficientmfd.network import NOISE_SEED, EfficientMFD
from mmfusion.efficientmfd.roi_align import RegionPool, pool_by_roi_align
from mmfusion.errors import ModelError


class DeployOutput(NamedTuple):
    """What the compiled network gives; fusion and detection need nothing of each other.

    Attributes:
        fusion_weights: weight of infrared, weight of visible, (1, 2, H, W) in (0, 1).
        logits: class scores of the last stage, (1, K * P, C) for K sampling steps.
        boxes: corners in pixels, (1, K * P, 4), not clipped.
    """

    fusion_weights: Tensor
    logits: Tensor
    boxes: Tensor


class EfficientMFDDeploy(nn.Module):
    """A trained network for one image size, one count of sampling steps, one noise.

    Whatever depends on diffusion time alone is computed here, once. Detection maps any noise
    to the same objects, so a constant may start it; results then repeat from run to run.
    """

    modulations: Tensor
    noise: Tensor

    def __init__(
        self,
        model: EfficientMFD,
        height: int,
        width: int,
        steps: int = 1,
        *,
        seed: int = NOISE_SEED,
        pool: RegionPool = pool_by_roi_align,
    ) -> None:
        """Take a trained network over, in evaluation mode.

        Args:
            model: trained; it is copied.
            height: of the images, pixels.
            width: of the images, pixels.
            steps: sampling steps K.
            seed: of the noise.
            pool: how regions are pooled.

        Raises:
            ModelError: if the count of steps is impossible.
        """
        super().__init__()
        model = copy.deepcopy(model)
        features = model.features
        # The exporter folds ordinary batch norm into convolutions, but no frozen one.
        features.body = unfreeze_batch_norm_2d(features.body)  # type: ignore[no-untyped-call]
        self.model = model.eval()  # after the change: a fresh batch norm is in training mode
        self.size = (height, width)
        self.pool = pool
        self.steps = sampling_steps(steps)
        times = torch.tensor([float(step.time) for step in self.steps])
        with torch.no_grad():
            modulations = model.head.modulations(times.to(model.mean)).transpose(0, 1)
        self.register_buffer("modulations", modulations[:, :, None].clone(), persistent=False)
        noise = standard_noise(noise_draws(steps), model.config.proposals, seed)
        self.register_buffer("noise", noise.to(model.mean), persistent=False)

    def forward(
        self, visible: Tensor, infrared: Tensor, noise: Tensor | None = None
    ) -> DeployOutput:
        """Fuse and detect.

        Args:
            visible: RGB, (1, 3, H, W), 0..255.
            infrared: (1, 1, H, W), 0..255.
            noise: standard normal, (2 K - 1, P, 4), see `diffusion.sample`; the constant of
                this module if None.

        Raises:
            ModelError: if shapes do not fit.
        """
        if tuple(visible.shape) != (1, 3, *self.size):
            raise ModelError(
                f"visible of shape {tuple(visible.shape)} does not fit a network made for "
                f"{(1, 3, *self.size)}; resize the image or make another"
            )
        pyramid = self.model.pyramid(visible, infrared)
        weights, _ = self.model.fuse(visible, infrared, pyramid)

        def detect(latents: Tensor, index: int) -> tuple[Tensor, Tensor]:
            boxes = latents_to_boxes(latents, self.size)
            logits, boxes = self.model.head(pyramid, boxes, self.modulations[index], self.pool)
            return logits[-1], boxes[-1]

        noises = (self.noise if noise is None else noise)[:, None]
        logits, boxes = sample(detect, noises, self.steps, self.size)
        return DeployOutput(weights, logits, boxes)
