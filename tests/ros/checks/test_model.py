"""What is said of the artifact and its engine."""

from __future__ import annotations

import io
import itertools
import json
import sys
import time

import pytest
from artifacts import write_artifact, write_rig
from finders import by_check, is_helpful, levels

from mmfusion_ros.checks import model
from mmfusion_ros.checks.model import check_artifact, check_engine
from mmfusion_ros.checks.subject import Setup
from mmfusion_ros.core import engines
from mmfusion_ros.core.engines import EngineOptions


@pytest.fixture
def artifact(tmp_path):
    return write_artifact(tmp_path / "small")


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr(engines, "cuda_devices", lambda: ([], "no GPU here"))


def check(artifact, **options):
    setup = Setup(artifact=artifact, **options)
    return by_check([*check_artifact(setup), *check_engine(setup)])


def test_none_given_is_left_out():
    assert set(levels(check(None).values()).values()) == {"skipped"}


def test_a_good_one_is_told_and_timed(artifact):
    found = check(artifact, rate=0.1)
    assert set(levels(found.values()).values()) == {"ok"}
    assert "small, digest verified, takes rgb 64x48 rgb8" in found["artifact"].found
    assert found["artifact"].values["sizes"]["thermal"] == [48, 64]
    assert found["engine.backend"].values["backend"] == "onnxruntime"
    assert "not tensorrt: no GPU here; onnxruntime on the CPU" in found["engine.backend"].found
    assert 0 < found["engine.speed"].values["p50_ms"] <= found["engine.speed"].values["p95_ms"]


def test_quick_opens_but_does_not_time(artifact):
    found = levels(check(artifact, quick=True).values())
    assert found == {
        "artifact": "ok",
        "engine.backend": "ok",
        "engine.scan": "ok",
        "engine.speed": "skipped",
    }


def test_slower_than_the_cameras_is_a_warning(artifact):
    finding = check(artifact, rate=1e6)["engine.speed"]
    assert finding.level == "warning"
    assert is_helpful(finding)


def damaged_graph(folder):
    graph = folder / "graph.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)


def other_manifest(**changes):
    def change(folder):
        path = folder / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damaged_graph, "is not the graph its manifest describes"),
        (lambda folder: (folder / "graph.onnx").unlink(), "graph.onnx is missing"),
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json is missing"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "not valid JSON"),
        (lambda folder: (folder / "manifest.json").write_text(""), "not valid JSON"),
        (other_manifest(schema_version=99), "too new"),
        (other_manifest(outputs=[]), "manifest.json"),
    ],
)
def test_broken_ones_are_an_error_and_the_engine_is_left_out(artifact, damage, words):
    damage(artifact)
    found = check(artifact)
    assert words in found["artifact"].found
    assert is_helpful(found["artifact"])
    assert levels(found.values()) == {
        "artifact": "error",
        "engine.backend": "skipped",
        "engine.scan": "skipped",
        "engine.speed": "skipped",
    }


def test_a_file_is_no_artifact(artifact):
    assert check(artifact / "graph.onnx")["artifact"].level == "error"


def test_an_unknown_backend_is_an_error(artifact):
    found = check(artifact, engine=EngineOptions("abacus"))
    assert found["engine.backend"].level == "error"
    assert "abacus" in found["engine.backend"].found
    assert found["engine.speed"].level == "skipped"


def test_a_graph_that_fails_is_an_error(tmp_path):
    found = check(write_artifact(tmp_path / "failing", fails_from=0))
    assert found["engine.backend"].level == "ok"
    assert found["engine.speed"].level == "error"


def test_the_reasons_are_heard_only_while_the_engine_opens(artifact, caplog):
    logger = model.logging.getLogger("mmfusion_ros.core.engines")
    handlers, level = list(logger.handlers), logger.level
    check(artifact, quick=True)
    assert (logger.handlers, logger.level) == (handlers, level)


@pytest.mark.parametrize("with_rig", [True, False])
def test_a_graph_that_takes_a_rig_gets_one(artifact, tmp_path, with_rig):
    path = artifact / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["rig_packing"] = [f"thermal_from_rgb_h{n // 3}{n % 3}" for n in range(9)]
    manifest["inputs"].append({"name": "rig", "dtype": "float32", "shape": [9], "meaning": "h"})
    path.write_text(json.dumps(manifest))
    rig = write_rig(tmp_path / "rig.yaml") if with_rig else None
    setup = Setup(artifact=artifact, rig=rig)
    packed = model.noise_for(setup.opened_artifact, setup)["rig"]
    assert packed.tolist() == [1, 0, 0, 0, 1, 0, 0, 0, 1]


def test_an_engine_that_stands_in_is_a_warning(artifact):
    wanted = EngineOptions("onnxruntime", precision="int8", fallback="onnxruntime")
    finding = check(artifact, engine=wanted, quick=True)["engine.backend"]
    assert finding.level == "warning"
    assert is_helpful(finding)
    assert "has no int8 graph" in finding.values["stands_in"]


def test_a_long_opening_has_a_bar_on_a_terminal(artifact, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(model, "_AT_ONCE_S", 0)
    ends = time.monotonic() + 30

    def build(artifact, options, progress):
        for step in itertools.cycle(range(100)):
            progress("building an engine", step / 100)
            time.sleep(0.01)
            if "building an engine" in terminal.getvalue():
                return engines.open_engine(artifact, options, progress)
            assert time.monotonic() < ends
        return None

    monkeypatch.setattr(model, "open_engine", build)
    assert check(artifact, quick=True)["engine.backend"].level == "ok"


def test_the_form_of_the_scan_is_told(artifact, repo_root):
    assert "no selective scan" in check(artifact, quick=True)["engine.scan"].found
    bundled = repo_root / "artifacts" / "s4fusion_tiny_640x480"
    found = check(bundled, quick=True, engine=EngineOptions("onnxruntime"))["engine.scan"]
    assert found.values["form"] == "ONNX Scan function"
    found = check(bundled, quick=True, engine=EngineOptions("pass_through"))["engine.scan"]
    assert (found.values["form"], found.found) == ("none", "pass_through runs no graph")
