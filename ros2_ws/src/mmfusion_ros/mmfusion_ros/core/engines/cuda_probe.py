"""Which CUDA devices the driver knows, asked of the driver alone.

No runtime of an inference library is made to find out: without a driver, that can end the process.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

_DRIVER = "libcuda.so.1"
_SUCCESS = 0
_NAME_BYTES = 256


@dataclass(frozen=True)
class CudaDevice:
    """A GPU.

    Attributes:
        name: as its driver has it.
    """

    name: str


class _DriverError(Exception):
    pass


def cuda_devices() -> tuple[list[CudaDevice], str]:
    """The devices in the driver's order, and why there are none (empty if there are some)."""
    try:
        driver = ctypes.CDLL(_DRIVER)
    except OSError as error:
        return [], f"no CUDA driver ({error})"
    try:
        _call(driver, "cuInit", 0)
        count = ctypes.c_int()
        _call(driver, "cuDeviceGetCount", ctypes.byref(count))
        devices = [_device(driver, number) for number in range(count.value)]
    except _DriverError as error:
        return [], str(error)
    return devices, "" if devices else "the CUDA driver knows no device"


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
        raise _DriverError(f"{_DRIVER} has no {name}") from error
    if status != _SUCCESS:
        raise _DriverError(f"the CUDA driver answers {name} with error {status}")
