"""An engine compiled from PyTorch: for its artifact alone, and used by the robot if it is close."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import logging
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

sys.path.insert(0, str(Path(__file__).parents[1] / "ros"))

from compositions import drawn_inputs, flags, write_composition
from cuda_double import ORIN, DriverDouble, TensorRTDouble

from mmfusion import tensorrt_compiler
from mmfusion.cli import main
from mmfusion.compile_engine import compile_engine
from mmfusion.composition import read_composition
from mmfusion.errors import ExportError
from mmfusion.export import build_graph
from mmfusion.tensorrt_compiler import BuilderSettings, TorchTensorRT
from mmfusion_ros.core.artifact import open_artifact
from mmfusion_ros.core.engines import EngineOptions
from mmfusion_ros.core.engines.sample_frames import SampleFrames, write_sample_frames
from mmfusion_ros.core.engines.tensorrt import builder, open_on

pytestmark = [pytest.mark.torch, pytest.mark.export]
VERSION = "11.1.0.106"


class CompilerDouble:
    """Stands in for torch_tensorrt: what it gives is run by the double of TensorRT.

    Args:
        tensorrt: that double.

    Attributes:
        program: what it got last.
    """

    def __init__(self, tensorrt) -> None:
        gpu = tensorrt.driver.gpu
        self.version = "2.14.0"
        self.library = f"tensorrt {tensorrt.__version__}"
        self.gpu, self.compute_capability = gpu.name, gpu.compute_capability
        self.program = None
        self._tensorrt = tensorrt

    def compile(self, program, inputs, outputs, settings):
        assert settings == BuilderSettings()
        self.program = program
        buffer = io.BytesIO()
        given = {"kwargs": dict(inputs), "input_names": list(inputs), "output_names": outputs}
        torch.onnx.export(program, f=None, dynamo=True, opset_version=20, **given).save(buffer)
        return self._tensorrt.serialized(buffer.getvalue())


def make_tensorrt(gpu=ORIN, version=VERSION):
    return TensorRTDouble(DriverDouble(gpu), version=version)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """An artifact without a selective scan, with an engine; what it is of, and frames."""
    folder = tmp_path_factory.mktemp("joint")
    path = write_composition(folder, fusion="detection", extra_outputs=["registered_thermal"])
    artifact = folder / "art"
    assert main(["export", "--composition", str(path), "--out", str(artifact)]) == 0
    # Drawn weights find nothing, so there is nothing to compare of it.
    manifest = json.loads((artifact / "manifest.json").read_text())
    del manifest["tolerances"]["boxes"]
    (artifact / "manifest.json").write_text(json.dumps(manifest))
    composition = read_composition(path)
    graph, _ = build_graph(composition)
    frames = SampleFrames.of([drawn_inputs(graph, seed) for seed in range(2)])
    write_sample_frames(folder / "frames.npz", open_artifact(artifact), frames)
    compiler = CompilerDouble(make_tensorrt())
    return SimpleNamespace(
        artifact=artifact,
        composition=composition,
        graph=graph,
        frames=folder / "frames.npz",
        engine=compile_engine(artifact, composition, compiler),
        program=compiler.program,
    )


@pytest.fixture
def artifact(compiled, tmp_path):
    return shutil.copytree(compiled.artifact, tmp_path / "art")


@pytest.fixture
def engine_file(compiled, artifact):
    return artifact / "engines" / compiled.engine.name


@pytest.fixture
def robot(compiled, artifact, tmp_path):
    """Opens the artifact's engine as a robot does."""

    def start(tensorrt=None, *, samples=True, **changes):
        tensorrt = tensorrt or make_tensorrt()
        options = EngineOptions(
            backend="tensorrt",
            cache=tmp_path / "cache",
            samples=compiled.frames if samples else None,
            threads=1,
            **changes,
        )
        return open_on(tensorrt, tensorrt.driver, open_artifact(artifact), options)

    return start


