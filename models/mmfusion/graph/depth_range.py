"""The metric range that a network that sees depth tells apart."""

from __future__ import annotations

from dataclasses import dataclass

from mmfusion.errors import ExportError


@dataclass(frozen=True)
class DepthRange:
    """The metric range that a network tells apart.

    Attributes:
        near_m, far_m: in metres along the optical axis; what is nearer or farther is clipped.
    """

    near_m: float = 0.3
    far_m: float = 10.0

    def __post_init__(self) -> None:
        if not 0 < self.near_m < self.far_m < float("inf"):
            raise ExportError(
                f"depth range is {self.near_m:g} to {self.far_m:g} m; expected 0 < near < far"
            )
