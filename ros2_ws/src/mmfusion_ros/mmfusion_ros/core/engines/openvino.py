"""OpenVINO on the CPU: optional, and faster than ONNX Runtime on many."""

from __future__ import annotations

import ctypes
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmfusion_ros.core.artifact import Artifact, TensorSpec
from mmfusion_ros.core.engines.engine import Engine
from mmfusion_ros.core.engines.engine_cache import CacheKey, EngineCache, UnusableEngineError
from mmfusion_ros.core.engines.openvino_graph import FORM, readable_graph
from mmfusion_ros.core.engines.options import EngineOptions, half_of_the_cores
from mmfusion_ros.core.engines.precision_gate import machine_name
from mmfusion_ros.core.engines.progress import Progress
from mmfusion_ros.core.errors import EngineError

if TYPE_CHECKING:
    import openvino

_INSTALL = "install both with 'pip install openvino onnx'"
# What the plugin calls each precision, as a hint and as a capability of the processor.
_HINTS = {"fp32": ("f32", "FP32"), "bf16": ("bf16", "BF16"), "fp16": ("f16", "FP16")}
_INT8, _FP16 = "int8", "fp16"
# Run from the artifact's graph in that precision. Of fp16, it tells what must stay in fp32: counts
# and coordinates, which have more digits, and sums of scans, which go beyond its range.
_OWN_GRAPH = {_INT8, _FP16}
_CACHE = "openvino"  # in the folder of the cache, beside TensorRT's


@dataclass(frozen=True)
class OpenVinoKey(CacheKey):
    """Of compiled graphs.

    Attributes:
        graph: SHA-256 of the artifact's graph.
        form: of the graph that is made of it.
        processor: kind of processor, with what its arithmetic can do.
        library: name and full version.
        precision: that is computed in.
    """

    graph: str
    form: int
    processor: str
    library: str
    precision: str


class OpenVinoEngine(Engine):
    """The graph compiled by OpenVINO, on preallocated outputs and on inputs where they lie.

    Attributes:
        runs_with: library and version.
    """

    backend = "openvino"
    form = FORM
    selective_scan = "ONNX Scan, put in where the function is called"

    def __init__(
        self, artifact: Artifact, options: EngineOptions, progress: Progress | None = None
    ) -> None:
        """Compile the graph, unless it was compiled before and is in the cache.

        fp32 and bf16 run the fp32 graph, computed so; fp16 and int8 run the artifact's graph in
        that precision.

        Args:
            artifact: opened artifact.
            options: precision, cache, and threads of one run; 0 for half of the cores.
            progress: called while another process compiles the same.

        Raises:
            EngineError: if OpenVINO is missing or refuses the graph, or the processor has no
                such precision.
            ArtifactError: if there is no graph in fp16 or int8.
        """
        try:
            import onnx  # noqa: F401, PLC0415 (heavy and optional, as is the other)
            import openvino  # noqa: PLC0415
        except ImportError as error:
            raise EngineError(
                f"backend openvino cannot be imported ({error}); {_INSTALL}"
            ) from error
        self.precision = options.precision
        self.runs_with = f"openvino {openvino.__version__.partition('-')[0]}"
        core = openvino.Core()
        settings = {
            **_precision_settings(core, options.precision),
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": options.threads or half_of_the_cores(),
        }
        stored_in = options.precision if options.precision in _OWN_GRAPH else "fp32"
        # Read once: what is compiled under the graph's digest is of these bytes.
        graph, path = artifact.read_graph(stored_in), artifact.graph_file(stored_in)
        key = OpenVinoKey(
            graph=artifact.reduced_digests.get(stored_in, artifact.digest),
            form=self.form,
            processor=machine_name(),
            library=f"openvino {openvino.__version__}",
            precision=options.precision,
        )
        self._inputs = artifact.inputs
        self._outputs = {
            spec.name: np.zeros(spec.shape, spec.dtype) for spec in artifact.outputs.values()
        }

        def compiled_anew() -> bytes:
            stream = io.BytesIO()
            try:
                model = core.read_model(readable_graph(graph))
                core.compile_model(model, "CPU", settings).export_model(stream)
            except Exception as error:  # its exceptions share no other base
                raise EngineError(f"{self.runs_with} cannot load {path}: {_line(error)}") from error
            return stream.getvalue()

        def loaded(compiled: bytes, _path: Path, _digest: str) -> openvino.CompiledModel:
            try:
                return core.import_model(compiled, "CPU", settings)
            except Exception as error:
                raise UnusableEngineError(
                    f"{self.runs_with} does not load what it compiled: {_line(error)}"
                ) from error

        # What was compiled now runs by way of the cache too: each start computes alike.
        cache = EngineCache(options.cache_folder / _CACHE)
        compiled = cache.obtain([key], compiled_anew, loaded, progress)
        try:
            self._request: openvino.InferRequest | None = compiled.create_infer_request()
            for name, array in self._outputs.items():
                self._request.set_tensor(name, openvino.Tensor(array, shared_memory=True))
            self._input_names = _names(compiled.inputs)
        except Exception as error:  # its exceptions share no other base
            raise EngineError(f"{self.runs_with} cannot load {path}: {_line(error)}") from error
        self._tensor = openvino.Tensor

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """See `Engine.run`."""
        if self._request is None:
            raise EngineError("the engine is closed")
        try:
            # Kept until the end of the run, which reads from their memory.
            arrays = [_writeable(inputs[name], self._inputs[name]) for name in self._input_names]
            for name, array in zip(self._input_names, arrays, strict=True):
                self._request.set_tensor(name, self._tensor(array, shared_memory=True))
            self._request.infer()
        except EngineError:
            raise
        except Exception as error:  # its exceptions share no other base
            raise EngineError(f"openvino failed: {_line(error)}") from error
        return self._outputs

    def close(self) -> None:
        """See `Engine.close`."""
        self._request = None


def _line(error: Exception) -> str:
    """What it says, on one line."""
    return " ".join(repr(error).replace("\\n", " ").split())


def _names(ports: Any) -> list[str]:
    return [port.any_name for port in ports]


def _precision_settings(core: openvino.Core, precision: str) -> dict[str, str]:
    if precision == _INT8:
        precision = "fp32"  # for what the graph itself does not have in int8
    hint, capability = _HINTS[precision]
    # Told one that it lacks, the plugin would compute in another without a word.
    there = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if capability not in there:
        known = [name for name, (_, needed) in _HINTS.items() if needed in there]
        raise EngineError(
            f"openvino computes nothing in {precision} on this processor "
            f"({core.get_property('CPU', 'FULL_DEVICE_NAME')}), only in {', '.join(known)} and, "
            "of int8 graphs, int8; choose one of these"
        )
    if precision == _FP16:
        return {"EXECUTION_MODE_HINT": "ACCURACY"}  # each operation in the type that it has
    return {"INFERENCE_PRECISION_HINT": hint}


def _writeable(array: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    """The array itself, or a writeable view of a read-only one: no other can be shared.

    The graph only reads it.
    """
    if array.dtype != spec.dtype or array.shape != spec.shape or not array.flags.c_contiguous:
        raise EngineError(
            f"openvino failed: input {spec.name} is {array.dtype} {list(array.shape)}, expected "
            f"{spec.dtype} {list(spec.shape)}, C-contiguous"
        )
    if array.flags.writeable:
        return array
    memory = (ctypes.c_uint8 * array.nbytes).from_address(array.ctypes.data)
    shared: NDArray[Any] = np.ctypeslib.as_array(memory)
    return shared.view(spec.dtype).reshape(spec.shape)