@pytest.mark.parametrize("present", [("rgb", "depth", "thermal"), ("rgb",), ("thermal",)])
def test_the_program_computes_the_same(compiled, present):
    inputs = drawn_inputs(compiled.graph) | {"present": flags(*present)}
    inputs = {name: torch.from_numpy(array) for name, array in inputs.items()}
    with torch.inference_mode():
        expected, given = compiled.graph(**inputs), compiled.program.module()(**inputs)
    assert list(given) == list(expected)
    for name, tensor in expected.items():
        assert given[name].dtype == tensor.dtype
        ours, theirs = given[name].double().numpy(), tensor.double().numpy()
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-2, err_msg=name)


def test_bytes_are_at_the_edges_of_the_program_alone(compiled):
    signature = compiled.program.graph_signature
    of_bytes = {
        node.name
        for node in compiled.program.graph.nodes
        if isinstance(value := node.meta.get("val"), torch.Tensor) and value.dtype == torch.uint8
    }
    assert {"rgb", "depth", "thermal"} < of_bytes
    assert of_bytes <= {*signature.user_inputs, *signature.user_outputs}


def test_the_program_has_no_operator_without_a_converter(compiled):
    nodes = [node for node in compiled.program.graph.nodes if node.op == "call_function"]
    assert not {str(node.target) for node in nodes} & {
        "torchvision.roi_align.default",
        "aten.all.dim",
    }
    ranks = [
        node.args[0].meta["val"].dim() for node in nodes if str(node.target) == "aten.topk.default"
    ]
    assert ranks
    assert min(ranks) >= 2


def test_the_robot_runs_it_once_it_is_compared(compiled, artifact, engine_file, robot, caplog):
    tensorrt = make_tensorrt()
    with caplog.at_level(logging.INFO, "mmfusion_ros"), robot(tensorrt) as engine:
        assert engine.path == engine_file
        assert (engine.builder, engine.precision) == ("torch_tensorrt", "fp32")
        assert engine.gate.passed
        assert engine.gate.frames == 2
        inputs = drawn_inputs(compiled.graph, seed=3)
        session = ort.InferenceSession(artifact / "graph.onnx")
        feeds = {value.name: inputs[value.name] for value in session.get_inputs()}
        (expected,) = session.run(["fused"], feeds)
        assert np.abs(engine.run(inputs)["fused"] - expected.astype(int)).max() <= 1
    assert "built from torch_tensorrt" in caplog.text
    assert tensorrt.builds == 0
    with robot(samples=False) as engine:  # what was measured is kept
        assert engine.path == engine_file


def test_it_is_described_in_clear(artifact, engine_file):
    told = json.loads(engine_file.with_suffix(".json").read_text())
    assert told["key"]["builder"] == "torch_tensorrt"
    assert told["key"]["graph"] == open_artifact(artifact).digest
    assert told["key"]["library"] == f"tensorrt {VERSION}"
    assert told["sha256"] == hashlib.sha256(engine_file.read_bytes()).hexdigest()
    assert told["tools"] == {"torch": torch.__version__, "torch_tensorrt": "2.14.0"}
    assert len(list(engine_file.parent.iterdir())) == 2


def test_the_robot_takes_the_other_route_until_it_is_compared(robot, caplog):
    tensorrt = make_tensorrt()
    with robot(tensorrt, samples=False) as engine:
        assert (engine.builder, engine.gate) == ("onnx", None)
    assert "not that of torch_tensorrt: tensorrt in fp32 built by torch_tensorrt was not yet" in (
        caplog.text
    )
    assert "or delete that engine" in caplog.text
    assert tensorrt.builds == 1
    assert not tensorrt.driver.leaks


