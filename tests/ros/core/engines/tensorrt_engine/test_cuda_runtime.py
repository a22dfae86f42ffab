"""The calls of CUDA exist in the bindings, take what they are given and fail by name."""

from __future__ import annotations

import sys

import pytest

from mmfusion_ros.core.engines.cuda_probe import cuda_devices
from mmfusion_ros.core.engines.tensorrt.driver import CudaRuntime
from mmfusion_ros.core.errors import EngineError

no_gpu = pytest.mark.skipif(bool(cuda_devices()[0]), reason="there is a GPU, which would answer")


def test_without_the_bindings_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(EngineError, match=r"without cuda-bindings .*pip install cuda-bindings"):
        CudaRuntime()


@no_gpu
def test_without_a_driver_the_call_and_its_error_are_named():
    pytest.importorskip("cuda.bindings.runtime")
    with pytest.raises(EngineError, match=r"cudaGetDeviceCount failed: .* \(cudaError\w+, \d+\)"):
        CudaRuntime()


@no_gpu
@pytest.mark.parametrize(
    ("method", "arguments", "call"),
    [
        ("use", (0,), "cudaSetDevice"),
        ("allocate", (16,), "cudaMalloc"),
        ("allocate_host", (16,), "cudaHostAlloc"),
        ("free", (4096,), "cudaFree"),
        ("free_host", (4096,), "cudaFreeHost"),
        ("copy_to_device", (4096, 8192, 16, 1), "cudaMemcpyAsync"),
        ("copy_to_host", (4096, 8192, 16, 1), "cudaMemcpyAsync"),
        ("create_stream", (), "cudaStreamCreateWithFlags"),
        ("destroy_stream", (1,), "cudaStreamDestroy"),
        ("create_event", (), "cudaEventCreateWithFlags"),
        ("destroy_event", (1,), "cudaEventDestroy"),
        ("record", (1, 1), "cudaEventRecord"),
        ("wait", (1,), "cudaEventSynchronize"),
        ("begin_capture", (1,), "cudaStreamBeginCapture"),
        ("end_capture", (1,), "cudaStreamEndCapture"),
        ("instantiate", (1,), "cudaGraphInstantiate"),
        ("launch", (1, 1), "cudaGraphLaunch"),
        ("destroy_executable", (1,), "cudaGraphExecDestroy"),
        ("destroy_graph", (1,), "cudaGraphDestroy"),
    ],
)
def test_each_call_takes_its_arguments_and_fails_by_name(method, arguments, call):
    """With no driver every call answers with an error; wrong arguments would raise another one."""
    runtime = CudaRuntime.__new__(CudaRuntime)
    runtime._cuda = pytest.importorskip("cuda.bindings.runtime")
    with pytest.raises(EngineError, match=f"^{call} failed: "):
        getattr(runtime, method)(*arguments)
    runtime.forget_error()
