"""Engines give what the graph says, and fail with an error of this package."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifacts import write_artifact

from mmfusion_ros.core import engines
from mmfusion_ros.core.artifact import Artifact, open_artifact
from mmfusion_ros.core.engines import BACKENDS, EngineOptions, cuda_probe, open_engine
from mmfusion_ros.core.engines import tensorrt as tensorrt_engine
from mmfusion_ros.core.engines.cuda_probe import CudaDevice
from mmfusion_ros.core.errors import EngineError

pytest.importorskip("onnxruntime")

OPENVINO = pytest.param(
    "openvino",
    marks=pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed"),
)
cpu_backends = pytest.mark.parametrize("backend", ["onnxruntime", OPENVINO])


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_artifact(tmp_path / "small")


@pytest.fixture
def artifact(folder) -> Artifact:
    return open_artifact(folder)


def inputs(artifact: Artifact, *, rgb: int = 100, low_byte: int = 7) -> dict[str, Any]:
    arrays = {name: np.zeros(spec.shape, spec.dtype) for name, spec in artifact.inputs.items()}
    arrays["rgb"][:] = np.minimum(np.arange(64)[:, None] + rgb, 250)
    arrays["thermal"][..., 0] = low_byte
    arrays["thermal_range"][:] = 4, 5
    arrays["present"][:] = 1
    return arrays


def edited(folder: Path, change: Callable[[dict[str, Any]], object]) -> Artifact:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
    return open_artifact(folder)


@pytest.mark.parametrize("backend", ["onnxruntime", "auto", OPENVINO])
@pytest.mark.parametrize("threads", [0, 1, 2])
def test_outputs_are_the_graphs(artifact, backend, threads, monkeypatch):
    monkeypatch.setattr(engines, "cuda_devices", lambda: ([], "no GPU here"))
    with open_engine(artifact, EngineOptions(backend, threads=threads)) as engine:
        chosen = "onnxruntime" if backend == "auto" else backend
        assert (engine.backend, engine.precision) == (chosen, "fp32")
        outputs = engine.run(inputs(artifact, rgb=200))
    expected = np.minimum(np.minimum(np.arange(64) + 200, 250) + 7, 255)
    assert list(outputs) == list(artifact.outputs)
    np.testing.assert_array_equal(outputs["fused"], np.broadcast_to(expected[:, None], (48, 64, 3)))
    np.testing.assert_array_equal(outputs["registered_thermal"], np.full((48, 64), 7))
    np.testing.assert_array_equal(outputs["thermal_range_next"], [5, 6])
    for name, spec in artifact.outputs.items():
        assert (outputs[name].dtype, outputs[name].shape) == (spec.dtype, spec.shape)


def test_auto_says_what_it_chose(artifact, caplog, monkeypatch):
    monkeypatch.setattr(engines, "cuda_devices", lambda: ([], "no GPU here"))
    with caplog.at_level(logging.INFO), open_engine(artifact) as engine:
        assert engine.stands_in == ""
        assert "not tensorrt: no GPU here" in caplog.text
        assert "onnxruntime on the CPU" in caplog.text


@pytest.mark.parametrize(("backend", "opens"), [("auto", True), ("tensorrt", False)])
def test_a_driver_that_fails_is_no_machine_without_a_device(
    artifact, caplog, monkeypatch, backend, opens
):
    class BrokenDriver:
        @staticmethod
        def cuInit(_):
            return 803

    monkeypatch.setattr(cuda_probe.ctypes, "CDLL", lambda _: BrokenDriver)
    told = "the CUDA driver answers cuInit with error (803)"
    if opens:
        with open_engine(artifact, EngineOptions(backend)) as engine:
            assert engine.backend == "onnxruntime"
            # Which the diagnostics warn of.
            assert engine.stands_in.startswith(f"instead of tensorrt fp32: {told}")
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert f"not tensorrt: {told}" in record.message
    else:
        with pytest.raises(EngineError, match=re.escape(told)):
            open_engine(artifact, EngineOptions(backend))


@pytest.mark.parametrize(("backend", "opens"), [("auto", True), ("tensorrt", False)])
def test_without_the_library_a_device_is_of_no_use(artifact, caplog, monkeypatch, backend, opens):
    for module in (engines, tensorrt_engine):
        monkeypatch.setattr(module, "cuda_devices", lambda: ([CudaDevice("Orin")], ""))
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    options = EngineOptions(backend)
    if opens:
        with caplog.at_level(logging.INFO), open_engine(artifact, options) as engine:
            assert engine.backend == "onnxruntime"
            told = "instead of tensorrt fp32: backend tensorrt cannot be imported"
            assert engine.stands_in.startswith(told)
        assert "CUDA devices 0 Orin, so trying tensorrt" in caplog.text
        assert "not tensorrt: backend tensorrt cannot be imported" in caplog.text
    else:
        with pytest.raises(EngineError, match="backend tensorrt cannot be imported"):
            open_engine(artifact, options)


@cpu_backends
def test_outputs_are_allocated_once(artifact, backend):
    with open_engine(artifact, EngineOptions(backend)) as engine:
        first = engine.run(inputs(artifact, rgb=0))
        addresses = {name: array.ctypes.data for name, array in first.items()}
        assert first["fused"][0, 0, 0] == 7
        second = engine.run(inputs(artifact, rgb=50))
        assert {name: array.ctypes.data for name, array in second.items()} == addresses
        assert first["fused"][0, 0, 0] == 57


@cpu_backends
def test_read_only_inputs_will_do(artifact, backend):
    arrays = inputs(artifact)
    data = arrays["rgb"].tobytes()
    arrays["rgb"] = np.frombuffer(data, np.uint8).reshape(48, 64, 3)
    with open_engine(artifact, EngineOptions(backend)) as engine:
        assert engine.run(arrays)["fused"][0, 0, 0] == 107
    assert arrays["rgb"].tobytes() == data


@cpu_backends
def test_inputs_that_the_graph_does_not_read_are_no_matter(artifact, backend):
    """The runtime drops them from the graph it loads."""
    arrays = inputs(artifact)
    arrays["unheard_of"] = np.zeros(1)
    with open_engine(artifact, EngineOptions(backend)) as engine:
        engine.run(arrays)


@cpu_backends
def test_a_closed_engine_says_so(artifact, backend):
    engine = open_engine(artifact, EngineOptions(backend))
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="the engine is closed"):
        engine.run(inputs(artifact))


def test_unknown_backends_are_refused(artifact):
    message = f"unknown backend 'cuda'; expected one of {', '.join(BACKENDS)}"
    with pytest.raises(EngineError, match=message):
        open_engine(artifact, EngineOptions("cuda"))


@pytest.mark.parametrize("options", [{"precision": "fp64"}, {"fallback": "pass_through"}])
def test_what_else_is_unknown_is_refused(artifact, options):
    with pytest.raises(EngineError, match=f"unknown {next(iter(options))} .*; expected one of"):
        open_engine(artifact, EngineOptions(**options))


@pytest.mark.parametrize(
    ("backend", "library"),
    [("onnxruntime", "onnxruntime"), ("openvino", "openvino"), ("openvino", "onnx")],
)
def test_a_missing_backend_is_named(artifact, monkeypatch, backend, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(
        EngineError, match=rf"{backend} cannot be imported .*{library}.*pip install"
    ):
        open_engine(artifact, EngineOptions(backend))


@cpu_backends
@pytest.mark.parametrize("content", [b"", b"no graph", bytes(1000)])
def test_a_file_that_is_no_graph_is_refused(folder, backend, content):
    (folder / "graph.onnx").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    artifact = edited(folder, lambda manifest: manifest["graph"].update(sha256=digest))
    with pytest.raises(EngineError, match=rf"^{backend} \d+\.\S+ cannot load .*graph.onnx: "):
        open_engine(artifact, EngineOptions(backend))


@cpu_backends
def test_a_graph_that_vanished_is_refused(artifact, backend):
    artifact.graph_path.unlink()
    with pytest.raises(EngineError, match=r"graph.onnx cannot be read .*copy the artifact"):
        open_engine(artifact, EngineOptions(backend))


@cpu_backends
def test_an_output_that_the_graph_lacks_is_refused(folder, backend):
    entry = {"name": "heat", "dtype": "float32", "shape": [9], "meaning": "of places"}
    artifact = edited(folder, lambda manifest: manifest["outputs"].append(entry))
    with pytest.raises(EngineError, match=r"cannot load .*graph.onnx.*heat"):
        open_engine(artifact, EngineOptions(backend))


WRONG = {
    "size": {"rgb": np.zeros((24, 32, 3), np.uint8)},
    "rank": {"rgb": np.zeros((48, 64), np.uint8)},
    "dtype": {"rgb": np.zeros((48, 64, 3), np.float32)},
    "batch": {"present": np.zeros((1, 3), np.float32)},
    "absent": {"rgb": None},
}


@cpu_backends
@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_wrong_inputs_are_refused_and_the_engine_goes_on(artifact, backend, wrong):
    good = inputs(artifact)
    bad = {name: array for name, array in {**good, **wrong}.items() if array is not None}
    with open_engine(artifact, EngineOptions(backend)) as engine:
        with pytest.raises(EngineError, match=rf"^{backend} failed: .*(rgb|present|data type)"):
            engine.run(bad)
        assert engine.run(good)["fused"][0, 0, 0] == 107


@cpu_backends
def test_a_manifest_with_other_sizes_than_its_graph_fails_cleanly(folder, backend):
    def shrink(manifest):
        for entry in (*manifest["inputs"][:3], *manifest["outputs"]):
            if len(entry["shape"]) > 1:
                entry["shape"][:2] = 24, 32

    artifact = edited(folder, shrink)
    arrays = {name: np.zeros(spec.shape, spec.dtype) for name, spec in artifact.inputs.items()}
    # One of them looks at the sizes when it is opened, the other when it is run.
    with (
        pytest.raises(EngineError, match=r"invalid dimensions|openvino \S+ cannot load"),
        open_engine(artifact, EngineOptions(backend)) as engine,
    ):
        engine.run(arrays)


def test_a_graph_that_fails_while_running(tmp_path):
    artifact = open_artifact(write_artifact(tmp_path / "failing", fails_from=2))
    arrays = inputs(artifact)
    with open_engine(artifact, EngineOptions("onnxruntime")) as engine:
        arrays["thermal_range"][:] = 1, 2
        engine.run(arrays)
        arrays["thermal_range"][:] = 2, 3
        with pytest.raises(EngineError, match="onnxruntime failed: "):
            engine.run(arrays)
        arrays["thermal_range"][:] = 0, 0
        np.testing.assert_array_equal(engine.run(arrays)["thermal_range_next"], [1, 2])


def test_pass_through_gives_the_rgb_image(artifact):
    arrays = inputs(artifact)
    with open_engine(artifact, EngineOptions("pass_through")) as engine:
        assert (engine.backend, engine.precision) == ("pass_through", "none")
        outputs = engine.run(arrays)
    assert outputs["fused"] is arrays["rgb"]
    assert outputs.keys() == artifact.outputs.keys()
    assert not outputs["registered_thermal"].any()
    assert not outputs["thermal_range_next"].any()


@pytest.mark.parametrize("backend", ["onnxruntime", OPENVINO, "pass_through"])
def test_an_exception_inside_closes_the_engine_and_comes_out(artifact, backend, monkeypatch):
    closed: list[bool] = []
    engine = open_engine(artifact, EngineOptions(backend))
    monkeypatch.setattr(engine, "close", lambda: closed.append(True))
    with pytest.raises(KeyboardInterrupt), engine:
        raise KeyboardInterrupt
    assert closed == [True]