def darken(engine):
    """The engine of the double with a fused picture that is wrong."""
    head = len(TensorRTDouble.MARK) + 8
    model = onnx.load_from_string(engine[head:])
    for node in model.graph.node:
        node.output[:] = ["right" if name == "fused" else name for name in node.output]
    zero = onnx.numpy_helper.from_array(np.float32(0), "zero")
    model.graph.initializer.append(zero)
    for operator, given, made, to in (
        ("Cast", ["right"], "number", {"to": onnx.TensorProto.FLOAT}),
        ("Mul", ["number", "zero"], "black", {}),
        ("Cast", ["black"], "fused", {"to": onnx.TensorProto.UINT8}),
    ):
        model.graph.node.append(onnx.helper.make_node(operator, given, [made], **to))
    return engine[:head] + model.SerializeToString()


def test_one_that_is_too_far_is_left_aside(engine_file, robot, caplog):
    engine_file.write_bytes(darken(engine_file.read_bytes()))
    path = engine_file.with_suffix(".json")
    told = json.loads(path.read_text())
    told["size"] = engine_file.stat().st_size
    told["sha256"] = hashlib.sha256(engine_file.read_bytes()).hexdigest()
    path.write_text(json.dumps(told))
    tensorrt = make_tensorrt()
    with robot(tensorrt) as engine:
        assert (engine.builder, engine.gate) == ("onnx", None)
    assert "built by torch_tensorrt is too far from fp32 on 2 sample frames" in caplog.text
    assert not tensorrt.driver.leaks


def test_the_robot_runs_it_also_where_it_would_build_for_other_gpus(engine_file, robot):
    with robot(hardware_compatible=True) as engine:
        assert engine.path == engine_file


def ignored(caplog):
    """The one warning, that what was compiled does not serve."""
    (record,) = (each for each in caplog.records if each.levelno == logging.WARNING)
    assert re.search(r"no engine in .*/engines is for this graph", record.getMessage())
    return record.getMessage()


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        ({"gpu": dataclasses.replace(ORIN, name="Thor")}, "(gpu Orin, not Thor)"),
        (
            {"gpu": dataclasses.replace(ORIN, compute_capability=(9, 0))},
            "(compute_capability [8, 7], not [9, 0])",
        ),
        (
            {"version": "11.4.0.106"},
            f"(library tensorrt {VERSION}, not tensorrt 11.4.0.106)",
        ),
    ],
    ids=["gpu", "compute capability", "version"],
)
def test_another_machine_does_not_use_it(engine_file, robot, other, difference, caplog):
    with robot(make_tensorrt(**other)) as engine:
        assert engine.builder == "onnx"
    assert f"{engine_file.name} {difference}; compile again" in ignored(caplog)


def test_another_graph_does_not_use_it(artifact, robot, caplog):
    model = onnx.load(artifact / "graph.onnx")
    model.doc_string = "another"
    encoded = model.SerializeToString()
    (artifact / "graph.onnx").write_bytes(encoded)
    manifest = json.loads((artifact / "manifest.json").read_text())
    manifest["graph"]["sha256"] = hashlib.sha256(encoded).hexdigest()
    (artifact / "manifest.json").write_text(json.dumps(manifest))
    with robot() as engine:
        assert engine.builder == "onnx"
    assert "(graph " in ignored(caplog)


def cut(engine_file):
    engine_file.write_bytes(engine_file.read_bytes()[:-1])


def put_a_file_in_the_way(engine_file):
    shutil.rmtree(engine_file.parent)
    engine_file.parent.touch()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [(cut, r"it has \d+ bytes, expected \d+"), (put_a_file_in_the_way, ".*/engines is no folder")],
)
def test_a_damaged_one_is_not_used(engine_file, robot, caplog, damage, reason):
    damage(engine_file)
    with robot() as engine:
        assert engine.builder == "onnx"
    (record,) = caplog.records
    told = re.escape(f"{engine_file} cannot be used: ") + reason
    assert re.search(f"{told}; compile it again, or delete it$", record.getMessage())


def test_both_houses_build_with_the_same_settings():
    assert dataclasses.asdict(BuilderSettings()) == dataclasses.asdict(builder.BuilderSettings())


