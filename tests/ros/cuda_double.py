"""A CUDA driver whose device is this process's memory, and a TensorRT that computes there.

Bytes are really copied, in the order of the streams and no earlier than somebody waits; what is
freed is gone; the network is run by ONNX Runtime.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import itertools
import threading
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import onnxruntime

from mmfusion_ros.core.engines.tensorrt.driver import Gpu
from mmfusion_ros.core.errors import EngineError

ORIN = Gpu("Orin", (8, 7))
_number = itertools.count().__next__


class DriverDouble:
    """The seam. ``calls`` counts and ``order`` lists them; ``fails`` names those that fail now.

    As with CUDA, each thread works on one device at a time, at first on device 0, and does nothing
    with what another device has.
    """

    def __init__(self, gpu: Gpu = ORIN, *more: Gpu) -> None:
        self.gpu = gpu
        self._gpus = [gpu, *more]
        self._thread = threading.local()
        self.devices: dict[int, int] = {}  # of memory, streams and so on
        self.calls: Counter[str] = Counter()
        self.order: list[str] = []
        self.fails: set[str] = set()
        self.memory: dict[int, ctypes.Array] = {}
        self.streams: dict[int, list[Callable[[], None]]] = {}
        self.events: dict[int, list[tuple[int, int]]] = {}
        self.capturing: dict[int, list[Callable[[], None]]] = {}
        self.graphs: set[int] = set()
        self._handles = itertools.count(1)

    def _called(self, name: str) -> None:
        self.calls[name] += 1
        self.order.append(name)
        if name in self.fails:
            raise EngineError(f"{name} failed: injected")

    def gpus(self):
        return self._gpus

    @property
    def device(self) -> int:
        """What this thread works on."""
        return getattr(self._thread, "device", 0)

    def use(self, number):
        self._called("use")
        assert 0 <= number < len(self._gpus)
        self._thread.device = number

    def _made(self, handle: int) -> int:
        self.devices[handle] = self.device
        return handle

    def require_here(self, *handles: int) -> None:
        assert {self.devices[handle] for handle in handles} == {self.device}

    def _allocate(self, name, size):
        self._called(name)
        buffer = (ctypes.c_uint8 * size)()
        self.memory[ctypes.addressof(buffer)] = buffer
        return self._made(ctypes.addressof(buffer))

    def allocate(self, size):
        return self._allocate("allocate", size)

    def allocate_host(self, size):
        return self._allocate("allocate_host", size)

    def free(self, memory):
        self._called("free")
        self.require_here(memory)
        del self.memory[memory]

    def free_host(self, memory):
        self._called("free_host")
        self.require_here(memory)
        del self.memory[memory]

    def put(self, stream, work: Callable[[], None]) -> None:
        (self.capturing if stream in self.capturing else self.streams)[stream].append(work)

    def _copy(self, name, to, of, size, stream):
        self._called(name)
        self.require_here(to, of, stream)

        def work() -> None:
            assert size <= len(self.memory[to])
            assert size <= len(self.memory[of])
            ctypes.memmove(to, of, size)

        self.put(stream, work)

    def copy_to_device(self, to, of, size, stream):
        self._copy("copy_to_device", to, of, size, stream)

    def copy_to_host(self, to, of, size, stream):
        self._copy("copy_to_host", to, of, size, stream)

    def create_stream(self):
        self._called("create_stream")
        stream = self._made(next(self._handles))
        self.streams[stream] = []
        return stream

    def destroy_stream(self, stream):
        self._called("destroy_stream")
        self.require_here(stream)
        del self.streams[stream]

    def create_event(self):
        self._called("create_event")
        event = self._made(next(self._handles))
        self.events[event] = []
        return event

    def destroy_event(self, event):
        self._called("destroy_event")
        self.require_here(event)
        del self.events[event]

    def record(self, event, stream):
        self._called("record")
        self.require_here(event, stream)
        self.events[event] = [(stream, len(self.streams[stream]))]

    def wait(self, event):
        self._called("wait")
        for stream, count in self.events[event]:
            queued = self.streams[stream]
            now, self.streams[stream] = queued[:count], queued[count:]
            for work in now:
                work()
        self.events[event] = []

    def begin_capture(self, stream):
        self._called("begin_capture")
        self.require_here(stream)
        self.capturing[stream] = []

    def end_capture(self, stream):
        works = self.capturing.pop(stream)
        self._called("end_capture")
        graph = SimpleNamespace(works=works)
        self.graphs.add(id(graph))
        return graph

    def instantiate(self, graph):
        self._called("instantiate")
        executable = SimpleNamespace(works=list(graph.works))
        self._made(id(executable))
        self.graphs.add(id(executable))
        return executable

    def launch(self, executable, stream):
        self._called("launch")
        self.require_here(id(executable), stream)
        self.streams[stream] += executable.works

    def destroy_graph(self, graph):
        self._called("destroy_graph")
        self.graphs.remove(id(graph))

    def destroy_executable(self, executable):
        self._called("destroy_executable")
        self.graphs.remove(id(executable))

    def forget_error(self):
        self._called("forget_error")

    @property
    def leaks(self) -> list[object]:
        return [*self.memory, *self.streams, *self.events, *self.graphs]


class Severity(enum.Enum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class Mode(enum.Enum):
    INPUT, OUTPUT = range(2)


class Logger:
    Severity = Severity


class Monitor:
    pass


class TensorRTDouble:
    """The module, as far as it is used; ``serialized`` engines are a mark and the graph.

    No two of them are the same, as no two builds are.

    Args:
        driver: device that contexts compute on.
        capturable: whether a run may be captured.
        strongly_typed: whether networks still have the flag.
    """

    __name__ = "tensorrt"
    MARK = b"engine of "

    def __init__(self, driver, *, version="10.3.0", capturable=True, strongly_typed=True) -> None:
        self.driver = driver
        self.__version__ = version
        self.capturable = capturable
        self.refuses_to_run = False
        self.fits_cuda = True
        self.builds = 0
        self.built_on: list[int] = []
        self.build_errors: list[str] = []
        self.phases = [("Building engine", None, 2), ("Timing tactics", "Building engine", 2)]
        self.network_flags: list[int] = []
        self.configs: list[SimpleNamespace] = []
        self.open: list[str] = []
        self.ILogger = Logger
        self.IProgressMonitor = Monitor
        self.TensorIOMode = Mode
        self.BuilderFlag = SimpleNamespace(TF32="TF32")
        self.MemoryPoolType = SimpleNamespace(WORKSPACE="WORKSPACE")
        self.HardwareCompatibilityLevel = SimpleNamespace(
            NONE=0, SAME_COMPUTE_CAPABILITY="SAME_COMPUTE_CAPABILITY"
        )
        self.NetworkDefinitionCreationFlag = (
            SimpleNamespace(STRONGLY_TYPED=3) if strongly_typed else SimpleNamespace()
        )

    def init_libnvinfer_plugins(self, logger, namespace):
        return True

    def nptype(self, dtype):
        return dtype

    def serialized(self, graph):
        return self.MARK + f"{_number():08}".encode() + graph

    def _require_cuda(self, log):
        if not self.fits_cuda:
            log.log(Severity.ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def Builder(self, log):
        self._require_cuda(log)
        return _Builder(self, log)

    def OnnxParser(self, network, log):
        def parse(graph):
            network.graph = graph
            return True

        return SimpleNamespace(parse=parse, num_errors=0)

    def Runtime(self, log):
        self._require_cuda(log)

        def deserialize(serialized):
            if not serialized.startswith(self.MARK):
                log.log(Severity.ERROR, "Serialization assertion failed: magic tag does not match")
                return None
            return _Engine(self, serialized[len(self.MARK) + 8 :])

        return SimpleNamespace(deserialize_cuda_engine=deserialize)


class _Builder:
    def __init__(self, module, log) -> None:
        self.module, self.log = module, log

    def create_network(self, flags):
        self.module.network_flags.append(flags)
        return SimpleNamespace(num_inputs=0, graph=b"")

    def create_builder_config(self):
        config = SimpleNamespace(cleared=[], limits={}, timings=b"")
        config.clear_flag = config.cleared.append
        config.set_memory_pool_limit = config.limits.__setitem__
        config.create_timing_cache = lambda kept: (
            SimpleNamespace(serialize=lambda: b"timings") if kept in {b"", b"timings"} else None
        )
        config.set_timing_cache = lambda cache, ignore_mismatch: True
        config.get_timing_cache = lambda: SimpleNamespace(serialize=lambda: b"timings")
        self.module.configs.append(config)
        return config

    def build_serialized_network(self, network, config):
        module = self.module
        module.builds += 1
        module.built_on.append(module.driver.device)
        monitor = config.progress_monitor
        for name, parent, steps in module.phases:
            monitor.phase_start(name, parent, steps)
        for name, _, steps in reversed(module.phases):
            for step in range(steps):
                if not monitor.step_complete(name, step):
                    return None
            monitor.phase_finish(name)
        for error in module.build_errors:
            self.log.log(Severity.ERROR, error)
        return None if module.build_errors else module.serialized(network.graph)


class _Engine:
    def __init__(self, module, graph) -> None:
        self.module = module
        self.device = module.driver.device
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(graph, options)
        self.tensors = [
            *((value, Mode.INPUT) for value in self.session.get_inputs()),
            *((value, Mode.OUTPUT) for value in self.session.get_outputs()),
        ]
        self.num_io_tensors = len(self.tensors)

    def _of(self, name):
        return next(tensor for tensor in self.tensors if tensor[0].name == name)

    def get_tensor_name(self, number):
        return self.tensors[number][0].name

    def get_tensor_mode(self, name):
        return self._of(name)[1]

    def get_tensor_shape(self, name):
        return self._of(name)[0].shape

    def get_tensor_dtype(self, name):
        kind = self._of(name)[0].type[len("tensor(") : -1]
        return np.dtype({"float": "float32"}.get(kind, kind))

    def create_execution_context(self):
        return _Context(self)


class _Context:
    def __init__(self, engine) -> None:
        self.engine, self.driver = engine, engine.module.driver
        self.addresses: dict[str, int] = {}
        engine.module.open.append("context")

    def __del__(self) -> None:
        with contextlib.suppress(ValueError):
            self.engine.module.open.remove("context")
            self.driver.order.append("context")

    def set_tensor_address(self, name, address):
        assert address in self.driver.memory
        assert self.driver.devices[address] == self.engine.device
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream):
        module = self.engine.module
        assert self.driver.device == self.engine.device
        self.driver.require_here(stream)
        if module.refuses_to_run or (stream in self.driver.capturing and not module.capturable):
            return False
        engine, addresses, memory = self.engine, dict(self.addresses), self.driver.memory

        def view(value):
            dtype = engine.get_tensor_dtype(value.name)
            return np.frombuffer(memory[addresses[value.name]], dtype).reshape(value.shape)

        def work() -> None:
            values = engine.session.run(
                None, {v.name: view(v) for v, mode in engine.tensors if mode is Mode.INPUT}
            )
            for value, array in zip(engine.session.get_outputs(), values, strict=True):
                view(value)[...] = array

        self.driver.put(stream, work)
        return True
