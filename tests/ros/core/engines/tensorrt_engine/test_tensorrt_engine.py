"""An engine allocates nothing while it runs, fails as this package fails and leaves nothing."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from artifacts import write_artifact
from cuda_double import DriverDouble, TensorRTDouble

from mmfusion_ros.core.artifact import open_artifact
from mmfusion_ros.core.engines.engine_cache import UnusableEngineError
from mmfusion_ros.core.engines.tensorrt.engine import TensorRTEngine
from mmfusion_ros.core.engines.tensorrt.graph import parsable_graph
from mmfusion_ros.core.errors import EngineError

pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    return open_artifact(write_artifact(tmp_path_factory.mktemp("artifact") / "small"))


@pytest.fixture(scope="module")
def serialized(artifact):
    return TensorRTDouble(DriverDouble()).serialized(
        parsable_graph(artifact.read_graph("fp32"), artifact.folder)
    )


@pytest.fixture
def driver():
    return DriverDouble()


@pytest.fixture
def tensorrt(driver):
    return TensorRTDouble(driver)


def opened(tensorrt, serialized, artifact):
    return TensorRTEngine(
        tensorrt,
        serialized,
        artifact,
        tensorrt.driver,
        precision="fp32",
        selective_scan="loop",
        path=Path("none"),
    )


def inputs(artifact, rgb=100):
    arrays = {name: np.zeros(spec.shape, spec.dtype) for name, spec in artifact.inputs.items()}
    arrays["rgb"][:] = rgb
    arrays["thermal"][..., 0] = 7
    arrays["present"][:] = 1
    return arrays


def test_a_frame_is_one_launch_and_allocates_nothing(tensorrt, driver, serialized, artifact):
    with opened(tensorrt, serialized, artifact) as engine:
        before = driver.calls.copy()
        for rgb in (1, 2, 3):
            assert engine.run(inputs(artifact, rgb))["fused"][0, 0, 0] == rgb + 7
        assert driver.calls - before == Counter(use=3, launch=3, record=3, wait=3)


def test_outputs_are_the_same_arrays_and_outlast_the_engine(tensorrt, serialized, artifact):
    with opened(tensorrt, serialized, artifact) as engine:
        first = engine.run(inputs(artifact))["fused"]
        assert engine.run(inputs(artifact, 50))["fused"] is first
    assert first[0, 0, 0] == 57


def test_where_capture_is_refused_frames_are_enqueued(driver, serialized, artifact, caplog):
    tensorrt = TensorRTDouble(driver, capturable=False)
    with (
        caplog.at_level(logging.INFO),
        opened(tensorrt, serialized, artifact) as engine,
    ):
        assert not engine.captured
        assert "no CUDA graph" in caplog.text
        assert driver.calls["forget_error"] == 1
        before = driver.calls.copy()
        assert engine.run(inputs(artifact))["fused"][0, 0, 0] == 107
        used = driver.calls - before
        assert used["copy_to_device"] == len(artifact.inputs)
        assert used["copy_to_host"] == len(artifact.outputs)
        assert not used["launch"] + used["allocate"] + used["allocate_host"]
    assert not driver.leaks


@pytest.mark.parametrize("call", ["begin_capture", "end_capture", "instantiate"])
def test_capture_that_fails_is_done_without(tensorrt, driver, serialized, artifact, call):
    driver.fails = {call}
    with opened(tensorrt, serialized, artifact) as engine:
        assert not engine.captured
        assert engine.run(inputs(artifact))["fused"][0, 0, 0] == 107
    assert not driver.leaks


def test_all_is_given_back_in_reverse_and_once(tensorrt, driver, serialized, artifact):
    engine = opened(tensorrt, serialized, artifact)
    engine.run(inputs(artifact))
    driver.order.clear()
    engine.close()
    count = len(artifact.inputs) + len(artifact.outputs)
    assert driver.order == [
        *("use", "record", "wait", "destroy_executable", "destroy_graph", "context"),
        *("free_host", "free") * count,
        *("destroy_event", "destroy_stream"),
    ]
    engine.close()
    assert driver.order[-1] == "destroy_stream"
    assert not driver.leaks
    with pytest.raises(EngineError, match="the engine is closed"):
        engine.run(inputs(artifact))


@pytest.mark.parametrize(
    "call",
    [
        *("create_stream", "create_event", "allocate", "allocate_host"),
        *("copy_to_device", "copy_to_host", "record", "wait"),
    ],
)
def test_a_call_that_fails_while_opening_leaves_nothing(
    tensorrt, driver, serialized, artifact, call
):
    driver.fails = {call}
    with pytest.raises(EngineError, match=f"{call} failed: injected"):
        opened(tensorrt, serialized, artifact)
    assert not driver.leaks


@pytest.mark.parametrize("call", ["launch", "record", "wait"])
def test_an_error_in_flight_ends_the_engine_and_another_can_be_opened(
    tensorrt, driver, serialized, artifact, call
):
    engine = opened(tensorrt, serialized, artifact)
    driver.fails = {call}
    with pytest.raises(EngineError, match=f"{call} failed: injected"):
        engine.run(inputs(artifact))
    driver.fails = set()
    with pytest.raises(EngineError, match=f"must be opened again: {call} failed: injected"):
        engine.run(inputs(artifact))
    engine.close()
    assert not driver.leaks
    with opened(tensorrt, serialized, artifact) as again:
        assert again.run(inputs(artifact))["fused"][0, 0, 0] == 107


@pytest.mark.parametrize("call", ["copy_to_device", "copy_to_host"])
def test_an_error_of_an_enqueued_frame_too(driver, serialized, artifact, call):
    engine = opened(TensorRTDouble(driver, capturable=False), serialized, artifact)
    driver.fails = {call}
    with pytest.raises(EngineError, match=f"{call} failed"):
        engine.run(inputs(artifact))
    engine.close()
    assert not driver.leaks


def test_a_run_that_tensorrt_refuses_is_an_error(driver, serialized, artifact):
    tensorrt = TensorRTDouble(driver, capturable=False)
    with opened(tensorrt, serialized, artifact) as engine:
        tensorrt.refuses_to_run = True
        with pytest.raises(EngineError, match="TensorRT failed to run the engine"):
            engine.run(inputs(artifact))


@pytest.mark.parametrize(
    "call",
    [
        *("destroy_executable", "destroy_graph", "free", "free_host"),
        *("destroy_event", "destroy_stream", "wait"),
    ],
)
def test_closing_goes_on_past_what_fails(tensorrt, driver, serialized, artifact, call, caplog):
    engine = opened(tensorrt, serialized, artifact)
    driver.order.clear()
    driver.fails = {call}
    engine.close()
    assert driver.order[-1] == "destroy_stream"
    assert (call == "wait") or f"while closing: {call} failed" in caplog.text


def test_inputs_of_another_type_are_refused_before_they_reach_the_gpu(
    tensorrt, driver, serialized, artifact
):
    with opened(tensorrt, serialized, artifact) as engine:
        arrays = inputs(artifact)
        arrays["rgb"] = arrays["rgb"].astype(np.float32)
        with pytest.raises(EngineError, match="input rgb is float32"):
            engine.run(arrays)
        assert engine.run(inputs(artifact))["fused"][0, 0, 0] == 107


def test_no_engine_at_all_is_told(tensorrt, artifact, driver):
    with pytest.raises(UnusableEngineError, match=r"cannot load the engine: .*magic tag"):
        opened(tensorrt, b"nonsense", artifact)
    assert not driver.leaks


def test_an_engine_of_another_artifact_is_told(tensorrt, driver, artifact, serialized, tmp_path):
    other = open_artifact(
        write_artifact(tmp_path / "other", rgb=(24, 32), depth=(24, 32), thermal=(24, 32))
    )
    with pytest.raises(UnusableEngineError, match=r"rgb of the engine is uint8 \[48, 64, 3\]"):
        opened(tensorrt, serialized, other)
    more = open_artifact(write_artifact(tmp_path / "more", saliency=True))
    with pytest.raises(UnusableEngineError, match="has no output 'saliency'"):
        opened(tensorrt, serialized, more)
    assert not driver.leaks


def test_no_memory_for_the_context_is_told(tensorrt, driver, artifact, serialized, monkeypatch):
    monkeypatch.setattr("cuda_double._Engine.create_execution_context", lambda _: None)
    with pytest.raises(EngineError, match="not enough GPU memory"):
        opened(tensorrt, serialized, artifact)
    assert not driver.leaks
