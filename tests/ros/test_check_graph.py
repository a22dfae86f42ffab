"""A graph that no robot could take is found with no GPU, and the culprit named."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

pytest.importorskip("tensorrt_rtx")

from graphs import write_graph

from mmfusion_ros import check_graph as checking
from mmfusion_ros.check_graph import check_graph, main

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("path", sorted(ROOT.glob("artifacts/*/graph*.onnx")), ids=str)
def test_bundled_graphs_are_taken(path):
    check = check_graph(path)
    assert not check.problem
    assert check.engine_bytes


def test_a_refused_operator_is_named_with_its_module(tmp_path, capsys):
    spectrum = helper.make_node("DFT", ["c"], ["d"], name="fusion.mixer/DFT_3")
    path = write_graph(
        tmp_path / "graph.onnx",
        helper.make_node("Unsqueeze", ["a", "last"], ["c"], name="fusion.mixer/Unsqueeze_2"),
        spectrum,
        helper.make_node("ReduceSum", ["d", "last"], ["b"], name="fusion/ReduceSum_4"),
        constants={"last": np.array([4])},
    )
    assert main([str(path)]) == 1
    assert "no DFT (module fusion.mixer, node fusion.mixer/DFT_3)" in capsys.readouterr().out


def test_the_scopes_of_torch_name_the_module_too(tmp_path):
    node = helper.make_node("Det", ["a"], ["b"], name="node_det")
    node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['', 'neck.warp', 'det']")
    check = check_graph(write_graph(tmp_path / "graph.onnx", node))
    assert "no Det (module neck.warp, node node_det)" in check.problem


def test_what_only_rtx_lacks_is_known_and_the_rest_is_checked(tmp_path):
    align = helper.make_node(
        "RoiAlign", ["a", "rois", "of"], ["c"], name="r", output_height=7, output_width=7
    )
    arguments = {
        "inputs": {"rois": [2, 4]},
        "constants": {"of": np.zeros(2, np.int64)},
    }
    good = helper.make_node("Sigmoid", ["c"], ["b"], name="s")
    check = check_graph(write_graph(tmp_path / "good.onnx", align, good, **arguments))
    assert (check.problem, check.known) == ("", ("RoiAlign",))
    assert "RoiAlign was not checked: TensorRT has it as ROIAlign_TRT" in str(check)
    bad = helper.make_node("Det", ["c"], ["b"], name="roi_head/Det_5")
    check = check_graph(write_graph(tmp_path / "bad.onnx", align, bad, **arguments))
    assert "no Det (module roi_head" in check.problem


def test_arithmetic_on_bytes_is_named(tmp_path):
    path = write_graph(
        tmp_path / "graph.onnx",
        helper.make_node("Cast", ["a"], ["c"], name="to_bytes", to=TensorProto.UINT8),
        helper.make_node("Add", ["c", "c"], ["d"], name="wrap/Add_3"),
        helper.make_node("Cast", ["d"], ["b"], name="from_bytes", to=TensorProto.FLOAT),
    )
    assert "node wrap/Add_3 (Add) computes with bytes" in check_graph(path).problem


def test_what_the_builder_alone_refuses_is_told(tmp_path):
    path = write_graph(
        tmp_path / "graph.onnx",
        helper.make_node("Reshape", ["a", "flat"], ["c"], name="flat"),
        helper.make_node("Concat", ["c"] * 6, ["d"], name="many", axis=0),
        helper.make_node("TopK", ["d", "k"], ["b", "at"], name="proposals/TopK_2", axis=0),
        constants={"flat": np.array([-1]), "k": np.array([4500])},
    )
    check = check_graph(path)
    assert not check.engine_bytes
    assert "TopK" in check.problem


def test_a_library_that_ends_the_process_is_told(tmp_path, monkeypatch):
    run = subprocess.run
    crash = ["/bin/sh", "-c", "kill -SEGV $$"]
    monkeypatch.setattr(checking.subprocess, "run", lambda _, **how: run(crash, **how))
    assert "the library ended with SIGSEGV" in check_graph(tmp_path / "any.onnx").problem


def test_a_file_that_is_no_graph_is_told(tmp_path, capsys):
    (tmp_path / "graph.onnx").write_bytes(b"no graph")
    assert main([str(tmp_path / "graph.onnx")]) == 1
    assert "cannot be prepared for TensorRT" in capsys.readouterr().out


def test_a_library_that_is_not_there_is_told_once(tmp_path, monkeypatch, capsys):
    (tmp_path / "tensorrt_rtx.py").write_text("raise ImportError('not here')\n")
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    )
    assert main([str(tmp_path / "graph.onnx")]) == 2
    told = capsys.readouterr().err
    assert told.startswith("check_graph: graphs cannot be checked (")
    assert "install 'tensorrt-rtx'" in told