def test_another_composition_is_refused(artifact, engine_file, tmp_path):
    other = read_composition(write_composition(tmp_path, fusion="detection"))
    engine = engine_file.read_bytes()
    compiler = CompilerDouble(make_tensorrt())
    with pytest.raises(ExportError) as refused:
        compile_engine(artifact, other, compiler)
    assert str(refused.value) == (
        f'{artifact} was exported from another composition: outputs[7] is "registered_thermal", '
        "expected nothing; export it again, or name the one it is of"
    )
    assert compiler.program is None
    assert engine_file.read_bytes() == engine


@pytest.mark.parametrize(
    ("key", "change", "difference"),
    [
        (
            "encodings",
            lambda told: told | {"thermal": "mono8"},
            r'encodings\.thermal is "mono8", expected "mono16";',
        ),
        ("classes", lambda told: told[::-1], r'classes\[0\] is "Truck", expected "People";'),
        ("models", lambda told: told[:1], r'models\[1\] is nothing, expected "efficientmfd_tiny";'),
    ],
    ids=["encodings", "classes", "models"],
)
def test_the_first_difference_is_told(compiled, artifact, key, change, difference):
    manifest = json.loads((artifact / "manifest.json").read_text())
    manifest[key] = change(manifest[key])
    (artifact / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ExportError, match=difference) as refused:
        compile_engine(artifact, compiled.composition, CompilerDouble(make_tensorrt()))
    assert len(str(refused.value)) < len(str(artifact)) + 200


def test_a_folder_that_cannot_be_written_to_is_told_before_compiling(compiled, artifact):
    shutil.rmtree(artifact / "engines")
    # /sys lets nobody write, the superuser neither.
    (artifact / "engines").symlink_to("/sys")
    compiler = CompilerDouble(make_tensorrt())
    with pytest.raises(ExportError, match=r"no engine can be written into .*engines \(.*\); make"):
        compile_engine(artifact, compiled.composition, compiler)
    assert compiler.program is None


def test_a_selective_scan_is_refused(repo_root):
    name = "rgbdt_tiny_640x480"
    composition = read_composition(repo_root / "compositions" / f"{name}.yaml")
    with pytest.raises(ExportError, match=r"scans, .* fusion\.network\.decoder\.0\.blocks\.0,"):
        compile_engine(repo_root / "artifacts" / name, composition, CompilerDouble(make_tensorrt()))


def command(repo_root):
    name = "rgbdt_tiny_640x480"
    composition = str(repo_root / "compositions" / f"{name}.yaml")
    artifact = str(repo_root / "artifacts" / name)
    return ["compile", artifact, "--composition", composition, "--engine", "torch_tensorrt"]


def one_line(capsys):
    told = capsys.readouterr()
    assert told.out == ""
    (line,) = told.err.splitlines()
    return line


def test_without_the_library_it_says_so(repo_root, monkeypatch, capsys):
    monkeypatch.setattr(tensorrt_compiler.importlib.util, "find_spec", lambda name: None)
    assert main(command(repo_root)) == 1
    assert one_line(capsys).startswith(
        "mmfusion compile: torch_tensorrt is not installed; install it with: pip install "
    )


