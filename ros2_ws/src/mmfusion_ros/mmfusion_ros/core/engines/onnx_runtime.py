"""ONNX Runtime on the CPU: the embedded default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmfusion_ros.core.artifact import Artifact
from mmfusion_ros.core.engines.engine import Engine
from mmfusion_ros.core.engines.options import EngineOptions, half_of_the_cores
from mmfusion_ros.core.errors import EngineError

if TYPE_CHECKING:
    import onnxruntime


class OnnxRuntimeEngine(Engine):
    """The graph in an ONNX Runtime session with preallocated outputs.

    Attributes:
        runs_with: library and version.
    """

    backend = "onnxruntime"
    selective_scan = "ONNX Scan function"

    def __init__(self, artifact: Artifact, options: EngineOptions) -> None:
        """Load the graph.

        Args:
            artifact: opened artifact; below fp32, with a graph in that precision.
            options: precision, and threads of one run; 0 for half of the cores.

        Raises:
            EngineError: if ONNX Runtime is missing or refuses the graph.
            ArtifactError: if there is no graph in that precision.
        """
        graph_path = artifact.graph_for(options.precision)
        self.precision = options.precision
        try:
            import onnxruntime  # noqa: PLC0415 (heavy, and optional on a GPU robot)
        except ImportError as error:
            raise EngineError(
                f"backend onnxruntime cannot be imported ({error}); install it with "
                "'pip install onnxruntime'"
            ) from error
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options.threads or half_of_the_cores()
        # Spinning threads take the cores from the cameras' drivers between frames.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        settings.log_severity_level = 3
        self._outputs = {
            spec.name: np.zeros(spec.shape, spec.dtype) for spec in artifact.outputs.values()
        }
        try:
            self._session: onnxruntime.InferenceSession | None = onnxruntime.InferenceSession(
                str(graph_path), settings, providers=["CPUExecutionProvider"]
            )
            self._binding = self._session.io_binding()
            for name, array in self._outputs.items():
                self._binding.bind_output(
                    name, "cpu", 0, array.dtype, array.shape, array.ctypes.data
                )
        except Exception as error:  # its exceptions share no other base
            raise EngineError(
                f"onnxruntime {onnxruntime.__version__} cannot load {graph_path}: {error}"
            ) from error
        self.runs_with = f"onnxruntime {onnxruntime.__version__}"
        # Inputs that nothing in the graph reads are dropped by the runtime.
        self._input_names = {value.name for value in self._session.get_inputs()}

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """See `Engine.run`."""
        if self._session is None:
            raise EngineError("the engine is closed")
        try:
            for name in self._input_names:
                self._binding.bind_cpu_input(name, inputs[name])
            self._session.run_with_iobinding(self._binding)
        except Exception as error:  # its exceptions share no other base
            raise EngineError(f"onnxruntime failed: {error}") from error
        return self._outputs

    def close(self) -> None:
        """See `Engine.close`."""
        self._session = None
        self._binding = None
