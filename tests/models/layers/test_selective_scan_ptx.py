"""The scan's kernels compile for robots, without a GPU."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("triton", reason="Triton is not installed; it comes with PyTorch for CUDA")

from mmfusion.cli import main
from mmfusion.errors import ExportError
from mmfusion.layers.selective_scan_ptx import ARCHITECTURES, compile_kernel, write_kernels

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def artifact(repo_root, tmp_path_factory):
    bundled = repo_root / "artifacts" / "s4fusion_tiny_640x480"
    return shutil.copytree(bundled, tmp_path_factory.mktemp("kernels") / "artifact")


@pytest.fixture(scope="module")
def index(artifact):
    assert main(["scan-kernels", str(artifact), "--architectures", "sm_87", "sm_90"]) == 0
    return json.loads((artifact / "kernels" / "selective_scan.json").read_text())


def test_the_index_tells_what_is_there(index, artifact):
    counts = {step: len(entries) for step, entries in index["kernels"].items()}
    assert counts == {"states": 4, "carry": 2, "emit": 4}
    for entries in index["kernels"].values():
        for entry in entries:
            ptx = (artifact / "kernels" / entry["file"]).read_text()
            assert hashlib.sha256(ptx.encode()).hexdigest() == entry["sha256"]
            assert f".visible .entry {entry['entry']}(" in ptx
            assert f".target {entry['architecture']}" in ptx
            assert ptx.count(".param .") == len(entry["arguments"])
            assert f".reqntid {entry['threads']}" in ptx
            assert entry["states"] == 8
            assert "/" not in "".join(line for line in ptx.splitlines() if ".file" in line)


def test_half_precision_reads_and_writes_half(index, artifact):
    texts = {
        entry["dtype"]: (artifact / "kernels" / entry["file"]).read_text()
        for entry in index["kernels"]["emit"]
        if entry["architecture"] == "sm_87"
    }
    assert "cvt.f32.f16" in texts["fp16"]
    assert "cvt.f32.f16" not in texts["fp32"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_compiles(architecture):
    ptx, kernel = compile_kernel("emit", architecture, "fp16", 16)
    assert f".target {architecture}" in ptx
    assert kernel.arguments[:3] == ("u_ptr", "step_ptr", "a_ptr")


@pytest.mark.parametrize("name", ["orin", "sm_10"])
def test_what_is_no_architecture(artifact, name):
    with pytest.raises(ExportError, match=f"'{name}' is no architecture to compile for; expected"):
        write_kernels(artifact, [name])


def test_what_is_no_artifact(tmp_path):
    with pytest.raises(ExportError, match=r"graph\.onnx cannot be read"):
        write_kernels(tmp_path)


def test_a_graph_without_scans(tmp_path):
    onnx = pytest.importorskip("onnx")
    onnx.save(
        onnx.helper.make_model(onnx.helper.make_graph([], "none", [], [])), tmp_path / "graph.onnx"
    )
    with pytest.raises(ExportError, match="has no selective scans"):
        write_kernels(tmp_path)
