"""Engines: what runs the graph.

`open_engine` picks a backend; every backend is a context manager with ``run``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

from mmfusion_ros.core.artifact import Artifact
from mmfusion_ros.core.errors import EngineError

if TYPE_CHECKING:
    from typing_extensions import Self

BACKENDS = ("auto", "onnxruntime", "pass_through")
_logger = logging.getLogger(__name__)


class Engine(Protocol):
    """A loaded graph."""

    backend: str
    precision: str

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """Run the graph once.

        Args:
            inputs: every input of the artifact, C-contiguous, of its dtype and shape.

        Returns:
            Every output by name; the arrays stay valid until the next run.

        Raises:
            EngineError: if the engine fails; it may be closed and opened again.
        """

    def close(self) -> None:
        """Release everything; calling it again does nothing."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


def open_engine(artifact: Artifact, backend: str = "auto", threads: int = 0) -> Engine:
    """Load an artifact's graph.

    Args:
        artifact: opened artifact.
        backend: "auto", "onnxruntime" (CPU) or "pass_through" (returns the RGB image unfused:
            for tests and for measuring everything but the engine).
        threads: CPU threads of one run; 0 leaves it to the backend (half of the cores).

    Raises:
        EngineError: if the backend is unknown, not installed or cannot load the graph.
    """
    if backend == "auto":
        backend = "onnxruntime"
        _logger.info("engine: %s on the CPU, the only backend that runs the graph", backend)
    if backend == "onnxruntime":
        from mmfusion_ros.core.engines.onnx_runtime import OnnxRuntimeEngine  # noqa: PLC0415

        return OnnxRuntimeEngine(artifact, threads)
    if backend == "pass_through":
        from mmfusion_ros.core.engines.pass_through import PassThroughEngine  # noqa: PLC0415

        return PassThroughEngine(artifact)
    raise EngineError(f"unknown backend {backend!r}; expected one of {', '.join(BACKENDS)}")
