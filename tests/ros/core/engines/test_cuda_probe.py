"""What the CUDA driver says of the devices; a made-up driver where there is none."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mmfusion_ros.core.engines import cuda_probe
from mmfusion_ros.core.engines.cuda_probe import CudaDevice, CudaDriverError, cuda_devices

ORIN, THOR = CudaDevice("Orin"), CudaDevice("Thor")


def driver(*devices: CudaDevice, **statuses: int) -> SimpleNamespace:
    """A driver of these devices, whose functions give these statuses instead of 0."""

    def count(pointer):
        pointer._obj.value = len(devices)

    def get(pointer, number):
        pointer._obj.value = number + 40  # a handle is no number

    def name(buffer, size, handle):
        buffer.value = devices[handle.value - 40].name.encode()[: size - 1]

    def error_name(status, pointer):
        pointer._obj.value = {999: b"CUDA_ERROR_UNKNOWN"}.get(status)
        return 0 if status == 999 else 1

    functions = {
        "cuGetErrorName": error_name,
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


def test_a_driver_that_finds_no_device_when_it_begins(drivers):
    """As on a machine that has NVIDIA's packages and no GPU."""
    drivers(driver(cuInit=100))
    assert cuda_devices() == ([], "the CUDA driver knows no device")


@pytest.mark.parametrize("function", ["cuInit", "cuDeviceGetCount", "cuDeviceGetName"])
@pytest.mark.parametrize(
    ("status", "name"), [(999, r"CUDA_ERROR_UNKNOWN \(999\)"), (12345, r"error \(12345\)")]
)
def test_a_driver_that_fails_says_where_and_with_what(drivers, function, status, name):
    drivers(driver(ORIN, **{function: status}))
    with pytest.raises(CudaDriverError, match=f"answers {function} with {name}; see that"):
        cuda_devices()


def test_a_library_that_is_no_driver(drivers):
    drivers(SimpleNamespace())
    with pytest.raises(CudaDriverError, match=r"libcuda\.so\.1 has no cuInit; install"):
        cuda_devices()


def test_a_driver_that_fails_and_knows_no_names(drivers):
    drivers(SimpleNamespace(cuInit=lambda _: 34))
    with pytest.raises(CudaDriverError, match=r"answers cuInit with error \(34\)"):
        cuda_devices()


def test_no_driver(monkeypatch):
    monkeypatch.setattr(cuda_probe, "_DRIVER", "libcuda_that_is_not_there.so.1")
    devices, reason = cuda_devices()
    assert devices == []
    assert reason.startswith("no CUDA driver (libcuda_that_is_not_there.so.1: ")


def test_a_real_driver_if_there_is_one():
    devices, reason = cuda_devices()
    assert bool(devices) != bool(reason)
