"""Which CUDA devices the driver knows, asked of the driver alone.

No runtime of an inference library is made to find out: without a driver, that can end the process.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from mmfusion_ros.core.errors import EngineError

_DRIVER = "libcuda.so.1"
_SUCCESS = 0
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE: a driver may be installed where no GPU is
_NAME_BYTES = 256


@dataclass(frozen=True)
class CudaDevice:
    """A GPU.

    Attributes:
        name: as its driver has it.
    """

    name: str


class CudaDriverError(EngineError):
    """There is a driver, and it fails: unlike a machine without a GPU, one that needs repair."""


class _NoDevice(Exception):  # noqa: N818 (it is no error)
    """The driver knows no device."""


def cuda_devices() -> tuple[list[CudaDevice], str]:
    """The devices in the driver's order, and why there are none (empty if there are some).

    Raises:
        CudaDriverError: if a driver is there but does not answer, naming CUDA's error.
    """
    try:
        driver = ctypes.CDLL(_DRIVER)
    except OSError as error:
        return [], f"no CUDA driver ({error})"
    try:
        _call(driver, "cuInit", 0)
        count = ctypes.c_int()
        _call(driver, "cuDeviceGetCount", ctypes.byref(count))
        devices = [_device(driver, number) for number in range(count.value)]
    except _NoDevice:
        devices = []
    return devices, "" if devices else "the CUDA driver knows no device"


class _Named(Protocol):
    @property
    def name(self) -> str: ...


def numbered(devices: Iterable[_Named]) -> str:
    """GPUs in CUDA's order with the numbers that choose them, for people."""
    return ", ".join(f"{number} {device.name}" for number, device in enumerate(devices))


def _device(driver: ctypes.CDLL, number: int) -> CudaDevice:
    handle = ctypes.c_int()
    _call(driver, "cuDeviceGet", ctypes.byref(handle), number)
    name = ctypes.create_string_buffer(_NAME_BYTES)
    _call(driver, "cuDeviceGetName", name, _NAME_BYTES, handle)
    return CudaDevice(name.value.decode(errors="replace"))


def _call(driver: ctypes.CDLL, name: str, *arguments: object) -> None:
    try:
        status = getattr(driver, name)(*arguments)
    except AttributeError as error:
        raise CudaDriverError(f"{_DRIVER} has no {name}; install NVIDIA's driver again") from error
    if status == _NO_DEVICE:
        raise _NoDevice
    if status != _SUCCESS:
        raise CudaDriverError(
            f"the CUDA driver answers {name} with {_named(driver, status)}; see that "
            "'nvidia-smi' (on a Jetson 'tegrastats') works, restart after an update of the driver"
        )


def _named(driver: ctypes.CDLL, status: int) -> str:
    """An error as CUDA names it, such as CUDA_ERROR_UNKNOWN (999)."""
    name = ctypes.c_char_p()
    try:
        known = driver.cuGetErrorName(status, ctypes.byref(name)) == _SUCCESS
    except AttributeError:
        known = False
    told = name.value.decode(errors="replace") if known and name.value else "error"
    return f"{told} ({status})"
