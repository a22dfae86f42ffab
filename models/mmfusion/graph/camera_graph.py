"""The one graph: raw camera bytes in, publishable bytes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmfusion.errors import ExportError
from mmfusion.graph import photometry
from mmfusion.graph.cameras import RIG_PACKING, CameraSpec
from mmfusion.graph.depth import unpack_depth
from mmfusion.graph.detections import JointBranch, box_depth, fuse_colour
from mmfusion.graph.luma_fusion import LumaFusion
from mmfusion.graph.registration import Homography, Scaling
from mmfusion.graph.saliency import SaliencyBranch


@dataclass(frozen=True)
class Branches:
    """The networks of a graph, each at its size.

    Attributes:
        fusion: fuses luma; None if the joint network's fused picture is used.
        saliency: None for no saliency.
        joint: detects, and fuses if nothing else does; None for no detections.
    """

    fusion: LumaFusion | None = None
    saliency: SaliencyBranch | None = None
    joint: JointBranch | None = None

    def __post_init__(self) -> None:
        if self.fusion is None and self.joint is None:
            raise ExportError(
                "no fusion network; expected one, or a joint one such as EfficientMFD"
            )


class _Pictures(NamedTuple):
    """What the networks see, at RGB size in [0, 1]; each stands in for the other where it lacks."""

    rgb: Tensor  # (1, 3, H, W)
    colour: photometry.Colour
    infrared: Tensor  # (1, 1, H, W)
    sees: Tensor  # (1, 1, H, W), 1 where thermal sees


class CameraGraph(nn.Module):
    """From the bytes of three cameras to the bytes of the topics.

    Any camera may be missing. Where thermal is absent, or does not see a pixel, the RGB bytes
    pass through unchanged; the networks are shown the visible luma in its place there, so that
    nothing dark is fused in. Where RGB is unusable, the picture is thermal in grey. Where depth
    is absent the saliency network is shown `NEUTRAL_DEPTH`, and boxes have no depth.
    """

    def __init__(self, spec: CameraSpec, branches: Branches) -> None:
        super().__init__()
        self.spec = spec
        self.fusion = branches.fusion
        self.saliency = branches.saliency
        self.joint = branches.joint
        self.registration: nn.Module
        if spec.registration == "homography":
            self.registration = Homography(spec.rgb_size)
        else:
            self.registration = Scaling(spec.rgb_size)

    def example_inputs(self) -> dict[str, Tensor]:
        """Zeros of the right dtype and shape for every input, in order."""
        spec = self.spec
        depth = (
            torch.zeros(*spec.depth_size, 2, dtype=torch.uint8)
            if spec.depth_encoding == "16UC1"
            else torch.zeros(*spec.depth_size)
        )
        thermal_bytes = 2 if spec.thermal_encoding == "mono16" else 1
        inputs = {
            "rgb": torch.zeros(*spec.rgb_size, 3, dtype=torch.uint8),
            "depth": depth,
            "thermal": torch.zeros(*spec.thermal_size, thermal_bytes, dtype=torch.uint8),
            "thermal_range": torch.zeros(2),
            "present": torch.ones(3),
        }
        if RIG_PACKING[spec.registration]:
            inputs["rig"] = torch.eye(3).flatten()
        return inputs

    def forward(  # noqa: PLR0917 (the inputs of the graph, in its order)
        self,
        rgb: Tensor,
        depth: Tensor,
        thermal: Tensor,
        thermal_range: Tensor,
        present: Tensor,
        rig: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Run the whole way.

        Args:
            rgb: uint8 (H, W, 3).
            depth: uint8 (Hd, Wd, 2) little-endian millimetres, or float32 (Hd, Wd) metres; of
                the RGB camera's view.
            thermal: uint8 (Ht, Wt, 2) little-endian counts, or (Ht, Wt, 1).
            thermal_range: float32 (2,), the previous frame's ``thermal_range_next``; zeros at
                the start.
            present: float32 (3,), 1 where rgb, depth, thermal are usable.
            rig: float32, packed as `RIG_PACKING` says; only with a registration that needs it.

        Returns:
            ``fused`` uint8 (H, W, 3) and ``thermal_range_next`` float32 (2,). With a saliency
            network ``saliency`` uint8 (H, W), probability times 255. With a detector ``boxes``
            float32 (K, 4) xyxy pixels of the RGB picture, perhaps beyond its edges, ``scores``
            float32 (K,) falling, ``classes`` int32 (K,) and ``box_depth`` float32 (K,) metres,
            NaN where unknown. If asked for, ``registered_thermal`` uint8 (H, W).
        """
        has_rgb, has_depth, has_thermal = present[0], present[1], present[2]
        counts = photometry.unpack_counts(thermal)
        display_range = photometry.next_thermal_range(
            counts, thermal_range, has_thermal, self.spec.thermal_min_span
        )
        registered = photometry.normalise_counts(counts, display_range)
        seen_by_thermal, sees = (
            self.registration(registered) if rig is None else self.registration(registered, rig)
        )
        seen = _see(rgb, has_rgb, seen_by_thermal, sees * has_thermal)
        outputs = {}
        joint = None if self.joint is None else self.joint(seen.rgb, seen.infrared)
        if self.fusion is not None:
            luma = self.fusion(seen.infrared, seen.colour.luma, seen.sees)
            fused = photometry.recombine(seen.colour._replace(luma=luma))
        else:
            assert joint is not None  # noqa: S101 (Branches has looked)
            fused = fuse_colour(seen.rgb, seen.infrared, joint.fusion_weights)
        unchanged = ((seen.sees == 0) & (has_rgb > 0))[0].permute(1, 2, 0)
        outputs["fused"] = torch.where(unchanged, rgb, photometry.pack_uint8(fused))
        metres, valid = unpack_depth(depth)
        valid = valid * has_depth
        if self.saliency is not None:
            probability = self.saliency(seen.rgb, metres, valid)
            outputs["saliency"] = photometry.pack_uint8(probability)[..., 0]
        if joint is not None:
            boxes = joint.candidates.boxes
            outputs |= joint.candidates._asdict()
            outputs["box_depth"] = box_depth(boxes, metres, valid, self.spec.rgb_size)
        outputs["thermal_range_next"] = display_range
        if self.spec.registered_thermal:
            outputs["registered_thermal"] = photometry.pack_uint8(seen.sees * seen.infrared)[..., 0]
        return outputs


def _see(rgb: Tensor, has_rgb: Tensor, thermal: Tensor, sees: Tensor) -> _Pictures:
    """Let each picture stand in for the other where it is missing.

    Args:
        rgb: uint8 (H, W, 3).
        has_rgb: scalar, 0 or 1.
        thermal: (1, 1, H, W) in [0, 1].
        sees: (1, 1, H, W), 1 where thermal is usable.
    """
    visible = photometry.unpack_rgb8(rgb)
    visible = torch.where(has_rgb > 0, visible, sees * thermal)
    colour = photometry.split_colour(visible)
    infrared = sees * thermal + (1 - sees) * colour.luma
    return _Pictures(visible, colour, infrared, sees)
