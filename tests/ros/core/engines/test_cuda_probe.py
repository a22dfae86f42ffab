"""What the CUDA driver says of the devices; a made-up driver where there is none."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mmfusion_ros.core.engines import cuda_probe
from mmfusion_ros.core.engines.cuda_probe import CudaDevice, cuda_devices

ORIN, THOR = CudaDevice("Orin"), CudaDevice("Thor")


def driver(*devices: CudaDevice, **statuses: int) -> SimpleNamespace:
    """A driver of these devices, whose functions give these statuses instead of 0."""

    def count(pointer):
        pointer._obj.value = len(devices)

    def get(pointer, number):
        pointer._obj.value = number + 40  # a handle is no number

    def name(buffer, size, handle):
        buffer.value = devices[handle.value - 40].name.encode()[: size - 1]

    functions = {
        "cuInit": lambda flags: None,
        "cuDeviceGetCount": count,
        "cuDeviceGet": get,
        "cuDeviceGetName": name,
    }

    def answering(name, function):
        return lambda *arguments: statuses.get(name) or function(*arguments) or 0

    return SimpleNamespace(**{name: answering(name, f) for name, f in functions.items()})


@pytest.fixture
def drivers(monkeypatch):
    def use(library):
        monkeypatch.setattr(cuda_probe.ctypes, "CDLL", lambda _: library)

    return use


def test_devices_are_told_in_order(drivers):
    drivers(driver(ORIN, THOR))
    assert cuda_devices() == ([ORIN, THOR], "")


def test_a_driver_without_devices(drivers):
    drivers(driver())
    assert cuda_devices() == ([], "the CUDA driver knows no device")


@pytest.mark.parametrize("function", ["cuInit", "cuDeviceGetCount", "cuDeviceGetName"])
def test_a_driver_that_fails_says_where(drivers, function):
    drivers(driver(ORIN, **{function: 100}))
    assert cuda_devices() == ([], f"the CUDA driver answers {function} with error 100")


def test_a_library_that_is_no_driver(drivers):
    drivers(SimpleNamespace())
    assert cuda_devices() == ([], "libcuda.so.1 has no cuInit")


def test_no_driver(monkeypatch):
    monkeypatch.setattr(cuda_probe, "_DRIVER", "libcuda_that_is_not_there.so.1")
    devices, reason = cuda_devices()
    assert devices == []
    assert reason.startswith("no CUDA driver (libcuda_that_is_not_there.so.1: ")


def test_a_real_driver_if_there_is_one():
    devices, reason = cuda_devices()
    assert bool(devices) != bool(reason)
