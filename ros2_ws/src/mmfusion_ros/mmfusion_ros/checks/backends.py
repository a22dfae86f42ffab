"""Which engines this machine can run."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator

from mmfusion_ros.checks.finding import Finding, Level, ok
from mmfusion_ros.checks.subject import Setup
from mmfusion_ros.core.engines.cuda_probe import CudaDriverError, cuda_devices, numbered
from mmfusion_ros.core.engines.tensorrt import import_tensorrt


class _UnusableError(Exception):
    """Why a backend cannot be used."""


def check_backends(_setup: Setup) -> Iterator[Finding]:
    """Each backend: its version, or why it is of no use; those that are optional are no fault.

    A CUDA driver that fails is one: there is a GPU that somebody means to use.
    """
    states, usable, driver_fails = {}, [], False
    for name, probe in _PROBES.items():
        try:
            states[name] = probe()
            usable.append(name)
        except (_UnusableError, CudaDriverError) as error:
            states[name] = f"no: {error}"
            driver_fails = driver_fails or isinstance(error, CudaDriverError)
    found = "; ".join(f"{name} {state}" for name, state in states.items())
    if "onnxruntime" not in usable:
        yield Finding(
            "engine.backends",
            Level.ERROR,
            found,
            "onnxruntime, which runs every artifact and is what others are compared with",
            "pip install onnxruntime",
            states,
        )
    elif driver_fails:
        yield Finding(
            "engine.backends",
            Level.WARNING,
            found,
            "a CUDA driver that answers, where there is one",
            "restart after an update of the driver, else install NVIDIA's driver again; the CPU "
            "computes meanwhile",
            states,
        )
    else:
        yield ok("engine.backends", found, **states)


def _onnxruntime() -> str:
    return _version("onnxruntime")


def _openvino() -> str:
    version = _version("openvino", "; pip install openvino onnx")
    _version("onnx", "; pip install onnx")
    core = importlib.import_module("openvino").Core()
    capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    known = [name for name in ("FP32", "FP16", "BF16", "INT8") if name in capabilities]
    return f"{version} ({', '.join(known).lower()})"


def _tensorrt() -> str:
    devices, reason = cuda_devices()
    if not devices:
        raise _UnusableError(reason)
    # Imported only where there is a driver: its own probing would end the process elsewhere.
    try:
        version = import_tensorrt().__version__
    except Exception as error:  # a wrong build may raise anything
        raise _UnusableError(str(error)) from error
    _version("cuda.bindings.runtime", "; pip install cuda-bindings, of this machine's CUDA")
    _version("onnx", "; pip install onnx, which builds need")
    return f"{version} ({numbered(devices)})"


_PROBES: dict[str, Callable[[], str]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "tensorrt": _tensorrt,
}


def _version(name: str, advice: str = "") -> str:
    try:
        module = importlib.import_module(name)
    except Exception as error:  # a wrong build may raise anything
        raise _UnusableError(f"{error}{advice}") from error
    # OpenVINO's goes on with its build.
    return str(getattr(module, "__version__", "of unknown version")).partition("-")[0]
