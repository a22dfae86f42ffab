"""The backbone that both modalities share, and its feature pyramid."""

from __future__ import annotations

from typing import Any

import timm
from timm.layers.norm_act import freeze_batch_norm_2d
from torch import Tensor, nn
from torch.nn import functional

from mmfusion.errors import ModelError
from mmfusion.timm_weights import plain

STRIDES = (4, 8, 16, 32)

Pyramid = tuple[Tensor, Tensor, Tensor, Tensor]
"""Maps (N, C, H / stride, W / stride), one for each of `STRIDES`."""


class FeaturePyramid(nn.Module):
    """A timm backbone and a feature pyramid network on its four levels.

    Published is ResNet-50 with the stride in the 3x3 convolution, frozen batch norm, and a
    pyramid without norms or activations (Lin et al., CVPR 2017).
    """

    def __init__(self, backbone: str, channels: int, *, frozen_start: bool) -> None:
        """Build with fresh weights.

        Args:
            backbone: timm model name.
            channels: width of every pyramid level.
            frozen_start: freeze batch norm, and all that the first level depends on.

        Raises:
            ModelError: if timm does not know the backbone or it lacks a level.
        """
        super().__init__()
        body = _feature_extractor(backbone)
        widths: list[int] = body.feature_info.channels()
        self.body: nn.Module = body
        if frozen_start:
            self.body = freeze_batch_norm_2d(body)  # type: ignore[no-untyped-call]
            _freeze_through(self.body, body.feature_info.module_name()[0])
        self.lateral = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in widths)
        self.output = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in widths)
        for conv in (*self.lateral, *self.output):
            nn.init.kaiming_uniform_(conv.weight, a=1)
            nn.init.zeros_(conv.bias)

    def forward(self, images: Tensor) -> Pyramid:
        """Pyramid of normalised images (N, 3, H, W), H and W multiples of 32."""
        features = self.body(images)
        below: Tensor | None = None
        levels: list[Tensor] = []
        for feature, lateral, output in zip(
            reversed(features), reversed(self.lateral), reversed(self.output), strict=True
        ):
            merged = lateral(feature)
            if below is not None:
                merged = merged + functional.interpolate(below, scale_factor=2.0, mode="nearest")
            levels.append(output(merged))
            below = merged
        p5, p4, p3, p2 = levels
        return p2, p3, p4, p5


def _feature_extractor(name: str) -> Any:
    try:
        probe: Any = timm.create_model(name, features_only=True, pretrained=False)
        strides = probe.feature_info.reduction()
        wanted = tuple(strides.index(stride) for stride in STRIDES)
        return timm.create_model(name, features_only=True, pretrained=False, out_indices=wanted)
    except (RuntimeError, AttributeError, ValueError) as error:
        raise ModelError(
            f"backbone {name!r} does not fit ({error}); expected a timm model with feature maps "
            f"of strides {', '.join(map(str, STRIDES))}: choose another, such as 'resnet50'"
        ) from error


def _freeze_through(body: nn.Module, last: str) -> None:
    """Freeze the parameters of a module and of all that is registered, and so runs, before."""
    parameters = list(body.named_parameters())
    inside = [plain(name).startswith(f"{plain(last)}.") for name, _ in parameters]
    end = len(inside) - inside[::-1].index(True)
    for _, parameter in parameters[:end]:
        parameter.requires_grad_(False)  # noqa: FBT003 -- its only form
