"""A built engine on the GPU."""

from __future__ import annotations

import ctypes
import logging
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfusion_ros.core.artifact import Artifact, TensorSpec
from mmfusion_ros.core.engines.engine import Engine
from mmfusion_ros.core.engines.engine_cache import UnusableEngineError
from mmfusion_ros.core.engines.tensorrt.driver import Address, CudaDriver, Executable
from mmfusion_ros.core.engines.tensorrt.logger import failures_told, make_logger
from mmfusion_ros.core.errors import EngineError

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Tensor:
    """An input or output: its memory on both sides."""

    name: str
    size: int
    host: Address
    device: Address
    array: NDArray[Any]  # view of the host's memory


class TensorRTEngine(Engine):
    """The graph as TensorRT's engine.

    All memory is allocated while opening. A frame is one launch: copies in, the network and
    copies out are captured as a CUDA graph, or put into the stream one by one where TensorRT
    cannot be captured. Copies do not overlap the work on the frame before: `run` returns with
    the outputs of its inputs, so there is none left by then.

    Attributes:
        captured: whether a frame is one CUDA graph.
        path: where the engine is kept.
    """

    backend = "tensorrt"

    def __init__(
        self,
        tensorrt: Any,
        serialized: bytes,
        artifact: Artifact,
        driver: CudaDriver,
        *,
        device: int = 0,
        precision: str,
        selective_scan: str,
        path: Path,
    ) -> None:
        """Load an engine onto the GPU and run it once.

        Args:
            tensorrt: the module.
            serialized: what `build` gave, on this GPU and version.
            artifact: that it was built of.
            driver: of CUDA.
            device: number of the GPU that it runs on, which it was built for.
            precision: that it computes in.
            selective_scan: how that operator is computed.
            path: where the engine is kept.

        Raises:
            UnusableEngineError: if it is of another GPU, version or artifact, or damaged.
            EngineError: if it cannot be run.
        """
        self.precision = precision
        self.selective_scan = selective_scan
        self.path = path
        self.captured = False
        self._driver = driver
        self._device = device
        self._releases: list[Callable[[], object]] = []
        self._executable: Executable | None = None
        self._failure = ""
        # Those of the host's page-locked memory would point nowhere once it is closed.
        self._outputs = {
            spec.name: np.zeros(spec.shape, spec.dtype) for spec in artifact.outputs.values()
        }
        try:
            self._open(tensorrt, serialized, artifact)
        except BaseException:
            self.close()
            raise

    def _open(self, tensorrt: Any, serialized: bytes, artifact: Artifact) -> None:
        driver = self._driver
        driver.use(self._device)
        self._stream = driver.create_stream()
        self._releases.append(partial(driver.destroy_stream, self._stream))
        self._done = driver.create_event()
        self._releases.append(partial(driver.destroy_event, self._done))
        self._log = make_logger(tensorrt)
        with failures_told(tensorrt, self._log, "cannot load an engine"):
            self._runtime = tensorrt.Runtime(self._log)
            self._releases.append(partial(setattr, self, "_runtime", None))
            self._engine = self._runtime.deserialize_cuda_engine(serialized)
        self._releases.append(partial(setattr, self, "_engine", None))
        if self._engine is None:
            raise UnusableEngineError(
                f"TensorRT {tensorrt.__version__} cannot load the engine{self._told()}"
            )
        self._inputs = self._allocate(tensorrt, tensorrt.TensorIOMode.INPUT, artifact.inputs)
        self._results = self._allocate(tensorrt, tensorrt.TensorIOMode.OUTPUT, artifact.outputs)
        missing = artifact.outputs.keys() - {tensor.name for tensor in self._results}
        if missing:
            raise UnusableEngineError(f"the engine has no output {min(missing)!r}")
        with failures_told(tensorrt, self._log, "cannot run the engine"):
            self._context = self._engine.create_execution_context()
        self._releases.append(partial(setattr, self, "_context", None))
        if self._context is None:
            raise EngineError(
                f"there is not enough GPU memory to run the engine{self._told()}; end other "
                "programs that use the GPU"
            )
        for tensor in (*self._inputs, *self._results):
            if not self._context.set_tensor_address(tensor.name, tensor.device):
                raise EngineError(f"TensorRT refuses the memory of {tensor.name}{self._told()}")
        # The first run allocates what the library needs and must not be captured.
        self._enqueue()
        self._finish()
        self._capture()

    def _allocate(self, tensorrt: Any, mode: Any, specs: Mapping[str, TensorSpec]) -> list[_Tensor]:
        engine, driver = self._engine, self._driver
        tensors = []
        for number in range(engine.num_io_tensors):
            name = engine.get_tensor_name(number)
            if engine.get_tensor_mode(name) != mode:
                continue
            spec = specs.get(name)
            shape = tuple(engine.get_tensor_shape(name))
            dtype = np.dtype(tensorrt.nptype(engine.get_tensor_dtype(name)))
            if spec is None or (dtype, shape) != (spec.dtype, spec.shape):
                expected = "nothing" if spec is None else f"{spec.dtype} {list(spec.shape)}"
                raise UnusableEngineError(
                    f"{name} of the engine is {dtype} {list(shape)}, expected {expected}"
                )
            size = spec.dtype.itemsize * math.prod(shape)
            device = driver.allocate(size)
            self._releases.append(partial(driver.free, device))
            host = driver.allocate_host(size)
            self._releases.append(partial(driver.free_host, host))
            memory = (ctypes.c_uint8 * size).from_address(host)
            array = np.frombuffer(memory, spec.dtype).reshape(shape)
            array[...] = 0
            tensors.append(_Tensor(name, size, host, device, array))
        return tensors

    def _enqueue(self) -> None:
        for tensor in self._inputs:
            self._driver.copy_to_device(tensor.device, tensor.host, tensor.size, self._stream)
        if not self._context.execute_async_v3(self._stream):
            raise EngineError(f"TensorRT failed to run the engine{self._told()}")
        for tensor in self._results:
            self._driver.copy_to_host(tensor.host, tensor.device, tensor.size, self._stream)

    def _finish(self) -> None:
        self._driver.record(self._done, self._stream)
        self._driver.wait(self._done)

    def _capture(self) -> None:
        driver = self._driver
        try:
            driver.begin_capture(self._stream)
            try:
                self._enqueue()
            except BaseException:
                # The stream is of no use before its capture is over, whatever came of it.
                with suppress(EngineError):
                    driver.destroy_graph(driver.end_capture(self._stream))
                raise
            graph = driver.end_capture(self._stream)
            self._releases.append(partial(driver.destroy_graph, graph))
            executable = driver.instantiate(graph)
        except EngineError as error:
            driver.forget_error()
            _logger.info("engine: no CUDA graph, each frame is put together anew: %s", error)
            return
        self._executable = executable
        self._releases.append(partial(driver.destroy_executable, executable))
        self.captured = True

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """See `Engine.run`."""
        if not self._releases:
            raise EngineError("the engine is closed")
        if self._failure:
            raise EngineError(f"the engine has failed and must be opened again: {self._failure}")
        for tensor in self._inputs:
            given = inputs[tensor.name]
            # NumPy would stretch a smaller array.
            if (given.dtype, given.shape) != (tensor.array.dtype, tensor.array.shape):
                raise EngineError(
                    f"input {tensor.name} is {given.dtype} {list(given.shape)}, expected "
                    f"{tensor.array.dtype} {list(tensor.array.shape)}"
                )
            np.copyto(tensor.array, given)
        try:
            self._driver.use(self._device)  # the thread may be another than that of the last frame
            if self._executable is None:
                self._enqueue()
            else:
                self._driver.launch(self._executable, self._stream)
            self._finish()
        except EngineError as error:
            # What the GPU has done of this frame, and whether it goes on, nobody knows.
            self._failure = str(error)
            raise
        for tensor in self._results:
            np.copyto(self._outputs[tensor.name], tensor.array)
        return self._outputs

    def close(self) -> None:
        """See `Engine.close`. Everything is given back in reverse, even if some of it fails."""
        if not self._releases:
            return
        with suppress(EngineError):
            self._driver.use(self._device)
        with suppress(EngineError, AttributeError):  # it may have failed, or not have come so far
            self._finish()
        while self._releases:
            try:
                self._releases.pop()()
            except EngineError as error:
                _logger.warning("engine: while closing: %s", error)
        self._executable = None

    def _told(self) -> str:
        return f": {'; '.join(self._log.errors)}" if self._log.errors else ""
