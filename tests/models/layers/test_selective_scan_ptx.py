"""The scan's kernels compile for robots, without a GPU."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
triton = pytest.importorskip(
    "triton", reason="Triton is not installed; it comes with PyTorch for CUDA"
)

from mmfusion.cli import main
from mmfusion.errors import ExportError
from mmfusion.layers import selective_scan_ptx as module
from mmfusion.layers.selective_scan_ptx import ARCHITECTURES, compile_kernel, write_kernels

pytestmark = pytest.mark.torch

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


@pytest.fixture(scope="module")
def artifact(repo_root, tmp_path_factory):
    bundled = repo_root / "artifacts" / "s4fusion_tiny_640x480"
    return shutil.copytree(bundled, tmp_path_factory.mktemp("kernels") / "artifact")


@pytest.fixture
def assemble(tmp_path):
    """What the assembler that comes with Triton says against a PTX text."""

    def run(ptx, architecture):
        (tmp_path / "kernel.ptx").write_text(ptx)
        tool = "ptxas-blackwell" if int(architecture.removeprefix("sm_")) >= 100 else "ptxas"
        return subprocess.run(
            [TOOLS / tool, f"--gpu-name={architecture}", "kernel.ptx", "-o", "kernel.cubin"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        ).stderr

    return run


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
            assert f".target {entry['architecture']}\n" in ptx
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
def test_every_architecture_compiles(architecture, assemble):
    ptx, kernel = compile_kernel("emit", architecture, "fp16", 16)
    assert f".target {architecture}\n" in ptx
    assert kernel.arguments[:3] == ("u_ptr", "step_ptr", "a_ptr")
    assert kernel.arguments[-2:] == ("states", "y_ptr")
    assert assemble(ptx, architecture) == ""


@pytest.mark.parametrize("architecture", ["sm_80", "sm_89", "sm_100", "sm_103", "sm_121"])
def test_the_oldest_ptx_that_has_an_architecture(architecture, assemble):
    ptx, _ = compile_kernel("carry", architecture, "fp32", 4)
    assert assemble(ptx, architecture) == ""


def test_a_later_gpu_takes_what_an_earlier_one_does(index, artifact, assemble):
    for entries in index["kernels"].values():
        for entry in entries:
            ptx = (artifact / "kernels" / entry["file"]).read_text()
            assert ".version 8.0\n" in ptx
            assert assemble(ptx, "sm_120") == ""


def test_an_argument_that_nothing_passes_is_refused():
    ptx = ".visible .entry f(\n\t.param .u64 f_param_0,\n\t.param .u64 f_param_1\n)\n{\nBODY\n}\n"
    unused = ptx.replace("BODY", "ld.param.b64 %rd1, [f_param_0];")
    assert module._with_arguments(unused, 2) == unused
    assert "f_param_1" not in module._with_arguments(unused, 1)
    used = ptx.replace("BODY", "ld.param.b64 %rd1, [f_param_1];")
    with pytest.raises(ExportError, match="gives f an argument for scratch memory"):
        module._with_arguments(used, 1)


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
