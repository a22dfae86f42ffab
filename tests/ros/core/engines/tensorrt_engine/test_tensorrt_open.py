"""An engine of TensorRT is built once, kept, and gives what the graph gives."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from artifacts import write_artifact
from cuda_double import ORIN, DriverDouble, TensorRTDouble

from mmfusion_ros.core.artifact import open_artifact
from mmfusion_ros.core.engines import EngineOptions, open_engine
from mmfusion_ros.core.engines import tensorrt as backend
from mmfusion_ros.core.engines.tensorrt import import_tensorrt, open_on, open_tensorrt
from mmfusion_ros.core.engines.tensorrt.scan_plugin import ScanPlugin
from mmfusion_ros.core.errors import EngineError

pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifact") / "small"
    return open_artifact(write_artifact(folder, saliency=True, detections=True))


@pytest.fixture
def options(tmp_path):
    return EngineOptions(backend="tensorrt", cache=tmp_path / "cache")


@pytest.fixture
def driver():
    return DriverDouble()


def random_inputs(artifact, seed=0):
    random = np.random.default_rng(seed)
    arrays = {}
    for name, spec in artifact.inputs.items():
        numbers = random.integers(0, 256, spec.shape)
        arrays[name] = numbers.astype(spec.dtype)
    arrays["present"][:] = 1
    return arrays


def test_outputs_are_those_of_onnx_runtime(artifact, options, driver):
    engine = open_on(TensorRTDouble(driver), driver, artifact, options)
    with engine, open_engine(artifact, EngineOptions(backend="onnxruntime")) as reference:
        assert (engine.backend, engine.precision, engine.gate) == ("tensorrt", "fp32", None)
        assert engine.captured
        for seed in range(3):
            inputs = random_inputs(artifact, seed)
            outputs, expected = engine.run(inputs), reference.run(inputs)
            assert list(outputs) == list(expected)
            for name, array in expected.items():
                assert outputs[name].dtype == array.dtype
                np.testing.assert_array_equal(outputs[name], array)
    assert not driver.leaks


def test_the_second_start_builds_nothing(artifact, options, driver, caplog):
    tensorrt = TensorRTDouble(driver)
    with caplog.at_level(logging.INFO):
        open_on(tensorrt, driver, artifact, options).close()
        assert "this takes minutes" in caplog.text
        caplog.clear()
        open_on(tensorrt, driver, artifact, options).close()
    assert tensorrt.builds == 1
    assert "minutes" not in caplog.text
    (path,) = options.cache.glob("*.json")
    described = json.loads(path.read_text())
    assert described["key"]["gpu"] == "Orin"
    assert described["key"]["compute_capability"] == [8, 7]
    assert described["key"]["library"] == "tensorrt 10.3.0"
    assert described["key"]["graph"] == artifact.digest
    assert described["size"] == path.with_suffix(".engine").stat().st_size


@pytest.mark.parametrize(
    "gpu",
    [
        dataclasses.replace(ORIN, compute_capability=(8, 9)),
        dataclasses.replace(ORIN, name="Thor"),
    ],
    ids=["compute capability", "name"],
)
def test_an_engine_of_another_gpu_is_not_used(artifact, options, driver, gpu):
    open_on(TensorRTDouble(driver), driver, artifact, options).close()
    first = {path: path.read_bytes() for path in options.cache.glob("*.engine")}
    other = DriverDouble(gpu)
    tensorrt = TensorRTDouble(other)
    open_on(tensorrt, other, artifact, options).close()
    assert tensorrt.builds == 1
    assert len(list(options.cache.glob("*.engine"))) == 2
    assert all(path.read_bytes() == content for path, content in first.items())


def test_an_engine_of_another_version_is_not_used(artifact, options, driver):
    open_on(TensorRTDouble(driver), driver, artifact, options).close()
    tensorrt = TensorRTDouble(driver, version="10.16.2")
    open_on(tensorrt, driver, artifact, options).close()
    assert tensorrt.builds == 1


def test_a_hardware_compatible_engine_serves_its_compute_capability_alone(
    artifact, options, driver
):
    tensorrt = TensorRTDouble(driver)
    wanted = dataclasses.replace(options, hardware_compatible=True)
    open_on(tensorrt, driver, artifact, wanted).close()
    assert tensorrt.configs[0].hardware_compatibility_level == "SAME_COMPUTE_CAPABILITY"
    for gpu, builds in (
        (dataclasses.replace(ORIN, name="Orin NX"), 0),
        (dataclasses.replace(ORIN, compute_capability=(8, 9)), 1),
    ):
        other = DriverDouble(gpu)
        tensorrt = TensorRTDouble(other)
        open_on(tensorrt, other, artifact, options).close()
        assert tensorrt.builds == builds


def test_a_kept_engine_that_does_not_load_is_built_anew(artifact, options, driver, caplog):
    tensorrt = TensorRTDouble(driver)
    tensorrt.MARK = b"another driver's "
    open_on(tensorrt, driver, artifact, options).close()
    tensorrt.MARK = TensorRTDouble.MARK
    open_on(tensorrt, driver, artifact, options).close()
    assert tensorrt.builds == 2
    assert "magic tag does not match; building it anew" in caplog.text
    open_on(tensorrt, driver, artifact, options).close()
    assert tensorrt.builds == 2
    assert not driver.leaks


def test_the_engine_tells_how_the_scan_is_run(artifact, options, driver, monkeypatch):
    with open_on(TensorRTDouble(driver), driver, artifact, options) as engine:
        assert engine.selective_scan.startswith("two-level loop (")
    plugin = ScanPlugin(digest="a" * 64)
    monkeypatch.setattr(backend, "register_scan_plugin", lambda *_: plugin)
    tensorrt = TensorRTDouble(driver)
    with open_on(tensorrt, driver, artifact, options) as engine:
        assert engine.selective_scan == "plugin"
    assert tensorrt.builds == 1  # an engine of its own


def test_reduced_precision_passes_the_gate_or_nothing_is_left_open(artifact, options, driver):
    reduced = dataclasses.replace(options, precision="fp16")
    with pytest.raises(EngineError, match="has no fp16 graph"):
        open_on(TensorRTDouble(driver), driver, artifact, reduced)


def test_a_refusal_by_the_gate_closes_the_engine(artifact, options, driver, monkeypatch):
    def refuse(engine, *_):
        assert engine.run(random_inputs(artifact))
        raise EngineError("too far from fp32")

    monkeypatch.setattr(backend, "accept", refuse)
    with pytest.raises(EngineError, match="too far from fp32"):
        open_on(TensorRTDouble(driver), driver, artifact, options)
    assert not driver.leaks


def test_progress_can_cancel(artifact, options, driver):
    class CancelledError(Exception):
        pass

    def cancel(phase, share):
        raise CancelledError

    with pytest.raises(CancelledError):
        open_on(TensorRTDouble(driver), driver, artifact, options, cancel)
    assert not list(options.cache.glob("*.engine"))
    assert not driver.leaks


def test_without_a_gpu_it_says_so(artifact, options, monkeypatch):
    monkeypatch.setattr(backend, "cuda_devices", lambda: ([], "no CUDA driver (libcuda.so.1)"))
    with pytest.raises(EngineError, match=r"needs an NVIDIA GPU and its driver: no CUDA driver"):
        open_tensorrt(artifact, options)


def test_without_the_library_it_says_so(artifact, options, monkeypatch):
    monkeypatch.setattr(backend, "cuda_devices", lambda: ([SimpleNamespace(name="Orin")], ""))
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EngineError, match=r"backend tensorrt cannot be imported .* Jetson"):
        open_tensorrt(artifact, options)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (SimpleNamespace(__version__="8.6.2"), "TensorRT 8.6.2 is too old; expected 10.3"),
        (SimpleNamespace(__path__=["somewhere"]), "from .'somewhere'. has no version"),
    ],
)
def test_libraries_that_cannot_serve_are_refused(module, message, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    with pytest.raises(EngineError, match=message):
        import_tensorrt()
