"""What one run of the pipeline gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfusion_ros.core.detections import Detections
from mmfusion_ros.core.frames import FrameSet, Modality


@dataclass(frozen=True, eq=False)
class Results:
    """Outputs of the graph for one frame set, checked at construction.

    Arrays are the pipeline's until its next run: copy what must outlive that.

    Attributes:
        frames: the set the results are of, companions as they were used (one whose image was
            damaged is absent with reason INVALID).
        fused: uint8 (H, W, 3), rgb8.
        registered_thermal: uint8 (H, W), mono8; None unless the artifact puts it out.
        thermal_range: low and high count that thermal was shown with.
        present: modalities that took part.
        stages: duration of each stage in seconds, in order.
        problems: why an image could not be used, by modality.
        saliency: uint8 (H, W), mono8, probability times 255; None unless the artifact puts it
            out.
        detections: objects in the RGB picture, with arrays of their own; None unless the artifact
            puts out boxes.
    """

    frames: FrameSet
    fused: NDArray[np.uint8]
    registered_thermal: NDArray[np.uint8] | None
    thermal_range: tuple[float, float]
    present: frozenset[Modality]
    stages: Mapping[str, float]
    problems: Mapping[Modality, str]
    saliency: NDArray[np.uint8] | None = None
    detections: Detections | None = None

    def __post_init__(self) -> None:
        _expect("fused", self.fused, 3)
        if self.registered_thermal is not None:
            _expect("registered_thermal", self.registered_thermal, 2)
        if self.saliency is not None:
            _expect("saliency", self.saliency, 2)

    @property
    def images(self) -> dict[str, NDArray[np.uint8]]:
        """The pictures among the outputs, by output name."""
        pictures = {
            "fused": self.fused,
            "registered_thermal": self.registered_thermal,
            "saliency": self.saliency,
        }
        return {name: picture for name, picture in pictures.items() if picture is not None}


def _expect(name: str, array: NDArray[Any], dimensions: int) -> None:
    if array.dtype != np.uint8 or array.ndim != dimensions:
        raise ValueError(
            f"output {name} is {array.dtype} with {array.ndim} dimensions, expected uint8 with "
            f"{dimensions}"
        )
