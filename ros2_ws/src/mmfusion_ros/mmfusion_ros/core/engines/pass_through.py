"""An engine that computes nothing: everything around the graph, measured or tested alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmfusion_ros.core.artifact import Artifact

if TYPE_CHECKING:
    from typing_extensions import Self


class PassThroughEngine:
    """Gives the RGB image as the fused one; all other outputs stay zero."""

    backend = "pass_through"
    precision = "none"

    def __init__(self, artifact: Artifact) -> None:
        self._outputs = {
            spec.name: np.zeros(spec.shape, spec.dtype) for spec in artifact.outputs.values()
        }

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """See `Engine.run`."""
        self._outputs["fused"] = inputs["rgb"]
        return self._outputs

    def close(self) -> None:
        """See `Engine.close`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
