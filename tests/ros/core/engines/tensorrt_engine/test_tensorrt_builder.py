"""Engines are really built, with no GPU; what only a GPU can do wrong is put in by hand."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from artifacts import write_artifact
from cuda_double import DriverDouble, TensorRTDouble
from graphs import write_graph
from onnx import helper

from mmfusion_ros.core.engines.tensorrt.builder import BuilderSettings, build
from mmfusion_ros.core.errors import EngineError

try:
    import tensorrt_rtx
except ImportError:
    tensorrt_rtx = None
needs_rtx = pytest.mark.skipif(tensorrt_rtx is None, reason="TensorRT-RTX is not installed")

PREAMBLE = """
import json, sys
from pathlib import Path
import tensorrt_rtx
from mmfusion_ros.core.engines.tensorrt.builder import BuilderSettings, build
from mmfusion_ros.core.engines.tensorrt.graph import parsable_graph
from mmfusion_ros.core.errors import EngineError
graph = parsable_graph(Path(sys.argv[1]).read_bytes(), Path(sys.argv[1]))
"""


def start(code, *arguments):
    """Run code in a process of its own: after a refusal, the library may end the process."""
    return subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result_of(code, *arguments):
    out, err = start(code, *arguments).communicate(timeout=300)
    assert out, err
    return json.loads(out.splitlines()[-1])


@pytest.fixture
def graph(tmp_path):
    return write_artifact(tmp_path / "small", detections=True, saliency=True) / "graph.onnx"


@needs_rtx
def test_a_graph_becomes_an_engine_with_progress_and_timings(graph, tmp_path):
    timings = tmp_path / "cache" / "timings.cache"
    code = """
    told = []
    sizes = [
        len(build(tensorrt_rtx, graph, BuilderSettings(), Path(sys.argv[2]),
                  lambda phase, share: told.append((phase, share))))
        for _ in range(2)
    ]
    print(json.dumps([sizes, told]))
    """
    sizes, told = result_of(code, graph, timings)
    assert min(sizes) > 1000
    assert timings.stat().st_size
    half = len(told) // 2
    shares = [share for _, share in told[:half]]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] == 1
    assert len({phase for phase, _ in told}) > 2


@needs_rtx
def test_what_is_really_built_is_kept_and_found_again(graph, tmp_path):
    """RTX builds; loading its engine takes a GPU, so the double runs the graph in its place."""
    code = """
    sys.path.insert(0, sys.argv[3])
    import numpy as np
    from cuda_double import DriverDouble, TensorRTDouble
    from mmfusion_ros.core.artifact import open_artifact
    from mmfusion_ros.core.engines import EngineOptions
    from mmfusion_ros.core.engines.tensorrt import open_on
    driver = DriverDouble()
    double = TensorRTDouble(driver)
    class Library:
        Runtime = staticmethod(lambda log: Loader)
        TensorIOMode, nptype = double.TensorIOMode, double.nptype
        def __getattr__(self, name): return getattr(tensorrt_rtx, name)
        __name__ = "tensorrt_rtx"
    class Loader:
        @staticmethod
        def deserialize_cuda_engine(serialized):
            loaded.append(len(serialized))
            return double.Runtime(None).deserialize_cuda_engine(double.serialized(graph))
    loaded, library = [], Library()
    artifact = open_artifact(Path(sys.argv[1]).parent)
    inputs = {name: np.ones(spec.shape, spec.dtype) for name, spec in artifact.inputs.items()}
    for _ in range(2):
        with open_on(library, driver, artifact, EngineOptions(cache=Path(sys.argv[2]))) as engine:
            fused = engine.run(inputs)["fused"]
            kept = engine.path.stat().st_size
    print(json.dumps([loaded, kept, int(fused.min()), int(fused.max()), len(driver.leaks)]))
    """
    loaded, kept, low, high, leaks = result_of(
        code, graph, tmp_path / "cache", Path(__file__).resolve().parents[3]
    )
    assert loaded == [kept, kept]
    assert kept > 1000
    assert (low, high, leaks) == (2, 2, 0)
    assert len(list((tmp_path / "cache").glob("timings-*.cache"))) == 1


@needs_rtx
def test_what_progress_raises_ends_the_build_and_comes_out(graph):
    code = """
    class Cancelled(Exception): pass
    def cancel(phase, share):
        if share > 0.2: raise Cancelled
    try:
        build(tensorrt_rtx, graph, progress=cancel)
    except Cancelled:
        print(json.dumps("cancelled"))
    """
    assert result_of(code, graph) == "cancelled"


@needs_rtx
def test_ctrl_c_ends_a_build(graph):
    code = """
    import time
    def slow(phase, share):
        print("building", flush=True)
        time.sleep(0.05)
    try:
        build(tensorrt_rtx, graph, progress=slow)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    """
    process = start(code, graph)
    assert process.stdout.readline() == "building\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert out.splitlines()[-1] == "interrupted", err


@needs_rtx
def test_what_the_parser_refuses_is_named(tmp_path):
    path = write_graph(
        tmp_path / "g.onnx", helper.make_node("Det", ["a"], ["b"], name="head/Det_1")
    )
    code = """
    try: build(tensorrt_rtx, graph)
    except EngineError as error: print(json.dumps(str(error)))
    """
    told = result_of(code, path)
    assert told.startswith(f"TensorRT {tensorrt_rtx.__version__} does not take the graph: ")
    assert "Det of node head/Det_1: " in told


@needs_rtx
def test_damaged_timings_are_done_without(graph, tmp_path):
    timings = tmp_path / "timings.cache"
    timings.write_bytes(b"no timings")
    code = "print(json.dumps(len(build(tensorrt_rtx, graph, timing_cache=Path(sys.argv[2])))))"
    assert result_of(code, graph, timings) > 1000
    assert timings.read_bytes() != b"no timings"


@needs_rtx
def test_inputs_without_a_fixed_shape_are_refused(tmp_path):
    path = write_graph(
        tmp_path / "g.onnx",
        helper.make_node("Add", ["a", "more"], ["b"], name="add"),
        inputs={"more": ["n", 3, 16, 16]},
    )
    code = """
    try: build(tensorrt_rtx, graph)
    except EngineError as error: print(json.dumps(str(error)))
    """
    assert "input more has no fixed shape" in result_of(code, path)


def test_a_thread_that_does_not_start_is_told(monkeypatch):
    def fail(thread):
        raise RuntimeError("can't start new thread")

    library = double()
    monkeypatch.setattr(threading.Thread, "start", fail)
    with pytest.raises(EngineError, match="cannot build: RuntimeError: can't start new thread"):
        build(library, b"graph")
    assert library.builds == 0


def test_ctrl_c_while_the_thread_starts_builds_nothing(monkeypatch):
    """The thread that comes late finds that nobody waits for it."""
    library = double()
    threads = []

    def interrupted(thread):
        threads.append(thread)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build(library, b"graph")
    threads[0].start()
    threads[0].join()
    assert library.builds == 0


def test_ctrl_c_once_it_builds_waits_for_the_end(monkeypatch):
    library = double()
    building, ended = threading.Event(), []
    start = threading.Thread.start

    def progress(phase, share):
        building.set()
        ended.append(share)

    def interrupted(thread):
        start(thread)
        assert building.wait(60)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(library, b"graph", progress=progress)
    assert not [each for each in threading.enumerate() if each.name == "tensorrt-build"]


def test_what_the_library_raises_is_told_with_its_log():
    library = double()
    library.fits_cuda = False
    with pytest.raises(
        EngineError,
        match=r"^TensorRT 10.3.0 cannot prepare a build: TypeError: pybind11::init.*error: 35$",
    ):
        build(library, b"graph")


def test_what_progress_raises_comes_out_as_it_is():
    def fail(phase, share):
        raise TypeError("of the caller")

    with pytest.raises(TypeError, match=r"^of the caller$"):
        build(double(), b"graph", progress=fail)


def double(**arguments):
    return TensorRTDouble(DriverDouble(), **arguments)


def test_networks_are_strongly_typed_in_every_version():
    for strongly_typed, flags in ((True, 1 << 3), (False, 0)):
        library = double(strongly_typed=strongly_typed)
        build(library, b"graph")
        assert library.network_flags == [flags]
        assert library.configs[0].cleared == ["TF32"]
        assert library.configs[0].limits == {"WORKSPACE": 2048 << 20}


def test_compatibility_that_a_version_lacks_is_told():
    library = double()
    library.HardwareCompatibilityLevel = type("Levels", (), {"NONE": 0})
    with pytest.raises(EngineError, match="cannot build for all GPUs of one compute capability"):
        build(library, b"graph", BuilderSettings(hardware_compatible=True))


@pytest.mark.parametrize(
    "error",
    [
        "[resizePhysical] Error Code 2: OutOfMemory (no further information)",
        "Error Code 10: Could not find any implementation for node conv due to insufficient memory",
    ],
)
def test_memory_that_runs_out_while_building_is_told(error):
    library = double()
    library.build_errors = [error]
    with pytest.raises(EngineError, match="memory ran out while the engine was built; end other"):
        build(library, b"graph")


def test_a_builder_that_gives_nothing_is_told():
    library = double()
    library.build_errors = ["Error Code 9: Skipping tactic"]
    with pytest.raises(EngineError, match=r"cannot build an engine of the graph: .*Skipping"):
        build(library, b"graph")


def test_progress_nests_and_never_goes_back():
    library = double()
    library.phases = [("whole", None, 4), ("part", "whole", 2), ("detail", "part", 5)]
    shares = []
    build(library, b"graph", progress=lambda _, share: shares.append(share))
    assert shares == sorted(shares)
    assert shares[3:8] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.125])
    assert shares[-1] == 1


def test_the_callback_runs_while_the_caller_waits():
    """So that Ctrl-C reaches a caller whose library computes."""
    threads = set()
    build(double(), b"graph", progress=lambda *_: threads.add(threading.current_thread().name))
    assert threads == {"tensorrt-build"}