def test_without_a_gpu_it_says_so(repo_root, monkeypatch, capsys):
    monkeypatch.setattr(tensorrt_compiler.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(command(repo_root)) == 1
    assert "torch_tensorrt needs an NVIDIA GPU that PyTorch can use" in one_line(capsys)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("print('libs?'); raise Exception('no\\nlibnvinfer.so.11')", r"\(no libnvinfer.so.11\)"),
        ("tensorrt_package_name = 'tensorrt_rtx'", "is here for tensorrt_rtx, whose engines"),
        ("tensorrt_package_name = 'tensorrt'; __version__ = '2.14.0'", "compiles no exported"),
    ],
)
def test_a_library_that_cannot_serve_is_told_in_one_line(
    source, message, tmp_path, repo_root, monkeypatch, capsys
):
    (tmp_path / "torch_tensorrt.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torch_tensorrt", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert main(command(repo_root)) == 1
    line = one_line(capsys)
    sys.modules.pop("torch_tensorrt", None)
    assert re.search(message, line), line


CONVERSION = """
calls = []
class ConverterPriority:
    HIGH = 1
def dynamo_tensorrt_converter(target, **options):
    return calls.append
def convert_exported_program_to_serialized_trt_engine(program, **options):
    calls.append(options)
    if program is None:
        try:
            raise ValueError("no all.dim\\nWhile executing %all_1\\nOriginal traceback:\\nFile")
        except ValueError as error:
            raise RuntimeError("GraphModule(a thousand lines)") from error
    return b"engine"
"""


@pytest.fixture
def library(tmp_path, monkeypatch):
    """What is used of torch_tensorrt and of the GPU, made up; and what was asked of it."""
    files = {
        "tensorrt.py": "__version__ = '11.1.0.106'; uint8 = 'bytes'",
        "torch_tensorrt/__init__.py": "from . import dynamo; __version__ = '2.14.0'\n"
        "tensorrt_package_name = 'tensorrt'",
        "torch_tensorrt/dynamo/__init__.py": "from .conversion import *",
        "torch_tensorrt/dynamo/conversion/__init__.py": CONVERSION,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    made_up = {
        "is_available": True,
        "get_device_name": "NVIDIA H200",
        "get_device_capability": (9, 0),
        "current_device": 0,
    }
    for name, value in made_up.items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    before = set(sys.modules)
    compiler = TorchTensorRT()
    yield compiler, sys.modules["torch_tensorrt"].dynamo.calls
    for name in set(sys.modules) - before:
        if name.split(".")[0] in {"tensorrt", "torch_tensorrt"}:
            del sys.modules[name]


def test_what_is_asked_of_the_library(library):
    compiler, calls = library
    assert (compiler.gpu, compiler.compute_capability) == ("NVIDIA H200", (9, 0))
    assert compiler.library == "tensorrt 11.1.0.106"
    inputs = {"rgb": torch.zeros(2)}
    assert compiler.compile(object(), inputs, ["fused"], BuilderSettings()) == b"engine"
    convert, options = calls
    assert options["disable_tf32"] is True
    assert options["workspace_size"] == 2048 * 2**20
    assert options["kwarg_input_binding_names"] == {"rgb": "rgb"}
    assert options["output_binding_names"] == {"fused": "fused"}
    layer = SimpleNamespace(get_output=lambda index: ("cast", index))
    casts = []
    network = SimpleNamespace(add_cast=lambda *given: casts.append(given) or layer)
    assert convert(SimpleNamespace(net=network), None, ("x",), {}, "name") == ("cast", 0)
    assert casts == [("x", "bytes")]


def test_what_the_library_refuses_is_told_in_one_line(library):
    compiler, _ = library
    with pytest.raises(ExportError) as refused:
        compiler.compile(None, {}, [], BuilderSettings())
    assert str(refused.value) == (
        "torch_tensorrt 2.14.0 cannot compile the graph: no all.dim While executing %all_1; the "
        "robot builds its engine from the artifact's graph.onnx instead"
    )


def test_torch_tensorrt_compiles_what_it_gets(compiled, artifact):
    try:
        compiler = TorchTensorRT()
    except ExportError as error:
        pytest.skip(str(error))
    path = compile_engine(artifact, compiled.composition, compiler)
    import tensorrt as library

    runtime = library.Runtime(library.Logger())
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    specs = {**open_artifact(artifact).inputs, **open_artifact(artifact).outputs}
    assert {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)} == set(specs)
    for name, spec in specs.items():
        assert tuple(engine.get_tensor_shape(name)) == spec.shape
        assert np.dtype(library.nptype(engine.get_tensor_dtype(name))) == spec.dtype
