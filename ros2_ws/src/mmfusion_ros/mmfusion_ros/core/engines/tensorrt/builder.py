"""An engine out of a graph."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmfusion_ros.core.atomic_file import written_whole
from mmfusion_ros.core.engines.progress import Progress
from mmfusion_ros.core.engines.tensorrt.build_progress import PhaseShares, make_monitor
from mmfusion_ros.core.engines.tensorrt.logger import failures_told, make_logger
from mmfusion_ros.core.errors import EngineError

_logger = logging.getLogger(__name__)
_OUT_OF_MEMORY = re.compile(r"out ?of ?memory|insufficient memory|bad_alloc", re.IGNORECASE)


@dataclass(frozen=True)
class BuilderSettings:
    """What changes the engine besides its graph.

    Attributes:
        hardware_compatible: it also runs on other GPUs of the compute capability it was built on,
            and may be slower.
        workspace_mib: most memory that a layer may take for itself while the engine runs. What
            the library takes by default is all there is, which on a Jetson is everybody's.
        optimization_level: how long to look for faster code, 0 to 5.
    """

    hardware_compatible: bool = False
    workspace_mib: int = 2048
    optimization_level: int = 3


@dataclass(frozen=True)
class Refusal:
    """A node that the parser does not take.

    Attributes:
        node: its name, with the module that it comes from in front.
        operator: of ONNX.
        reason: as the parser tells it.
    """

    node: str
    operator: str
    reason: str

    def __str__(self) -> str:
        return f"{self.operator} of node {self.node or '(no name)'}: {self.reason}"


class GraphRefusedError(EngineError):
    """The parser does not take a graph.

    Attributes:
        refusals: what it complained of.
    """

    def __init__(self, message: str, refusals: Sequence[Refusal]) -> None:
        super().__init__(message)
        self.refusals = refusals


def build(
    tensorrt: Any,
    graph: bytes,
    settings: BuilderSettings = BuilderSettings(),
    timing_cache: Path | None = None,
    progress: Progress | None = None,
    *,
    on_thread: Callable[[], object] = lambda: None,
) -> bytes:
    """Build an engine.

    The network is strongly typed: each layer computes in the type that the graph gives it. Newer
    versions know no other way, older ones are told to.

    Args:
        tensorrt: the module ``tensorrt``, or another of its interface.
        graph: of `parsable_graph`.
        settings: of the builder.
        timing_cache: file of what was timed in earlier builds; read and written.
        progress: told the share that is done. It is called from another thread.
        on_thread: called first on the thread that the library builds on.

    Raises:
        EngineError: if the parser or the builder refuses the graph, or memory runs out.
        BaseException: what ``progress`` raised, or KeyboardInterrupt; the build is over then.
    """
    log = make_logger(tensorrt)
    shares = PhaseShares(progress)
    with failures_told(tensorrt, log, "cannot prepare a build"):
        builder, network = make_network(tensorrt, log)
        # The network refers to weights that the parser holds.
        parser = parse(tensorrt, network, graph, log)
        config = _config(tensorrt, builder, settings)
        config.progress_monitor = monitor = make_monitor(tensorrt, shares)
        _require_fixed_shapes(network)
        timings = _use_timings(config, timing_cache)
    with failures_told(tensorrt, log, "cannot build"):
        serialized = _in_thread(builder, network, config, shares, on_thread)
    del monitor, parser
    if shares.error is not None:
        raise shares.error
    if serialized is None:
        raise EngineError(_why(tensorrt, list(log.errors)))
    if timing_cache is not None and timings is not None:
        _keep_timings(config, timing_cache)
    return bytes(serialized)


def parse(tensorrt: Any, network: Any, graph: bytes, log: Any) -> Any:
    """Fill a network; the parser that is returned must live as long as it.

    Raises:
        GraphRefusedError: naming the node that is refused, with operator and reason.
    """
    parser = tensorrt.OnnxParser(network, log)
    if not parser.parse(graph):
        refused = list(refusals(parser))
        told = "; ".join(map(str, refused)) or "; ".join(log.errors) or "no reason given"
        raise GraphRefusedError(
            f"TensorRT {tensorrt.__version__} does not take the graph: {told}", refused
        )
    return parser


def refusals(parser: Any) -> Iterator[Refusal]:
    """What a parser complains of."""
    for number in range(parser.num_errors):
        error = parser.get_error(number)
        yield Refusal(error.node_name(), error.node_operator(), error.desc())


def make_network(tensorrt: Any, log: Any) -> tuple[Any, Any]:
    """A builder and its empty, strongly typed network."""
    builder = tensorrt.Builder(log)
    # Gone where all networks are so.
    flag = getattr(tensorrt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return builder, builder.create_network(0 if flag is None else 1 << int(flag))


def _config(tensorrt: Any, builder: Any, settings: BuilderSettings) -> Any:
    config = builder.create_builder_config()
    # On by default; with it, fp32 would be rounded to 10 bits of mantissa and still be called so.
    config.clear_flag(tensorrt.BuilderFlag.TF32)
    config.builder_optimization_level = settings.optimization_level
    config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, settings.workspace_mib * 2**20)
    if settings.hardware_compatible:
        levels = tensorrt.HardwareCompatibilityLevel
        level = getattr(levels, "SAME_COMPUTE_CAPABILITY", None)
        if level is None:
            raise EngineError(
                f"TensorRT {tensorrt.__version__} cannot build for all GPUs of one compute "
                "capability; build without it, on each kind of GPU"
            )
        config.hardware_compatibility_level = level
    return config


def _require_fixed_shapes(network: Any) -> None:
    for number in range(network.num_inputs):
        tensor = network.get_input(number)
        if any(extent < 0 for extent in tensor.shape):
            raise EngineError(
                f"input {tensor.name} has no fixed shape ({list(tensor.shape)}); expected a graph "
                "of 'mmfusion export'"
            )


def _in_thread(
    builder: Any,
    network: Any,
    config: Any,
    shares: PhaseShares,
    on_thread: Callable[[], object],
) -> Any:
    """Build in a thread, so that Ctrl-C comes through while the library computes."""
    results: list[Any] = []
    errors: list[BaseException] = []
    deciding = threading.Lock()
    builds = False

    def work() -> None:
        nonlocal builds
        with deciding:
            if shares.cancelled:  # nobody waits for it
                return
            builds = True
        try:
            on_thread()
            results.append(builder.build_serialized_network(network, config))
        except BaseException as error:  # noqa: BLE001 (told where the build was asked for)
            errors.append(error)

    thread = threading.Thread(target=work, name="tensorrt-build", daemon=True)
    try:
        thread.start()
        thread.join()
    except BaseException:
        with deciding:
            shares.cancel()
        # The library's objects must not go while it uses them.
        if builds:
            thread.join()
        raise
    if errors:
        raise errors[0]
    return results[0]


def _why(tensorrt: Any, errors: list[str]) -> str:
    told = "; ".join(errors) or "no reason given"
    if any(_OUT_OF_MEMORY.search(error) for error in errors):
        return (
            "memory ran out while the engine was built; end other programs that use the GPU, or "
            f"allow less workspace, and build again ({told})"
        )
    return f"TensorRT {tensorrt.__version__} cannot build an engine of the graph: {told}"


def _use_timings(config: Any, path: Path | None) -> Any:
    if path is None:
        return None
    try:
        kept = path.read_bytes()
    except FileNotFoundError:
        kept = b""
    except OSError as error:
        _logger.warning("engine: %s cannot be read (%s); timing anew", path, error)
        kept = b""
    cache = config.create_timing_cache(kept)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        _logger.warning("engine: %s is damaged or of another GPU or version; timing anew", path)
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
    return cache


def _keep_timings(config: Any, path: Path) -> None:
    try:
        with written_whole(path) as file:
            file.write(bytes(config.get_timing_cache().serialize()))
    except OSError as error:
        _logger.warning("engine: %s cannot be written (%s)", path, error)
