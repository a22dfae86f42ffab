"""TensorRT: the graph on an NVIDIA GPU, versions 10.3 to 11."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from mmfusion_ros.core.artifact import Artifact
from mmfusion_ros.core.engines.cuda_probe import cuda_devices, numbered
from mmfusion_ros.core.engines.engine import ONNX
from mmfusion_ros.core.engines.engine_cache import EngineCache, EngineKey
from mmfusion_ros.core.engines.options import EngineOptions
from mmfusion_ros.core.engines.precision_gate import accept, check_comparable
from mmfusion_ros.core.engines.progress import Progress
from mmfusion_ros.core.engines.tensorrt.builder import BuilderSettings, build
from mmfusion_ros.core.engines.tensorrt.driver import CudaDriver, CudaRuntime, Gpu
from mmfusion_ros.core.engines.tensorrt.engine import TensorRTEngine
from mmfusion_ros.core.engines.tensorrt.graph import FORM, has_scan, parsable_graph
from mmfusion_ros.core.engines.tensorrt.logger import failures_told, make_logger
from mmfusion_ros.core.engines.tensorrt.scan_plugin import (
    FOLDER,
    ScanPlugin,
    register_scan_plugin,
)
from mmfusion_ros.core.errors import ArtifactError, EngineError

_logger = logging.getLogger(__name__)
_OLDEST = Version("10.3")
_COMPILED, _COMPILER = "engines", "torch_tensorrt"  # in an artifact, see `mmfusion compile`


def open_tensorrt(
    artifact: Artifact, options: EngineOptions, progress: Progress | None = None
) -> TensorRTEngine:
    """Open an artifact's engine, from the cache or built now.

    Args:
        artifact: opened artifact.
        options: what the user wants.
        progress: called while the engine is built; what it raises cancels that and comes out.

    Raises:
        EngineError: if there is no GPU, its driver fails or there is no TensorRT, the engine can
            be neither built nor loaded, or in reduced precision it misses the artifact's
            tolerances or could not be compared with fp32.
    """
    devices, reason = cuda_devices()
    if not devices:
        raise EngineError(f"backend tensorrt needs an NVIDIA GPU and its driver: {reason}")
    return open_on(import_tensorrt(), CudaRuntime(), artifact, options, progress)


def open_on(
    tensorrt: Any,
    driver: CudaDriver,
    artifact: Artifact,
    options: EngineOptions,
    progress: Progress | None = None,
) -> TensorRTEngine:
    """Open an artifact's engine with a library and a driver that are there; see `open_tensorrt`."""
    try:
        return _open_on(tensorrt, driver, artifact, options, progress)
    except ArtifactError as error:  # it has not what is asked for, or was exchanged since
        raise EngineError(str(error)) from error


def _open_on(
    tensorrt: Any,
    driver: CudaDriver,
    artifact: Artifact,
    options: EngineOptions,
    progress: Progress | None,
) -> TensorRTEngine:
    gpu = _chosen(driver.gpus(), options.device_id)
    driver.use(options.device_id)
    _register_plugins(tensorrt)
    # Read once: what is built under the graph's digest is of these bytes.
    graph = artifact.read_graph(options.precision)
    plugin = ScanPlugin(reason="the graph has no selective scan")
    if has_scan(graph):
        with failures_told(tensorrt, make_logger(tensorrt), "cannot take the plugin of the scan"):
            plugin = register_scan_plugin(
                tensorrt, artifact.folder / FOLDER, gpu.compute_capability
            )
    keys = _keys(tensorrt, gpu, artifact, options, plugin)
    timings = f"timings-{gpu.name}-{tensorrt.__name__}-{tensorrt.__version__}.cache"

    def build_now() -> bytes:
        check_comparable(TensorRTEngine.backend, artifact, options)  # minutes before `accept` would
        _logger.info(
            "engine: building %s of %s for %s (device_id %d) with TensorRT %s; this takes minutes, "
            "once",
            options.precision,
            artifact.name,
            gpu.name,
            options.device_id,
            tensorrt.__version__,
        )
        return build(
            tensorrt,
            parsable_graph(graph, artifact.folder, scan_is_plugin=plugin.registered),
            BuilderSettings(hardware_compatible=options.hardware_compatible),
            options.cache_folder / timings.replace(" ", "_").replace("/", "_"),
            progress,
            on_thread=functools.partial(driver.use, options.device_id),
        )

    def load(
        serialized: bytes, kept: Path, digest: str, builder: str = ONNX
    ) -> tuple[TensorRTEngine, str]:
        engine = TensorRTEngine(
            tensorrt,
            serialized,
            artifact,
            driver,
            device=options.device_id,
            precision=options.precision,
            selective_scan=scan_form(plugin) if has_scan(graph) else "none",
            path=kept,
        )
        engine.builder = builder
        return engine, digest

    def accepted(engine: TensorRTEngine, digest: str) -> TensorRTEngine:
        try:
            name = _gate_name(artifact, options.precision, digest)
            engine.gate = accept(engine, artifact, options, name, progress)
        except BaseException:
            engine.close()
            raise
        return engine

    engine = None
    if options.precision == "fp32":  # nothing else is compiled
        engine = _compiled_engine(artifact, _compiled_key(keys[0], gpu), load, accepted)
    if engine is None:
        cache = EngineCache(options.cache_folder)
        engine = accepted(*cache.obtain(keys, build_now, load, progress))
    _logger.info(
        "engine: tensorrt %s in %s on %s (device_id %d), built from %s, selective scan as %s, %s",
        tensorrt.__version__,
        engine.precision,
        gpu.name,
        options.device_id,
        engine.builder,
        engine.selective_scan,
        "one CUDA graph" if engine.captured else "no CUDA graph",
    )
    return engine


