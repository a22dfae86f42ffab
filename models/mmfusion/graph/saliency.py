"""The saliency branch: colour and depth in, a probability at camera size out."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from mmfusion.graph.depth import DepthMapping
from mmfusion.graph.depth_range import DepthRange
from mmfusion.graph.resize import Resize
from mmfusion.haf.deploy import HAFDeploy
from mmfusion.haf.network import HAF

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


class SaliencyBranch(nn.Module):
    """Resizes to the network's size, without keeping the aspect ratio, as it was trained."""

    def __init__(
        self,
        network: HAF,
        *,
        rgb_size: tuple[int, int],
        depth_size: tuple[int, int],
        input_size: tuple[int, int] | None,
        depth_range: DepthRange,
    ) -> None:
        """Build for fixed sizes.

        Args:
            network: trained.
            rgb_size: (height, width) of the RGB picture.
            depth_size: (height, width) of the depth picture.
            input_size: (height, width) that the network sees; None for the one of its design.
            depth_range: what it tells apart.
        """
        super().__init__()
        self.input_size = input_size = input_size or network.config.input_size
        self.rgb_size = rgb_size
        self.network = HAFDeploy(network, input_size)
        self.resize = Resize(rgb_size, input_size)
        self.map_depth = DepthMapping(depth_size, input_size, depth_range)

    def forward(self, rgb: Tensor, metres: Tensor, valid: Tensor) -> Tensor:
        """Find what stands out.

        Args:
            rgb: (1, 3, H, W) in [0, 1].
            metres: depth (1, 1, h, w).
            valid: (1, 1, h, w), 1 where depth is known; zeros throughout when there is none.

        Returns:
            Probability (1, 1, H, W).
        """
        logits = self.network(normalise(self.resize(rgb)), self.map_depth(metres, valid))
        full = functional.interpolate(logits, self.rgb_size, mode="bilinear", align_corners=False)
        return full.sigmoid()


def normalise(rgb: Tensor) -> Tensor:
    """(N, 3, H, W) in [0, 1] to what backbones are trained on: mean 0, deviation 1 on ImageNet."""
    mean, std = (rgb.new_tensor(v).view(1, 3, 1, 1) for v in (_IMAGENET_MEAN, _IMAGENET_STD))
    return (rgb - mean) / std
