"""An engine that computes nothing: everything around the graph, measured or tested alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfusion_ros.core.artifact import Artifact
from mmfusion_ros.core.engines.engine import Engine


class PassThroughEngine(Engine):
    """Gives the RGB image as the fused one; all other outputs stay zero."""

    backend = "pass_through"
    precision = "none"
    selective_scan = ""

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
