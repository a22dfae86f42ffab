"""An engine of TensorRT is built once, kept, and gives what the graph gives."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from artifacts import add_reduced_graph, write_artifact
from cuda_double import ORIN, DriverDouble, TensorRTDouble

from mmfusion_ros.core.artifact import open_artifact
from mmfusion_ros.core.engines import EngineOptions, open_engine
from mmfusion_ros.core.engines import tensorrt as backend
from mmfusion_ros.core.engines.sample_frames import SampleFrames, write_sample_frames
from mmfusion_ros.core.engines.tensorrt import import_tensorrt, open_on, open_tensorrt
from mmfusion_ros.core.engines.tensorrt.driver import Gpu
from mmfusion_ros.core.errors import EngineError

pytest.importorskip("onnx")

TOLERANCES = {"fused": {"psnr_db": 45}}


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


THOR = Gpu("Thor", (11, 0))


def on_another_thread(work):
    """What it gives, or raises."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def test_the_device_chosen_builds_and_runs_on_whichever_thread(artifact, options):
    """The double lets no thread touch what is another device's than the one it works on."""
    driver = DriverDouble(ORIN, THOR)
    tensorrt = TensorRTDouble(driver)
    wanted = dataclasses.replace(options, device_id=1)
    engine = on_another_thread(lambda: open_on(tensorrt, driver, artifact, wanted))
    assert tensorrt.built_on == [1]
    assert set(driver.devices.values()) == {1}
    inputs = random_inputs(artifact)
    fused = on_another_thread(lambda: engine.run(inputs))["fused"]
    with open_engine(artifact, EngineOptions(backend="onnxruntime")) as reference:
        np.testing.assert_array_equal(fused, reference.run(inputs)["fused"])
    on_another_thread(engine.close)
    assert not driver.leaks
    (path,) = options.cache.glob("*.json")
    assert json.loads(path.read_text())["key"]["gpu"] == "Thor"


@pytest.mark.parametrize(("second", "builds"), [(ORIN, 1), (THOR, 2)], ids=["alike", "another"])
def test_devices_of_one_kind_share_an_engine(artifact, options, second, builds):
    driver = DriverDouble(ORIN, second)
    tensorrt = TensorRTDouble(driver)
    for number in (0, 1):
        wanted = dataclasses.replace(options, device_id=number)
        open_on(tensorrt, driver, artifact, wanted).close()
    assert tensorrt.builds == builds
    assert not driver.leaks


@pytest.mark.parametrize("number", [2, -1])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(artifact, options, number):
    driver = DriverDouble(ORIN, THOR)
    told = f"device_id is {number}, but the GPUs that CUDA sees are 0 Orin, 1 Thor; choose one"
    with pytest.raises(EngineError, match=told):
        open_on(
            TensorRTDouble(driver),
            driver,
            artifact,
            dataclasses.replace(options, device_id=number),
        )
    assert not driver.leaks


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


def test_a_graph_without_a_scan_has_no_form_of_it(artifact, options, driver):
    with open_on(TensorRTDouble(driver), driver, artifact, options) as engine:
        assert engine.selective_scan == "none"


def test_a_graph_that_was_exchanged_since_it_was_opened_is_refused(tmp_path, options, driver):
    folder = write_artifact(tmp_path / "small")
    artifact = open_artifact(folder)
    write_artifact(folder, saliency=True)
    with pytest.raises(EngineError, match=r"graph.onnx is not the graph its manifest describes"):
        open_on(TensorRTDouble(driver), driver, artifact, options)
    assert not options.cache.exists()


def test_a_library_that_does_not_fit_cuda_is_told(artifact, options, driver):
    tensorrt = TensorRTDouble(driver)
    tensorrt.fits_cuda = False
    with pytest.raises(EngineError, match=r"cannot prepare a build: TypeError.*error: 35"):
        open_on(tensorrt, driver, artifact, options)
    tensorrt.fits_cuda = True
    open_on(tensorrt, driver, artifact, options).close()
    tensorrt.fits_cuda = False
    with pytest.raises(EngineError, match=r"cannot load an engine: TypeError.*error: 35"):
        open_on(tensorrt, driver, artifact, options)
    assert not driver.leaks


def test_the_fallback_takes_over_from_a_library_that_does_not_fit(
    artifact, options, driver, monkeypatch
):
    tensorrt = TensorRTDouble(driver)
    tensorrt.fits_cuda = False
    for name, value in (("CudaRuntime", driver), ("import_tensorrt", tensorrt)):
        monkeypatch.setattr(backend, name, lambda value=value: value)
    monkeypatch.setattr(backend, "cuda_devices", lambda: ([driver.gpu], ""))
    wanted = dataclasses.replace(options, fallback="onnxruntime", threads=1)
    with open_engine(artifact, wanted) as engine:
        assert engine.backend == "onnxruntime"
        assert "factory function returned nullptr" in engine.stands_in


