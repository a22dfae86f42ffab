"""Which engines there are, and why not the others."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from finders import is_helpful

from mmfusion_ros.checks import backends
from mmfusion_ros.checks.backends import check_backends
from mmfusion_ros.checks.subject import Setup
from mmfusion_ros.core.engines.cuda_probe import CudaDevice, CudaDriverError

pytest.importorskip("onnxruntime")


def found():
    (finding,) = check_backends(Setup())
    return finding


def test_every_backend_is_told(monkeypatch):
    monkeypatch.setattr(backends, "cuda_devices", lambda: ([], "no CUDA driver"))
    finding = found()
    assert finding.level == "ok"
    assert list(finding.values) == ["onnxruntime", "openvino", "tensorrt"]
    assert finding.values["onnxruntime"][0].isdigit()
    assert finding.values["tensorrt"] == "no: no CUDA driver"


def failing_driver():
    raise CudaDriverError("the CUDA driver answers cuInit with CUDA_ERROR_UNKNOWN (999)")


def test_a_driver_that_fails_is_a_warning(monkeypatch):
    monkeypatch.setattr(backends, "cuda_devices", failing_driver)
    finding = found()
    assert finding.level == "warning"
    assert is_helpful(finding)
    assert "no: the CUDA driver answers cuInit with CUDA_ERROR_UNK" in finding.values["tensorrt"]
    assert finding.values["tensorrt"] in finding.found


def test_without_onnxruntime_a_driver_that_fails_is_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr(backends, "cuda_devices", failing_driver)
    assert found().level == "error"


def test_the_precisions_of_openvino_are_told():
    pytest.importorskip("openvino")
    assert "fp32" in found().values["openvino"]


@pytest.mark.parametrize("missing", ["openvino", "onnx"])
def test_an_optional_one_that_is_missing_is_no_fault(monkeypatch, missing):
    pytest.importorskip("openvino")
    monkeypatch.setitem(sys.modules, missing, None)
    finding = found()
    assert finding.level == "ok"
    assert "pip install" in finding.values["openvino"]


def test_without_onnxruntime_nothing_runs(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    finding = found()
    assert finding.level == "error"
    assert is_helpful(finding)


@pytest.fixture
def gpu(monkeypatch):
    devices = [CudaDevice("Orin"), CudaDevice("Thor")]
    monkeypatch.setattr(backends, "cuda_devices", lambda: (devices, ""))
    for module in ("cuda.bindings.runtime", "onnx"):
        monkeypatch.setitem(sys.modules, module, SimpleNamespace())
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="10.3.0"))


@pytest.mark.usefixtures("gpu")
def test_tensorrt_is_usable_with_all_that_it_needs():
    assert found().values["tensorrt"] == "10.3.0 (0 Orin, 1 Thor)"


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("module", "advice"),
    [
        ("tensorrt", "install NVIDIA's TensorRT 10.3"),
        ("cuda.bindings.runtime", "pip install cuda-bindings"),
        ("onnx", "pip install onnx"),
    ],
)
def test_tensorrt_without_what_it_needs_is_of_no_use(monkeypatch, module, advice):
    monkeypatch.setitem(sys.modules, module, None)
    told = found().values["tensorrt"]
    assert told.startswith("no: ")
    assert advice in told


@pytest.mark.usefixtures("gpu")
def test_tensorrt_that_is_too_old_is_of_no_use(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="8.6.2"))
    assert "8.6.2 is too old; expected 10.3" in found().values["tensorrt"]
