"""Which engines there are, and why not the others."""

from __future__ import annotations

import sys

import pytest
from finders import is_helpful

from mmfusion_ros.checks import backends
from mmfusion_ros.checks.backends import check_backends
from mmfusion_ros.checks.subject import Setup
from mmfusion_ros.core.engines.cuda_probe import CudaDevice

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


def test_tensorrt_is_looked_for_where_there_is_a_device(monkeypatch):
    monkeypatch.setattr(backends, "cuda_devices", lambda: ([CudaDevice("Orin", (8, 7))], ""))
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert found().values["tensorrt"].startswith("no: import of tensorrt halted")
