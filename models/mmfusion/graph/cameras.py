"""The cameras a graph is made for."""

from __future__ import annotations

from dataclasses import dataclass

from mmfusion.errors import ExportError

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
        registered_thermal: also put out thermal as fused, for debugging.
    """

    rgb_size: tuple[int, int]
    depth_size: tuple[int, int]
    thermal_size: tuple[int, int]
    depth_encoding: str = "16UC1"
    thermal_encoding: str = "mono16"
    registration: str = "identity"
    thermal_min_span: float = 50.0
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
        if not 0 < self.thermal_min_span < float("inf"):
            raise ExportError(
                f"thermal_min_span is {self.thermal_min_span}; expected counts above 0"
            )
