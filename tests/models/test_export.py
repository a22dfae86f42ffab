"""The artifact: PyTorch and ONNX Runtime agree on it, and its manifest is strict."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from safetensors.torch import save_file

import mmfusion
from mmfusion.cli import main
from mmfusion.composition import Composition, FusionPart, Weights
from mmfusion.errors import ExportError
from mmfusion.export import build_graph, example_outputs, onnx_model
from mmfusion.graph.camera_graph import Branches, CameraGraph
from mmfusion.graph.cameras import CameraSpec
from mmfusion.graph.luma_fusion import LumaFusion
from mmfusion.manifest import validate_manifest
from mmfusion.s4fusion.config import S4FusionConfig
from mmfusion.s4fusion.network import S4Fusion

pytestmark = pytest.mark.torch
SIZE = (120, 160)
QUALITY = [{"modalities": ["rgb", "thermal"], "data": "2 pairs of here", "metrics": {"VIF": 0.5}}]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(mmfusion.create_model("s4fusion_tiny").state_dict(), path)
    return path


def write_evaluation(path, checkpoint, **changes):
    """As `mmfusion evaluate` writes it of a checkpoint."""
    sha256 = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    path.parent.mkdir(exist_ok=True)
    record = {"checkpoint_sha256": sha256, "pairs": 2, "quality": QUALITY}
    path.write_text(json.dumps(record | changes))


@pytest.fixture(scope="module")
def artifact(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifact") / "small"
    provenance = folder.parent / "provenance.json"
    write_evaluation(folder.parent / "figures" / "evaluation.json", checkpoint)
    content = {
        "training_data": "none: random weights",
        "evaluation": "figures/evaluation.json",
    }
    provenance.write_text(json.dumps(content))
    arguments = [
        "export", "--checkpoint", str(checkpoint), "--rgb-size", "160x120", "--thermal-size",
        "80x60", "--registration", "homography", "--fusion-scale", "2", "--registered-thermal",
        "--provenance", str(provenance), "--out", str(folder),
    ]  # fmt: skip
    assert main(arguments) == 0
    return folder


def test_the_manifest_describes_the_graph(artifact):
    manifest = json.loads((artifact / "manifest.json").read_text())
    graph = (artifact / "graph.onnx").read_bytes()
    assert manifest["graph"]["sha256"] == hashlib.sha256(graph).hexdigest()
    assert manifest["name"] == "small"
    assert manifest["models"][0]["training_data"] == "none: random weights"
    assert manifest["quality"] == QUALITY
    session = ort.InferenceSession(graph)
    for side, values in (("inputs", session.get_inputs()), ("outputs", session.get_outputs())):
        described = {entry["name"]: entry for entry in manifest[side]}
        assert list(described) == [value.name for value in values]
        for value in values:
            assert described[value.name]["shape"] == value.shape
    assert len(manifest["rig_packing"]) == 9


def test_the_graph_carries_its_scan_function_and_nothing_of_the_machine(artifact):
    model = onnx.load(artifact / "graph.onnx")
    scans = [node for node in model.graph.node if node.op_type == "SelectiveScan"]
    assert len(scans) == 8  # both encoders share a call: 3 levels, 2 fusions, 3 in the decoder
    assert [function.name for function in model.functions] == ["SelectiveScan"]
    assert b"site-packages" not in (artifact / "graph.onnx").read_bytes()
    assert not any(node.op_type in {"Col2Im", "DFT", "CumSum"} for node in model.graph.node)


def reached(nodes, sources, *, backwards=False):
    """Names of what comes behind some nodes, or before them."""
    values, names = set(), set()
    for node in nodes[::-1] if backwards else nodes:
        near, far = (node.output, node.input) if backwards else (node.input, node.output)
        if values.intersection(near):
            names.add(node.name)
        if node.name in sources | names:
            values.update(far)
    return names


@pytest.mark.parametrize("scale", [1, 2])
def test_nodes_tell_what_is_the_networks_and_what_is_around_it(scale):
    small = S4FusionConfig(8, (1, 1), 2, 2, 1, unused_published_layers=False, blend=True, detail=8)
    size = (48, 64)
    graph = CameraGraph(
        CameraSpec(size, size, size), Branches(LumaFusion(S4Fusion(small), scale))
    ).eval()
    inputs = graph.example_inputs()
    nodes = onnx_model(graph, inputs, list(example_outputs(graph, inputs))).graph.node
    own = re.compile(r"fusion\.network[./]")
    named = {node.name for node in nodes if own.match(node.name)}
    # Whatever lies on a way through the network is its own, data movement included.
    behind, ahead = reached(nodes, named), reached(nodes, named, backwards=True)
    assert len(behind & ahead) > len(named) / 2
    assert behind & ahead <= named
    operators = {node.op_type for node in nodes if node.name in named}
    assert {"SelectiveScan", "Softplus", "Conv", "ConvTranspose"} <= operators
    blend = Counter(node.op_type for node in nodes if node.name.startswith("fusion/"))
    assert (blend["Log"], blend["Tanh"], blend["Sigmoid"]) == (2, 1, 3)
    assert blend["AveragePool"] == (6 if scale == 1 else 8)
    assert not {"SelectiveScan", "Softplus", "MatMul", "Einsum", "Conv"} & blend.keys()


def test_pytorch_and_onnxruntime_agree_on_drawn_images(artifact, checkpoint):
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (*SIZE, 3), np.uint8)
    thermal = rng.integers(29000, 31000, (60, 80)).astype("<u2")
    _compare(artifact, checkpoint, rgb, thermal)


def test_pytorch_and_onnxruntime_agree_on_real_images(artifact, checkpoint, shared_dir):
    folder = shared_dir / "data" / "rgbdt" / "val"
    for stem in ("mm5_071", "mm5_231"):
        rgb = cv2.imread(str(folder / "rgb" / f"{stem}.jpg"))[..., ::-1]
        thermal = cv2.imread(str(folder / "thermal" / f"{stem}.png"), cv2.IMREAD_UNCHANGED)
        rgb = np.ascontiguousarray(cv2.resize(rgb, SIZE[::-1]))
        _compare(artifact, checkpoint, rgb, cv2.resize(thermal, (80, 60)))


def _compare(artifact, checkpoint, rgb, thermal):
    spec = CameraSpec(SIZE, SIZE, (60, 80), registration="homography", registered_thermal=True)
    fusion = FusionPart(Weights("s4fusion_tiny", checkpoint), scale=2)
    graph, _ = build_graph(Composition(spec, fusion))
    feeds = {name: tensor.numpy() for name, tensor in graph.example_inputs().items()}
    feeds["rgb"] = rgb
    feeds["thermal"] = np.ascontiguousarray(thermal).view(np.uint8).reshape(60, 80, 2)
    feeds["rig"] = np.array([0.5, 0, 2, 0, 0.5, -1, 0, 0, 1], np.float32)
    session = ort.InferenceSession(artifact / "graph.onnx")
    read = {value.name for value in session.get_inputs()}
    for present in ([1, 1, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]):
        feeds["present"] = np.array(present, np.float32)
        ours = session.run(None, {name: feeds[name] for name in read})
        with torch.inference_mode():
            theirs = graph(**{name: torch.from_numpy(array) for name, array in feeds.items()})
        for array, (name, tensor) in zip(ours, theirs.items(), strict=True):
            # One grey level: a value on the border between two may round either way.
            difference = np.abs(array.astype(np.float64) - tensor.numpy())
            assert difference.max() <= 1, name
            assert difference.mean() < 0.01, name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pop("tolerances"), "'tolerances' is a required property"),
        (lambda m: m.update(extra=1), "'extra' was unexpected"),
        (lambda m: m["inputs"][0].update(dtype="uint16"), r"\$\.inputs\[0\]\.dtype"),
        (lambda m: m["graph"].update(sha256="abc"), r"\$\.graph\.sha256"),
    ],
)
def test_a_wrong_manifest_is_refused_naming_the_key(artifact, change, message):
    manifest = json.loads((artifact / "manifest.json").read_text())
    validate_manifest(manifest)
    change(manifest)
    with pytest.raises(ExportError, match=message):
        validate_manifest(manifest)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint", "absent.safetensors"], "no checkpoint at absent.safetensors"),
        (["--model", "s4fusion"], "does not fit S4Fusion"),
        (["--composition", "c.yaml"], "--composition says it all: leave out --checkpoint"),
        (["--rgb-size", "wide"], "'wide' is no size; expected e.g. 640x480"),
        (["--fusion-scale", "2", "--model", "s4fusion"], "does not fit S4Fusion"),
    ],
)
def test_user_errors_are_one_clear_line(checkpoint, tmp_path, capsys, arguments, message):
    base = ["export", "--checkpoint", str(checkpoint), "--rgb-size", "32x24"]
    assert main([*base, "--out", str(tmp_path / "a"), *arguments]) == 1
    errors = capsys.readouterr().err.strip()
    assert message in errors
    assert "\n" not in errors
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("model", ["s5", "haf_swin_base"])
def test_only_fusion_networks_can_be_exported_alone(checkpoint, tmp_path, capsys, model):
    with pytest.raises(SystemExit, match="2"):
        main(["export", "--checkpoint", str(checkpoint), "--out", str(tmp_path), "--model", model])
    assert f"invalid choice: '{model}' (choose from" in capsys.readouterr().err


def test_a_wrong_provenance_file_is_refused(checkpoint, tmp_path, capsys):
    path = tmp_path / "p.json"
    path.write_text('{"author": "me"}')
    arguments = ["export", "--checkpoint", str(checkpoint), "--rgb-size", "32x24"]
    assert main([*arguments, "--provenance", str(path), "--out", str(tmp_path / "a")]) == 1
    assert f"{path}, $: Additional properties are not allowed ('author'" in capsys.readouterr().err
    path.write_text('{"terms": 5}')
    assert main([*arguments, "--provenance", str(path), "--out", str(tmp_path / "a")]) == 1
    assert f"{path}, $.terms: 5 is not of type 'string'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checkpoint_sha256": "0" * 64}, "e.json is of other weights than "),
        ({"fusion_scale": 3}, "e.json was measured with fusion_scale 3, the composition has 1"),
        ({"quality": 5}, "e.json, $.quality: 5 is not of type 'array'; expected what mmfusion"),
        (None, "e.json is no readable JSON file: "),
    ],
)
def test_a_wrong_evaluation_is_refused(checkpoint, tmp_path, capsys, changes, message):
    provenance = tmp_path / "p.json"
    provenance.write_text('{"evaluation": "e.json"}')
    if changes is not None:
        write_evaluation(tmp_path / "e.json", checkpoint, **changes)
    arguments = ["export", "--checkpoint", str(checkpoint), "--rgb-size", "32x24"]
    arguments += ["--provenance", str(provenance), "--out", str(tmp_path / "a")]
    assert main(arguments) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
