"""The selective scan as a plugin: what it registers, and what its launches compute.

The kernels themselves are run by Triton's interpreter, in a process of its own: whether Triton
interprets is settled when it is imported.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from plugin_double import DataType, TensorRTWithPlugins

from mmfusion_ros.core.engines.tensorrt.scan_plugin import SCAN, register_scan_plugin, split_scans
from mmfusion_ros.core.errors import EngineError

onnx = pytest.importorskip("onnx")
pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("triton", reason="Triton is not installed; it comes with PyTorch for CUDA")

from onnx import TensorProto, helper

ORIN = (8, 7)
STATES = 3
INTERPRETED = "MMFUSION_TEST_KERNELS"  # their folder, in the process with the interpreter
SHAPE = (2, 259, 1, 3)  # images, steps, directions, channels; the second chunk is partial
TWO_BLOCKS = (1, 12, 2, 33)


def sizes_of(images, steps, directions, channels):
    return {
        "u": (images, steps, directions, channels),
        "step": (images, steps, directions, channels),
        "a": (directions, channels, STATES),
        "b": (images, steps, directions, STATES),
        "c": (images, steps, directions, STATES),
        "d": (directions, channels),
    }


def scan_model(shape=SHAPE, rates=TensorProto.FLOAT):
    """A graph of one scan between two other nodes."""
    inputs = [
        helper.make_tensor_value_info(name, rates if name == "a" else TensorProto.FLOAT, size)
        for name, size in sizes_of(*shape).items()
    ]
    nodes = [
        helper.make_node("Relu", ["u"], ["u_seen"], name="before"),
        helper.make_node(
            SCAN[1], ["u_seen", "step", "a", "b", "c", "d"], ["y"], name="scan", domain=SCAN[0]
        ),
        helper.make_node("Neg", ["y"], ["z"], name="after"),
    ]
    value = helper.make_tensor_value_info("u_seen", TensorProto.FLOAT, shape)
    output = helper.make_tensor_value_info("z", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "scan", inputs, [output], value_info=[value])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(SCAN[0], 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    for name in (SCAN[1], "Another"):
        body = [helper.make_node("Identity", ["x"], ["y"])]
        function = helper.make_function(SCAN[0], name, ["x"], ["y"], body, opsets[:1])
        model.functions.append(function)
    return model


if os.environ.get(INTERPRETED):
    from pathlib import Path

    import torch

    from mmfusion.layers import selective_scan_kernels
    from mmfusion.layers.selective_scan import selective_scan_reference

    @pytest.mark.parametrize(
        ("shape", "dtype"),
        [(SHAPE, DataType.FLOAT), (TWO_BLOCKS, DataType.FLOAT), (TWO_BLOCKS, DataType.HALF)],
    )
    def test_launches_compute_the_scan(shape, dtype, monkeypatch):
        folder = Path(os.environ[INTERPRETED])
        tensorrt = TensorRTWithPlugins(monkeypatch)
        assert register_scan_plugin(tensorrt, folder, ORIN).registered
        model = scan_model(shape)
        split_scans(model)
        nodes = [node for node in model.graph.node if node.domain == SCAN[0]]
        torch_dtypes = {DataType.FLOAT: torch.float32, DataType.HALF: torch.float16}
        rng = np.random.default_rng(0)
        arrays = {
            name: torch.from_numpy(rng.standard_normal(size)).to(
                torch.float32 if name == "a" else torch_dtypes[dtype]
            )
            for name, size in sizes_of(*shape).items()
        }
        arrays["a"] = -arrays["a"].abs() - 0.01
        arrays["step"] = (arrays["step"].float() - 3).exp().to(torch_dtypes[dtype])
        arrays["u_seen"] = arrays.pop("u")
        expected = selective_scan_reference(
            *(arrays[name].double() for name in ("u_seen", "step", "a", "b", "c", "d"))
        )
        known = {
            name: (DataType.FLOAT if name == "a" else dtype, tuple(array.shape))
            for name, array in arrays.items()
        }
        index = json.loads((folder / "selective_scan.json").read_text())
        for launch in tensorrt.launches(nodes, known):
            for name, (kind, size) in launch.outputs.items():
                arrays[name] = torch.full(size, torch.nan, dtype=torch_dtypes[kind])
            kernel = getattr(selective_scan_kernels, launch.entry)
            constants = {
                "CHUNK": index["chunk"],
                "BLOCK_D": index["channels_per_block"],
                "BLOCK_S": index["kernels"]["emit"][0]["states"],
                "BACKWARDS": False,
            }
            kernel[launch.grid](
                *(arrays[name] for name in launch.inputs),
                *launch.sizes,
                *(arrays[name] for name in launch.outputs),
                **{name: constants[name] for name in kernel.arg_names if name in constants},
            )
        assert arrays["y"].dtype == torch_dtypes[dtype]
        error = (arrays["y"].double() - expected).abs().max() / expected.abs().max()
        assert error < (1e-6 if dtype is DataType.FLOAT else 1e-3)

else:

    @pytest.fixture(scope="module")
    def kernels(tmp_path_factory):
        """Of an artifact, for two generations of GPUs."""
        from mmfusion.layers.selective_scan_ptx import write_kernels

        artifact = tmp_path_factory.mktemp("artifact")
        model = scan_model()
        model.graph.value_info.append(model.graph.input[2])  # where the exporter puts shapes
        onnx.save(model, artifact / "graph.onnx")
        return write_kernels(artifact, ["sm_87", "sm_90"]).parent

    @pytest.fixture
    def copied(kernels, tmp_path):
        return shutil.copytree(kernels, tmp_path / "kernels")

    @pytest.fixture
    def tensorrt(monkeypatch):
        return TensorRTWithPlugins(monkeypatch)

    def launches(tensorrt, dtype=DataType.FLOAT, **changed):
        model = scan_model()
        split_scans(model)
        nodes = [node for node in model.graph.node if node.domain == SCAN[0]]
        known = {
            name: (DataType.FLOAT if name == "a" else dtype, size)
            for name, size in sizes_of(*SHAPE).items()
        }
        known["u_seen"] = known.pop("u")
        return list(tensorrt.launches(nodes, known | changed))

    def test_in_the_interpreter(kernels):
        result = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", __file__],
            env={**os.environ, "TRITON_INTERPRET": "1", INTERPRETED: str(kernels)},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert result.returncode == 0, result.stdout
        assert "3 passed" in result.stdout

    def test_a_scan_becomes_three_nodes_and_its_function_goes():
        model = scan_model()
        split_scans(model)
        described = [
            (node.op_type, list(node.input), list(node.output)) for node in model.graph.node
        ]
        assert described == [
            ("Relu", ["u"], ["u_seen"]),
            ("SelectiveScanStates", ["u_seen", "step", "a", "b"], ["y_ends", "y_sums"]),
            ("SelectiveScanCarry", ["a", "y_ends", "y_sums"], ["y_borders"]),
            (
                "SelectiveScanEmit",
                ["u_seen", "step", "a", "b", "c", "d", "y_borders"],
                ["y"],
            ),
            ("Neg", ["y"], ["z"]),
        ]
        assert [function.name for function in model.functions] == ["Another"]
        onnx.checker.check_model(model)

    def test_decay_rates_of_half_precision_are_widened():
        model = scan_model(rates=TensorProto.FLOAT16)
        split_scans(model)
        cast = model.graph.node[1]
        assert (cast.op_type, list(cast.input)) == ("Cast", ["a"])
        assert cast.attribute[0].i == TensorProto.FLOAT
        for node in model.graph.node[2:5]:
            assert cast.output[0] in node.input
            assert "a" not in node.input

    def test_more_lines_than_a_grid_has_are_refused():
        with pytest.raises(EngineError, match=r"'y' is of 40000 images times 2 directions.*delete"):
            split_scans(scan_model((40000, 9, 2, 3)))

    def test_each_launch_passes_what_the_kernel_takes(kernels, tensorrt):
        assert register_scan_plugin(tensorrt, kernels, ORIN).registered
        found = launches(tensorrt)
        assert [launch.entry for launch in found] == ["scan_states", "scan_carry", "scan_emit"]
        assert [launch.grid for launch in found] == [(2, 1, 2), (1, 2, 1), (2, 1, 2)]
        assert [launch.sizes for launch in found] == [
            [259, 1, 3, 3],
            [2, 1, 3, 3],
            [259, 1, 3, 3],
        ]
        for launch in found:
            assert ".target sm_87\n" in launch.ptx
            header = launch.ptx.split(f".entry {launch.entry}(")[1].split("\n)")[0]
            kinds = re.findall(r"\.param \.(u\d+)", header)
            pointers = len(launch.inputs), len(launch.outputs)
            assert kinds == ["u64"] * pointers[0] + ["u32"] * 4 + ["u64"] * pointers[1]
            assert f".reqntid {launch.threads}\n" in launch.ptx
            # Blocks are not asked for more shared memory than every launch may have.
            assert launch.shared_bytes <= 48 * 1024

    def test_a_later_gpu_takes_the_newest_that_it_can(kernels, tensorrt):
        digests = set()
        for capability, target in {(8, 9): "sm_87", (9, 0): "sm_90", (12, 0): "sm_90"}.items():
            digests.add(register_scan_plugin(tensorrt, kernels, capability).digest)
            assert {f".target {target}\n" in launch.ptx for launch in launches(tensorrt)} == {True}
        assert len(digests) == 2
        assert len(tensorrt.definitions) == 3  # registered once

    def test_half_precision_has_kernels_of_its_own(kernels, tensorrt):
        register_scan_plugin(tensorrt, kernels, ORIN)
        states, carry, emit = launches(tensorrt, DataType.HALF)
        assert "cvt.f32.f16" in states.ptx
        assert "cvt.f32.f16" in emit.ptx
        assert "f16" not in carry.ptx
        assert emit.outputs["y"][0] is DataType.HALF

    def test_types_and_states_without_kernels_are_refused(kernels, tensorrt):
        register_scan_plugin(tensorrt, kernels, ORIN)
        with pytest.raises(EngineError, match=r"no kernel 'states' .* for inputs of fp16, fp32"):
            launches(tensorrt, step=(DataType.HALF, sizes_of(*SHAPE)["step"]))
        with pytest.raises(EngineError, match=r"DataType\.INT32"):
            launches(tensorrt, DataType.INT32)
        with pytest.raises(EngineError, match="has 9 states, the artifact's kernels take up to 4"):
            launches(tensorrt, a=(DataType.FLOAT, (1, 3, 9)))

    def test_without_kernels_there_is_a_reason(kernels, tensorrt, tmp_path, monkeypatch):
        def reason(*arguments):
            plugin = register_scan_plugin(*arguments)
            assert not plugin.registered
            return plugin.reason

        assert "has no kernels; write them with 'mmfusion scan-kernels'" in reason(
            tensorrt, tmp_path, ORIN
        )
        assert "no kernels for compute capability 7.5" in reason(tensorrt, kernels, (7, 5))
        old = TensorRTWithPlugins(monkeypatch, ahead_of_time=False)
        assert "TensorRT 10.9 and newer" in reason(old, kernels, ORIN)
        monkeypatch.setitem(sys.modules, f"{old.__name__}.plugin", None)
        assert "no plugins in Python" in reason(old, kernels, ORIN)

    def test_damage_is_named(copied, tensorrt):
        ptx = copied / "selective_scan_emit.fp32.sm_87.ptx"
        text = ptx.read_text()
        ptx.write_text(text.replace("ret;", "exit;"))
        with pytest.raises(EngineError, match=r"emit\.fp32\.sm_87\.ptx is not what .* tells of"):
            register_scan_plugin(tensorrt, copied, ORIN)
        ptx.unlink()
        with pytest.raises(EngineError, match=r"selective_scan\.json is damaged"):
            register_scan_plugin(tensorrt, copied, ORIN)
        ptx.write_text(text)
        path = copied / "selective_scan.json"
        index = json.loads(path.read_text())
        path.write_text(json.dumps(index | {"schema_version": 9}))
        with pytest.raises(EngineError, match="is of schema version 9, expected 1"):
            register_scan_plugin(tensorrt, copied, ORIN)
        for damaged in ("{", "[]", '{"schema_version": 1}'):
            path.write_text(damaged)
            with pytest.raises(EngineError, match=r"selective_scan\.json is damaged"):
                register_scan_plugin(tensorrt, copied, ORIN)