def _chosen(gpus: Sequence[Gpu], number: int) -> Gpu:
    """The GPU of this number.

    Raises:
        EngineError: if there is none.
    """
    if not 0 <= number < len(gpus):
        raise EngineError(
            f"device_id is {number}, but the GPUs that CUDA sees are {numbered(gpus)}; choose one "
            "of these numbers, which need not be those of nvidia-smi, or see what "
            "CUDA_VISIBLE_DEVICES hides"
        )
    return gpus[number]


def _compiled_key(key: EngineKey, gpu: Gpu) -> EngineKey:
    """Of the engine that ``mmfusion compile`` makes, which is of one GPU whatever is built here.

    Args:
        key: of an engine that would be built from the graph.
        gpu: at hand.
    """
    settings = dataclasses.asdict(BuilderSettings())
    return dataclasses.replace(key, builder=_COMPILER, form=0, gpu=gpu.name, settings=settings)


def _compiled_engine(
    artifact: Artifact,
    key: EngineKey,
    load: Callable[[bytes, Path, str, str], tuple[TensorRTEngine, str]],
    accepted: Callable[[TensorRTEngine, str], TensorRTEngine],
) -> TensorRTEngine | None:
    """The engine that ``mmfusion compile`` put into the artifact, if there is one that serves.

    Args:
        artifact: perhaps with one.
        key: of the engine that serves.
        load: opens an engine.
        accepted: closes an engine and raises if it is too far from that graph.
    """
    folder = artifact.folder / _COMPILED
    compiled = EngineCache(folder)
    if others := compiled.others(key):
        _logger.warning(
            "engine: no engine in %s is for this graph, GPU and TensorRT: %s; compile again for "
            "them, or delete the folder",
            folder,
            "; ".join(others),
        )
    try:
        found = compiled.use_kept(
            key,
            lambda engine, path, digest: load(engine, path, digest, _COMPILER),
            "compile it again, or delete it",
        )
        return None if found is None else accepted(*found)
    except EngineError as error:
        _logger.warning("engine: not that of %s: %s", _COMPILER, error)
        return None


def import_tensorrt() -> Any:
    """The module.

    Raises:
        EngineError: if it is missing, lacks its libraries or is too old.
    """
    try:
        import tensorrt  # noqa: PLC0415 (heavy, and optional)
    except (ImportError, OSError) as error:  # the latter for a library that does not load
        raise EngineError(
            f"backend tensorrt cannot be imported ({error}); install NVIDIA's TensorRT {_OLDEST} "
            "or newer with its Python bindings; on a Jetson 'sudo apt install python3-libnvinfer', "
            "and let a virtual environment see it with --system-site-packages"
        ) from error
    try:
        version = Version(tensorrt.__version__)
    except (AttributeError, InvalidVersion) as error:
        raise EngineError(
            f"the tensorrt that is imported from {tensorrt.__path__} has no version ({error}); "
            "install TensorRT again"
        ) from error
    if version < _OLDEST:
        raise EngineError(
            f"TensorRT {version} is too old; expected {_OLDEST} or newer, as of JetPack 6.2"
        )
    return tensorrt


def _gate_name(artifact: Artifact, precision: str, engine: str) -> str:
    """Name of what is measured on an engine.

    Not of its key: another build of the same graph may choose other code, and round otherwise.

    Args:
        artifact: with the graph that it is compared with.
        precision: of the engine.
        engine: its SHA-256.
    """
    digest = hashlib.sha256(f"{artifact.digest}\n{engine}".encode()).hexdigest()
    return f"{artifact.name}-tensorrt-{precision}-{digest[:16]}"


@functools.cache
def _register_plugins(tensorrt: Any) -> Any:
    """Let the library know the plugins that come with it, RoiAlign's among them.

    Returns:
        The logger, which the library goes on using.
    """
    log = make_logger(tensorrt)
    with failures_told(tensorrt, log, "cannot load its plugins"):
        tensorrt.init_libnvinfer_plugins(log, "")
    return log


def scan_form(plugin: ScanPlugin) -> str:
    """How the selective scan is run, for people."""
    return "plugin" if plugin.registered else f"two-level loop ({plugin.reason})"


def _keys(
    tensorrt: Any, gpu: Gpu, artifact: Artifact, options: EngineOptions, plugin: ScanPlugin
) -> list[EngineKey]:
    """Of the engine to build, and of others that serve."""

    def key(*, hardware_compatible: bool) -> EngineKey:
        return EngineKey(
            builder=ONNX,
            graph=artifact.reduced_digests.get(options.precision, artifact.digest),
            form=FORM,
            gpu="" if hardware_compatible else gpu.name,
            compute_capability=gpu.compute_capability,
            library=f"{tensorrt.__name__} {tensorrt.__version__}",
            precision=options.precision,
            plugin=plugin.digest,
            settings=dataclasses.asdict(BuilderSettings(hardware_compatible=hardware_compatible)),
        )

    compatible = key(hardware_compatible=True)
    if options.hardware_compatible:
        return [compatible]
    return [key(hardware_compatible=False), compatible]