class ReducedBench:
    """An artifact with a graph in fp16, frames to measure it on, and a TensorRT."""

    def __init__(self, folder, options, driver) -> None:
        self.folder, self.driver = folder, driver
        self.tensorrt = TensorRTDouble(driver)
        self.samples = folder / "frames.npz"
        self.options = dataclasses.replace(options, precision="fp16", threads=1)
        write_artifact(folder / "small")
        self.reduce(off_by=1)
        frames = [random_inputs(self.artifact, seed) for seed in range(2)]
        write_sample_frames(self.samples, self.artifact, SampleFrames.of(frames))

    def reduce(self, off_by, tolerances=TOLERANCES) -> None:
        add_reduced_graph(self.folder / "small", "fp16", off_by=off_by, tolerances=tolerances)
        self.artifact = open_artifact(self.folder / "small")

    def open(self, *, samples=None, **changes):
        options = dataclasses.replace(self.options, samples=samples, **changes)
        return open_on(self.tensorrt, self.driver, self.artifact, options)

    def refused(self, **changes) -> None:
        with pytest.raises(EngineError, match="fp16 was not yet compared with fp32"):
            self.open(**changes)
        assert not self.driver.leaks


@pytest.fixture
def bench(tmp_path, options, driver):
    return ReducedBench(tmp_path, options, driver)


def lose(path):
    path.unlink()


def damage(path):
    path.write_bytes(path.read_bytes()[:-1])


def test_reduced_precision_that_the_artifact_lacks_is_refused(artifact, options, driver):
    reduced = dataclasses.replace(options, precision="fp16")
    with pytest.raises(EngineError, match="has no fp16 graph"):
        open_on(TensorRTDouble(driver), driver, artifact, reduced)


def test_what_was_measured_lets_the_same_engine_pass(bench):
    bench.refused()
    with bench.open(samples=bench.samples) as engine:
        assert engine.gate.frames == 2
        assert 45 < engine.gate.measures[0].value < 60
        outputs = engine.run(random_inputs(bench.artifact))
        assert outputs["fused"].max() == 255
    with bench.open() as engine:
        assert engine.gate.frames == 2
    assert bench.tensorrt.builds == 1
    assert not bench.driver.leaks


@pytest.mark.parametrize("harm", [lose, damage])
def test_an_engine_that_is_built_anew_is_measured_anew(bench, harm):
    with bench.open(samples=bench.samples) as engine:
        path = engine.path
    harm(path)
    bench.refused()
    assert bench.tensorrt.builds == 1
    bench.open(samples=bench.samples).close()
    assert bench.tensorrt.builds == 2
    bench.open().close()


def test_what_could_not_be_compared_is_not_built(bench, tmp_path):
    strange = tmp_path / "strange.npz"
    strange.write_bytes(b"no archive")
    for samples, told in (
        (None, r"tensorrt in fp16 was not yet compared .*--engine-samples"),
        (tmp_path / "gone.npz", "no sample frames at .*gone.npz"),
        (strange, "no file of sample frames"),
    ):
        with pytest.raises(EngineError, match=told):
            bench.open(samples=samples)
    bench.reduce(off_by=1, tolerances={})
    with pytest.raises(EngineError, match="artifact small has none"):
        bench.open(samples=bench.samples)
    assert bench.tensorrt.builds == 0
    assert not bench.driver.leaks


def test_what_was_measured_is_of_the_engine_that_served(bench):
    """Another than the one that would be built: it also runs on other GPUs."""
    with bench.open(samples=bench.samples, hardware_compatible=True) as engine:
        compatible = engine.path
    (record,) = bench.options.cache.glob("*.gate.json")
    lose(record)
    with bench.open(samples=bench.samples) as engine:
        assert engine.path == compatible
    assert bench.tensorrt.builds == 1
    bench.open().close()
    lose(compatible)
    bench.refused()
    assert bench.tensorrt.builds == 1


def test_what_was_measured_on_a_compatible_engine_is_found(bench):
    bench.open(samples=bench.samples, hardware_compatible=True).close()
    with bench.open() as engine:
        assert engine.gate.frames == 2
    assert bench.tensorrt.builds == 1


def test_what_was_measured_is_against_one_graph_in_fp32(bench, tmp_path):
    bench.open(samples=bench.samples).close()
    manifest = json.loads((tmp_path / "small/manifest.json").read_text())
    reduced = manifest["reduced_graphs"]
    write_artifact(tmp_path / "small", fails_from=9)
    manifest = json.loads((tmp_path / "small/manifest.json").read_text())
    manifest |= {"reduced_graphs": reduced, "tolerances": TOLERANCES}
    (tmp_path / "small/manifest.json").write_text(json.dumps(manifest))
    bench.artifact = open_artifact(tmp_path / "small")
    bench.refused()
    assert bench.tensorrt.builds == 1


def test_what_was_compiled_is_looked_for_in_fp32_alone(bench, caplog):
    compiled = bench.artifact.folder / "engines/another.engine"
    compiled.parent.mkdir()
    compiled.touch()
    bench.open(samples=bench.samples).close()
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]
    bench.open(precision="fp32").close()
    (warning,) = (each for each in caplog.records if each.levelno >= logging.WARNING)
    assert "another.engine (its description cannot be read); compile again" in warning.getMessage()


def test_what_misses_the_tolerances_is_closed(bench):
    bench.reduce(off_by=9)
    for samples in (bench.samples, None):
        with pytest.raises(EngineError, match=r"tensorrt in fp16 is too far from fp32 .*psnr_db"):
            bench.open(samples=samples)
        assert not bench.driver.leaks


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
