"""Engines: what runs the graph.

`open_engine` picks a backend; every backend is a context manager with ``run``. Nothing heavy is
imported before: the names of the backends are for command lines too.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING

from mmfusion_ros.core.engines.cuda_probe import CudaDriverError, cuda_devices, numbered
from mmfusion_ros.core.engines.engine import Engine
from mmfusion_ros.core.engines.options import PRECISIONS, EngineOptions
from mmfusion_ros.core.engines.progress import Cancelled, Progress
from mmfusion_ros.core.errors import ArtifactError, EngineError

if TYPE_CHECKING:
    from mmfusion_ros.core.artifact import Artifact
    from mmfusion_ros.core.engines.onnx_runtime import OnnxRuntimeEngine
    from mmfusion_ros.core.engines.openvino import OpenVinoEngine

__all__ = [
    "BACKENDS",
    "FALLBACKS",
    "PRECISIONS",
    "Cancelled",
    "Engine",
    "EngineOptions",
    "Progress",
    "check_options",
    "open_engine",
    "open_fallback",
]

BACKENDS = ("auto", "onnxruntime", "openvino", "tensorrt", "pass_through")
FALLBACKS = ("", "onnxruntime", "openvino")
_logger = logging.getLogger(__name__)


def open_engine(
    artifact: Artifact,
    options: EngineOptions = EngineOptions(),  # noqa: B008 (frozen)
    progress: Progress | None = None,
) -> Engine:
    """Load an artifact's graph.

    Backends:

    - ``auto``: TensorRT where there is a CUDA device and the library, else ONNX Runtime, which
      stands in for it where there is a device. OpenVINO is never taken unasked: on some
      processors it computes in less than fp32 by itself, and its figures are others, so it is to
      be somebody's choice.
    - ``onnxruntime``: CPU, the reference.
    - ``openvino``: CPU, faster on many.
    - ``tensorrt``: NVIDIA GPUs.
    - ``pass_through``: returns the RGB image unfused: for tests and for measuring everything but
      the engine.

    Args:
        artifact: opened artifact.
        options: what the user wants.
        progress: called while an engine is built; what it raises cancels that and comes out, if
            it is no EngineError; see `Cancelled`.

    Raises:
        EngineError: if the backend is unknown, not installed, cannot load the graph or, in
            reduced precision, misses the artifact's tolerances, and so does the fallback if
            there is one.
    """
    check_options(options)
    try:
        return _open(artifact, options, progress)
    except EngineError as error:
        if not options.fallback:
            raise
        return open_fallback(artifact, options, str(error))


def open_fallback(artifact: Artifact, options: EngineOptions, reason: str) -> Engine:
    """Open the fallback, in fp32.

    Args:
        artifact: opened artifact.
        options: with a fallback.
        reason: why the engine that they ask for cannot be used.

    Raises:
        EngineError: if the fallback cannot be opened either.
    """
    wanted = f"{options.backend} {options.precision}"
    _logger.warning("engine: %s instead of %s: %s", options.fallback, wanted, reason)
    plain = dataclasses.replace(options, backend=options.fallback, precision="fp32", fallback="")
    try:
        engine = _open(artifact, plain, None)
    except EngineError as error:
        raise EngineError(f"{reason}; and the fallback {options.fallback}: {error}") from error
    engine.stands_in = f"instead of {wanted}: {reason}"
    return engine


def check_options(options: EngineOptions) -> None:
    """Refuse what no engine could be opened with.

    Raises:
        EngineError: if the backend, the fallback or the precision is unknown.
    """
    for what, name, known in (
        ("backend", options.backend, BACKENDS),
        ("precision", options.precision, PRECISIONS),
        ("fallback", options.fallback, FALLBACKS),
    ):
        if name not in known:
            expected = ", ".join(filter(None, known))
            raise EngineError(f"unknown {what} {name!r}; expected one of {expected}")


def _open(artifact: Artifact, options: EngineOptions, progress: Progress | None) -> Engine:
    if options.backend == "auto":
        return _open_best(artifact, options, progress)
    if options.backend == "tensorrt":
        return _open_tensorrt(artifact, options, progress)
    if options.backend == "pass_through":
        from mmfusion_ros.core.engines.pass_through import PassThroughEngine  # noqa: PLC0415

        return PassThroughEngine(artifact)
    try:
        return _open_on_cpu(artifact, options, progress)
    except ArtifactError as error:  # it is whole, but has not what is asked for
        raise EngineError(str(error)) from error


def _open_best(artifact: Artifact, options: EngineOptions, progress: Progress | None) -> Engine:
    stands_in = ""
    try:
        devices, reason = cuda_devices()
    except CudaDriverError as error:
        devices, reason = [], str(error)
        stands_in = f"instead of tensorrt {options.precision}: {reason}"
    if devices:
        _logger.info("engine: CUDA devices %s, so trying tensorrt", numbered(devices))
        try:
            return _open_tensorrt(
                artifact, dataclasses.replace(options, backend="tensorrt"), progress
            )
        except EngineError as error:
            reason = str(error)
            stands_in = f"instead of tensorrt {options.precision}: {reason}"
    _logger.log(logging.WARNING if stands_in else logging.INFO, "engine: not tensorrt: %s", reason)
    _logger.info("engine: onnxruntime on the CPU")
    engine = _open(artifact, dataclasses.replace(options, backend="onnxruntime"), progress)
    engine.stands_in = stands_in
    return engine


def _open_on_cpu(artifact: Artifact, options: EngineOptions, progress: Progress | None) -> Engine:
    from mmfusion_ros.core.engines.precision_gate import accept, gate_key  # noqa: PLC0415

    engine: OnnxRuntimeEngine | OpenVinoEngine
    if options.backend == "openvino":
        from mmfusion_ros.core.engines.openvino import OpenVinoEngine  # noqa: PLC0415

        engine = OpenVinoEngine(artifact, options, progress)
    else:
        from mmfusion_ros.core.engines.onnx_runtime import OnnxRuntimeEngine  # noqa: PLC0415

        engine = OnnxRuntimeEngine(artifact, options)
    try:
        key = gate_key(artifact, engine.precision, engine.runs_with, engine.form)
        engine.gate = accept(engine, artifact, options, key, progress)
    except BaseException:
        engine.close()
        raise
    return engine


def _open_tensorrt(artifact: Artifact, options: EngineOptions, progress: Progress | None) -> Engine:
    from mmfusion_ros.core.engines.tensorrt import open_tensorrt  # noqa: PLC0415

    return open_tensorrt(artifact, options, progress)
