"""Engines: what runs the graph.

`open_engine` picks a backend; every backend is a context manager with ``run``.
"""

from __future__ import annotations

import dataclasses
import importlib
import logging

from mmfusion_ros.core.artifact import Artifact
from mmfusion_ros.core.engines.cuda_probe import cuda_devices
from mmfusion_ros.core.engines.engine import Engine
from mmfusion_ros.core.engines.options import EngineOptions
from mmfusion_ros.core.engines.progress import Progress
from mmfusion_ros.core.errors import EngineError

__all__ = ["BACKENDS", "Engine", "EngineOptions", "Progress", "open_engine"]

BACKENDS = ("auto", "onnxruntime", "openvino", "tensorrt", "pass_through")
_logger = logging.getLogger(__name__)


def open_engine(
    artifact: Artifact,
    options: EngineOptions = EngineOptions(),  # noqa: B008 (frozen)
    progress: Progress | None = None,
) -> Engine:
    """Load an artifact's graph.

    Backends:

    - ``auto``: TensorRT where there is a CUDA device and the library, else ONNX Runtime. OpenVINO
      is never taken unasked: it computes a little differently, which is a choice.
    - ``onnxruntime``: CPU, the reference.
    - ``openvino``: CPU, faster on many.
    - ``tensorrt``: NVIDIA GPUs.
    - ``pass_through``: returns the RGB image unfused: for tests and for measuring everything but
      the engine.

    Args:
        artifact: opened artifact.
        options: what the user wants.
        progress: called while an engine is built; what it raises cancels that and comes out.

    Raises:
        EngineError: if the backend is unknown, not installed, cannot load the graph or, in
            reduced precision, misses the artifact's tolerances.
    """
    if options.backend == "auto":
        return _open_best(artifact, options, progress)
    if options.backend == "onnxruntime":
        from mmfusion_ros.core.engines.onnx_runtime import OnnxRuntimeEngine  # noqa: PLC0415

        return OnnxRuntimeEngine(artifact, options.threads)
    if options.backend == "tensorrt":
        return _open_tensorrt(artifact, options, progress)
    if options.backend == "pass_through":
        from mmfusion_ros.core.engines.pass_through import PassThroughEngine  # noqa: PLC0415

        return PassThroughEngine(artifact)
    raise EngineError(f"unknown backend {options.backend!r}; expected one of {', '.join(BACKENDS)}")


def _open_best(artifact: Artifact, options: EngineOptions, progress: Progress | None) -> Engine:
    devices, reason = cuda_devices()
    if devices:
        _logger.info("engine: CUDA device %s, so trying tensorrt", devices[0].name)
        try:
            return _open_tensorrt(
                artifact, dataclasses.replace(options, backend="tensorrt"), progress
            )
        except EngineError as error:
            reason = str(error)
    _logger.info("engine: not tensorrt: %s", reason)
    _logger.info("engine: onnxruntime on the CPU")
    return open_engine(artifact, dataclasses.replace(options, backend="onnxruntime"), progress)


def _open_tensorrt(artifact: Artifact, options: EngineOptions, progress: Progress | None) -> Engine:
    try:
        tensorrt = importlib.import_module("mmfusion_ros.core.engines.tensorrt")
    except ImportError as error:
        raise EngineError(f"backend tensorrt cannot be imported ({error})") from error
    engine: Engine = tensorrt.open_tensorrt(artifact, options, progress)
    return engine
