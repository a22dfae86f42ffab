"""The CUDA calls that running an engine needs, and nothing else of CUDA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NewType, Protocol

from mmfusion_ros.core.errors import EngineError

Address = int
Stream = int
Event = int
Graph = NewType("Graph", object)
Executable = NewType("Executable", object)


@dataclass(frozen=True)
class Gpu:
    """A CUDA device.

    Attributes:
        name: as its driver has it.
        compute_capability: (major, minor).
    """

    name: str
    compute_capability: tuple[int, int]


class CudaDriver(Protocol):
    """What an engine asks of CUDA. Every call raises `EngineError`, naming itself, if it fails."""

    def gpus(self) -> Sequence[Gpu]:
        """All devices; at least one."""

    def use(self, number: int) -> None:
        """Let this thread work on a device; others go on with theirs, at first device 0."""

    def allocate(self, size: int) -> Address:
        """Memory of the device."""

    def free(self, memory: Address) -> None:
        """Give back what `allocate` gave."""

    def allocate_host(self, size: int) -> Address:
        """Page-locked memory, which the device reads and writes by itself."""

    def free_host(self, memory: Address) -> None:
        """Give back what `allocate_host` gave."""

    def copy_to_device(self, to: Address, of: Address, size: int, stream: Stream) -> None:
        """Put a copy from page-locked memory into the stream."""

    def copy_to_host(self, to: Address, of: Address, size: int, stream: Stream) -> None:
        """Put a copy into page-locked memory into the stream."""

    def create_stream(self) -> Stream:
        """A stream that does not wait for the default one."""

    def destroy_stream(self, stream: Stream) -> None:
        """Give back what `create_stream` gave."""

    def create_event(self) -> Event:
        """An event whose waiting thread sleeps."""

    def destroy_event(self, event: Event) -> None:
        """Give back what `create_event` gave."""

    def record(self, event: Event, stream: Stream) -> None:
        """Let the event come when all that was put into the stream is done."""

    def wait(self, event: Event) -> None:
        """Sleep until the event comes; errors of the work before it come out here."""

    def begin_capture(self, stream: Stream) -> None:
        """Note down what this thread puts into the stream from now on, and do not do it."""

    def end_capture(self, stream: Stream) -> Graph:
        """What was noted down."""

    def instantiate(self, graph: Graph) -> Executable:
        """Make it ready to be launched again and again."""

    def launch(self, executable: Executable, stream: Stream) -> None:
        """Put all of it into the stream."""

    def destroy_executable(self, executable: Executable) -> None:
        """Give back what `instantiate` gave."""

    def destroy_graph(self, graph: Graph) -> None:
        """Give back what `end_capture` gave."""

    def forget_error(self) -> None:
        """Clear an error that was dealt with, so that no later call tells it again."""


class CudaRuntime:
    """The driver, by ``cuda-bindings``."""

    def __init__(self) -> None:
        """Load the bindings and ask for devices.

        Raises:
            EngineError: if the bindings or the driver are missing, or there is no device.
        """
        try:
            from cuda.bindings import runtime  # noqa: PLC0415 (optional)
        except ImportError as error:
            raise EngineError(
                f"backend tensorrt cannot call CUDA without cuda-bindings ({error}); install them "
                "with 'pip install cuda-bindings', in the version of this machine's CUDA"
            ) from error
        self._cuda: Any = runtime
        self._count = int(self._call("cudaGetDeviceCount"))
        if self._count < 1:
            raise EngineError("the CUDA driver knows no device; connect or enable an NVIDIA GPU")

    def gpus(self) -> Sequence[Gpu]:  # noqa: D102
        return [self._gpu(number) for number in range(self._count)]

    def use(self, number: int) -> None:  # noqa: D102
        self._call("cudaSetDevice", number)

    def allocate(self, size: int) -> Address:  # noqa: D102
        return int(self._call("cudaMalloc", size))

    def free(self, memory: Address) -> None:  # noqa: D102
        self._call("cudaFree", memory)

    def allocate_host(self, size: int) -> Address:  # noqa: D102
        return int(self._call("cudaHostAlloc", size, self._cuda.cudaHostAllocDefault))

    def free_host(self, memory: Address) -> None:  # noqa: D102
        self._call("cudaFreeHost", memory)

    def copy_to_device(self, to: Address, of: Address, size: int, stream: Stream) -> None:  # noqa: D102
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", to, of, size, kind, stream)

    def copy_to_host(self, to: Address, of: Address, size: int, stream: Stream) -> None:  # noqa: D102
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", to, of, size, kind, stream)

    def create_stream(self) -> Stream:  # noqa: D102
        return int(self._call("cudaStreamCreateWithFlags", self._cuda.cudaStreamNonBlocking))

    def destroy_stream(self, stream: Stream) -> None:  # noqa: D102
        self._call("cudaStreamDestroy", stream)

    def create_event(self) -> Event:  # noqa: D102
        flags = self._cuda.cudaEventBlockingSync | self._cuda.cudaEventDisableTiming
        return int(self._call("cudaEventCreateWithFlags", flags))

    def destroy_event(self, event: Event) -> None:  # noqa: D102
        self._call("cudaEventDestroy", event)

    def record(self, event: Event, stream: Stream) -> None:  # noqa: D102
        self._call("cudaEventRecord", event, stream)

    def wait(self, event: Event) -> None:  # noqa: D102
        self._call("cudaEventSynchronize", event)

    def begin_capture(self, stream: Stream) -> None:  # noqa: D102
        # Other threads may call CUDA meanwhile.
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)

    def end_capture(self, stream: Stream) -> Graph:  # noqa: D102
        return Graph(self._call("cudaStreamEndCapture", stream))

    def instantiate(self, graph: Graph) -> Executable:  # noqa: D102
        return Executable(self._call("cudaGraphInstantiate", graph, 0))

    def launch(self, executable: Executable, stream: Stream) -> None:  # noqa: D102
        self._call("cudaGraphLaunch", executable, stream)

    def destroy_executable(self, executable: Executable) -> None:  # noqa: D102
        self._call("cudaGraphExecDestroy", executable)

    def destroy_graph(self, graph: Graph) -> None:  # noqa: D102
        self._call("cudaGraphDestroy", graph)

    def forget_error(self) -> None:  # noqa: D102
        # Its answer is that error, so it is no failure of this call.
        self._cuda.cudaGetLastError()

    def _gpu(self, number: int) -> Gpu:
        properties = self._call("cudaGetDeviceProperties", number)
        return Gpu(
            name=properties.name.decode(errors="replace").rstrip("\0"),
            compute_capability=(properties.major, properties.minor),
        )

    def _call(self, name: str, *arguments: object) -> Any:
        """Call the function and return what it gives besides its status."""
        try:
            status, *results = getattr(self._cuda, name)(*arguments)
        except RuntimeError as error:  # the bindings found no library to call
            raise EngineError(f"{name} cannot be called: {error}") from error
        if status != self._cuda.cudaError_t.cudaSuccess:
            raise EngineError(f"{name} failed: {self._told(status)}")
        return results[0] if results else None

    def _told(self, status: Any) -> str:
        _, text = self._cuda.cudaGetErrorString(status)
        return f"{text.decode(errors='replace')} ({status.name}, {int(status)})"
