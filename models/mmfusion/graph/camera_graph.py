"""The one graph: raw camera bytes in, publishable bytes out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmfusion.errors import ExportError
from mmfusion.graph import photometry
from mmfusion.graph.luma_fusion import LumaFusion
from mmfusion.graph.registration import Homography, Scaling

RIG_PACKING = {
    "identity": [],
    "homography": [f"thermal_from_rgb_h{row}{column}" for row in range(3) for column in range(3)],
}


@dataclass(frozen=True)
class CameraSpec:
    """What is fixed when a graph is made: the cameras, and how their pictures are treated.

    Attributes:
        rgb_size, depth_size, thermal_size: (height, width) in pixels.
        depth_encoding: 16UC1 (millimetres) or 32FC1 (metres).
        thermal_encoding: mono16 or mono8.
        registration: "identity" (one view; thermal is scaled to the RGB size) or "homography"
            (from the rig input).
        thermal_min_span: least display range in counts.
        fusion_scale: the fusion network sees pictures this many times smaller, see `LumaFusion`.
        registered_thermal: also put out thermal as fused, for debugging.
    """

    rgb_size: tuple[int, int]
    depth_size: tuple[int, int]
    thermal_size: tuple[int, int]
    depth_encoding: str = "16UC1"
    thermal_encoding: str = "mono16"
    registration: str = "identity"
    thermal_min_span: float = 50.0
    fusion_scale: int = 1
    registered_thermal: bool = False

    def __post_init__(self) -> None:
        for name in ("rgb_size", "depth_size", "thermal_size"):
            height, width = getattr(self, name)
            if height < 1 or width < 1:
                raise ExportError(f"{name} is {height}x{width}; expected at least 1x1")
        for name, known in (
            ("depth_encoding", ("16UC1", "32FC1")),
            ("thermal_encoding", ("mono16", "mono8")),
            ("registration", tuple(RIG_PACKING)),
        ):
            if getattr(self, name) not in known:
                raise ExportError(
                    f"{name} is {getattr(self, name)!r}; expected {' or '.join(known)}"
                )
        if self.fusion_scale < 1 or self.thermal_min_span <= 0:
            raise ExportError("fusion_scale and thermal_min_span must be positive")


class CameraGraph(nn.Module):
    """From the bytes of three cameras to the bytes of the topics.

    Where thermal is absent, or does not see a pixel, the RGB bytes pass through unchanged; the
    network is shown the visible luma in its place there, so that nothing dark is fused in.
    Where RGB is unusable, the picture is thermal in grey.
    """

    def __init__(self, spec: CameraSpec, fusion: nn.Module) -> None:
        super().__init__()
        self.spec = spec
        self.fusion = LumaFusion(fusion, spec.fusion_scale)
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
        depth: Tensor,  # noqa: ARG002 (used by networks that see depth)
        thermal: Tensor,
        thermal_range: Tensor,
        present: Tensor,
        rig: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Run the whole way.

        Args:
            rgb: uint8 (H, W, 3).
            depth: uint8 (Hd, Wd, 2) little-endian millimetres, or float32 (Hd, Wd) metres.
            thermal: uint8 (Ht, Wt, 2) little-endian counts, or (Ht, Wt, 1).
            thermal_range: float32 (2,), the previous frame's ``thermal_range_next``; zeros at
                the start.
            present: float32 (3,), 1 where rgb, depth, thermal are usable.
            rig: float32, packed as `RIG_PACKING` says; only with a registration that needs it.

        Returns:
            ``fused`` uint8 (H, W, 3), ``thermal_range_next`` float32 (2,) and, if asked for,
            ``registered_thermal`` uint8 (H, W).
        """
        has_rgb, has_thermal = present[0], present[2]
        counts = photometry.unpack_counts(thermal)
        display_range = photometry.next_thermal_range(
            counts, thermal_range, has_thermal, self.spec.thermal_min_span
        )
        normalised = photometry.normalise_counts(counts, display_range)
        if rig is None:
            infrared, sees = self.registration(normalised)
        else:
            infrared, sees = self.registration(normalised, rig)
        sees = sees * has_thermal

        seen = photometry.split_colour(photometry.unpack_rgb8(rgb))
        grey = torch.full_like(seen.cr, 0.5)
        colour = photometry.Colour(
            luma=has_rgb * seen.luma + (1 - has_rgb) * sees * infrared,
            cr=torch.where(has_rgb > 0, seen.cr, grey),
            cb=torch.where(has_rgb > 0, seen.cb, grey),
        )
        infrared = sees * infrared + (1 - sees) * colour.luma
        fused_luma = self.fusion(infrared, colour.luma)
        fused = photometry.pack_uint8(photometry.recombine(colour._replace(luma=fused_luma)))
        unchanged = ((sees == 0) & (has_rgb > 0))[0].permute(1, 2, 0)
        outputs = {
            "fused": torch.where(unchanged, rgb, fused),
            "thermal_range_next": display_range,
        }
        if self.spec.registered_thermal:
            outputs["registered_thermal"] = photometry.pack_uint8(sees * infrared)[..., 0]
        return outputs
