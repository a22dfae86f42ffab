"""An artifact opens if it is what its manifest says; otherwise the error names the fault."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifacts import CLASSES, NMS_IOU, QUALITY, add_reduced_graph, write_artifact

from mmfusion_ros.core.artifact import open_artifact
from mmfusion_ros.core.errors import ArtifactError
from mmfusion_ros.core.frames import Modality

RGB, DEPTH, THERMAL = Modality


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_artifact(tmp_path / "small", depth=(24, 32))


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(ArtifactError) as caught:
        open_artifact(folder)
    return str(caught.value)


def test_a_good_artifact_opens(folder):
    artifact = open_artifact(folder)
    assert artifact.name == "small"
    assert artifact.folder == folder
    assert artifact.graph_path == folder / "graph.onnx"
    assert artifact.digest == hashlib.sha256(artifact.graph_path.read_bytes()).hexdigest()
    assert list(artifact.inputs) == ["rgb", "depth", "thermal", "thermal_range", "present"]
    assert list(artifact.outputs) == ["fused", "thermal_range_next", "registered_thermal"]
    assert artifact.inputs["rgb"].shape == (48, 64, 3)
    assert artifact.inputs["rgb"].dtype == np.uint8
    assert artifact.encodings == {RGB: "rgb8", DEPTH: "16UC1", THERMAL: "mono16"}
    assert artifact.image_size(RGB) == artifact.image_size(THERMAL) == (48, 64)
    assert artifact.image_size(DEPTH) == (24, 32)
    assert artifact.rig_packing == artifact.classes == ()
    assert artifact.manifest["name"] == "small"
    assert open_artifact(str(folder)).folder == folder


def test_quality_is_looked_up_by_the_set_of_modalities(folder):
    artifact = open_artifact(folder)
    assert artifact.expected_quality(frozenset({THERMAL, RGB})) == QUALITY["rgb", "thermal"]
    assert artifact.expected_quality(frozenset(Modality)) == QUALITY["rgb", "depth", "thermal"]
    assert artifact.expected_quality(frozenset({RGB, DEPTH})) == {}
    assert artifact.expected_quality(frozenset()) == {}


def test_quality_of_several_networks_is_joined(folder):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    entry = {"modalities": ["thermal", "rgb"], "data": "made up", "metrics": {"S": 0.9}}
    manifest["quality"].append(entry)
    path.write_text(json.dumps(manifest))
    expected = QUALITY["rgb", "thermal"] | {"S": 0.9}
    assert open_artifact(folder).expected_quality(frozenset({THERMAL, RGB})) == expected


@pytest.mark.parametrize("name", ["manifest.json", "graph.onnx"])
def test_missing_files_are_named(folder, name):
    (folder / name).unlink()
    message = refusal(folder)
    assert f"{folder} is not an artifact: {name} is missing" in message
    assert "mmfusion export" in message
    (folder / name).mkdir()
    assert f"{folder / name} cannot be read (Is a directory)" in refusal(folder)


def test_a_missing_folder_and_a_file_are_no_artifacts(folder):
    for path in (folder / "nowhere", folder / "graph.onnx"):
        assert f"{path} is not an artifact: manifest.json is missing" in refusal(path)


@pytest.mark.parametrize("content", [b"", b"{", b"\x00\xff\xfe", b"\xffname", b'{"name": "\xff"}'])
def test_a_manifest_that_is_no_json_is_refused(folder, content):
    (folder / "manifest.json").write_bytes(content)
    assert f"{folder}/manifest.json is not valid JSON (" in refusal(folder)


@pytest.mark.parametrize("content", ["null", "[]", "3", '"text"'])
def test_a_manifest_that_is_no_object_is_refused(folder, content):
    (folder / "manifest.json").write_text(content)
    assert "manifest.json, $: " in refusal(folder)


TOP_LEVEL = [
    *("schema_version", "name", "graph", "inputs", "outputs", "encodings", "registration"),
    *("rig_packing", "classes", "models", "quality", "tolerances", "tools"),
]


@pytest.mark.parametrize("key", TOP_LEVEL)
def test_every_key_is_needed(folder, key):
    edit(folder, lambda manifest: manifest.pop(key))
    assert f"$: '{key}' is a required property" in refusal(folder)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda m: m.update(extra=1), "$: Additional properties are not allowed ('extra'"),
        (lambda m: m["graph"].update(md5="0"), "$.graph: Additional properties"),
        (lambda m: m["graph"].pop("sha256"), "$.graph: 'sha256' is a required"),
        (lambda m: m["graph"].update(sha256="AB"), "$.graph.sha256: 'AB' does not match"),
        (lambda m: m["graph"].update(file="../graph.onnx"), "$.graph.file: "),
        (lambda m: m["models"][0].pop("terms"), "$.models[0]: 'terms' is a required"),
        (lambda m: m["inputs"][1].update(scale=2), "$.inputs[1]: Additional properties"),
        (lambda m: m["inputs"][1].update(dtype="uint16"), "$.inputs[1].dtype: 'uint16' is not"),
        (lambda m: m["inputs"][0].update(shape=[0, 4, 3]), "$.inputs[0].shape[0]: 0 is less"),
        (lambda m: m["encodings"].update(depth="mono8"), "$.encodings.depth: 'mono8' is not"),
        (lambda m: m.update(schema_version="2"), "$.schema_version: 1 was expected"),
        (lambda m: m.update(schema_version=True), "$.schema_version: 1 was expected"),
        (lambda m: m["quality"][0]["modalities"].append("radar"), "$.quality[0].modalities[3]: "),
    ],
)
def test_faults_inside_are_named_with_their_path(folder, change, named):
    message = refusal(edit(folder, change))
    assert f"{folder}/manifest.json, {named}" in message
    assert "export the artifact again with a matching version" in message


@pytest.mark.parametrize(("version", "age"), [(2, "new"), (7.0, "new"), (0, "old")])
def test_another_version_is_told_before_its_keys(folder, version, age):
    def change(manifest):
        manifest.update(schema_version=version, anything=1)
        del manifest["models"]

    message = refusal(edit(folder, change))
    expected = f"manifest.json is too {age}: version {version:g}, this understands 1; update"
    assert expected in message


def without(tensors: list[dict[str, Any]], name: str) -> None:
    tensors[:] = [entry for entry in tensors if entry["name"] != name]


@pytest.mark.parametrize(
    ("key", "name"),
    [("inputs", name) for name in ("rgb", "thermal_range", "present")]
    + [("outputs", name) for name in ("fused", "thermal_range_next")],
)
def test_tensors_that_every_graph_needs(folder, key, name):
    edit(folder, lambda manifest: without(manifest[key], name))
    assert f"$.{key}: no {name!r}" in refusal(folder)


@pytest.mark.parametrize(
    ("key", "index", "wrong", "expected"),
    [
        ("inputs", 0, {"shape": [48, 64, 4]}, "rgb: uint8 [48, 64, 4] is not what it means; "),
        ("inputs", 0, {"shape": []}, "expected uint8 [any, any, 3]"),
        ("inputs", 0, {"dtype": "float32"}, "rgb: float32"),
        ("inputs", 1, {"shape": [24, 32]}, "depth: "),
        ("inputs", 2, {"shape": [48, 64, 1]}, "thermal: "),
        ("inputs", 3, {"shape": [3]}, "thermal_range: "),
        ("inputs", 4, {"shape": [2]}, "present: "),
        ("outputs", 0, {"dtype": "float32"}, "fused: "),
        ("outputs", 0, {"shape": [24, 32, 3]}, "expected uint8 [48, 64, 3]"),
        ("outputs", 1, {"shape": [2, 1]}, "thermal_range_next: "),
        ("outputs", 2, {"shape": [48, 64, 1]}, "registered_thermal: "),
    ],
)
def test_tensors_of_the_wrong_kind_are_named(folder, key, index, wrong, expected):
    edit(folder, lambda manifest: manifest[key][index].update(wrong))
    message = refusal(folder)
    assert f"$.{key}, " in message
    assert expected in message


def test_an_input_nobody_fills_is_refused(folder):
    entry = {"name": "radar", "dtype": "uint8", "shape": [1], "meaning": "echoes"}
    edit(folder, lambda manifest: manifest["inputs"].append(entry))
    assert "$.inputs: 'radar' is not known to this version" in refusal(folder)
    # Without a packing nobody knows what to put into it.
    edit(folder, lambda manifest: manifest["inputs"][-1].update(name="rig", dtype="float32"))
    assert "$.inputs: 'rig' is not known" in refusal(folder)


def test_the_rig_input_is_as_long_as_its_packing(folder):
    def pack(manifest):
        manifest["rig_packing"] = ["thermal_from_rgb_h00", "thermal_from_rgb_h01"]
        entry = {"name": "rig", "dtype": "float32", "shape": [2], "meaning": "geometry"}
        manifest["inputs"].append(entry)

    assert open_artifact(edit(folder, pack)).rig_packing[1] == "thermal_from_rgb_h01"
    edit(folder, lambda manifest: manifest["rig_packing"].append("thermal_from_rgb_h02"))
    assert "rig: float32 [2] is not what it means; expected float32 [3]" in refusal(folder)


def test_depth_in_metres_and_thermal_in_bytes(folder):
    def change(manifest):
        manifest["encodings"].update(depth="32FC1", thermal="mono8")
        manifest["inputs"][1].update(dtype="float32", shape=[24, 32])
        manifest["inputs"][2].update(shape=[48, 64, 1])

    artifact = open_artifact(edit(folder, change))
    assert artifact.encodings[DEPTH] == "32FC1"
    assert artifact.image_size(DEPTH) == (24, 32)


def test_outputs_nobody_uses_and_absent_cameras_do_no_harm(folder):
    entry = {"name": "heat", "dtype": "float32", "shape": [9], "meaning": "of places"}

    def change(manifest):
        manifest["outputs"].append(entry)
        without(manifest["inputs"], "depth")
        without(manifest["outputs"], "registered_thermal")

    artifact = open_artifact(edit(folder, change))
    assert "heat" in artifact.outputs
    assert "depth" not in artifact.inputs


@pytest.fixture
def finder(tmp_path) -> Path:
    return write_artifact(tmp_path / "finder", saliency=True, detections=True)


def of(tensors: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (found,) = [entry for entry in tensors if entry["name"] == name]
    return found


def test_an_artifact_that_finds_things(finder, folder):
    artifact = open_artifact(finder)
    assert artifact.classes == CLASSES
    assert artifact.nms_iou == NMS_IOU
    assert {"saliency", "boxes", "scores", "classes", "box_depth"} <= artifact.outputs.keys()
    assert open_artifact(folder).nms_iou is None
    bare = edit(finder, lambda manifest: without(manifest["outputs"], "box_depth"))
    assert "box_depth" not in open_artifact(bare).outputs


@pytest.mark.parametrize("missing", ["boxes", "scores", "classes"])
@pytest.mark.parametrize("depth", [True, False])
def test_what_makes_a_candidate_comes_together(finder, missing, depth):
    def change(manifest):
        without(manifest["outputs"], missing)
        if missing == "boxes":
            manifest.pop("detection")
        if not depth:
            without(manifest["outputs"], "box_depth")

    assert f"$.outputs: no {missing!r}" in refusal(edit(finder, change))


def test_depths_of_no_boxes(finder):
    def change(manifest):
        manifest.pop("detection")
        for name in ("boxes", "scores", "classes"):
            without(manifest["outputs"], name)

    assert "$.outputs: no 'boxes'" in refusal(edit(finder, change))


@pytest.mark.parametrize(
    ("name", "wrong", "expected"),
    [
        ("saliency", {"shape": [48, 63]}, "expected uint8 [48, 64]"),
        ("saliency", {"dtype": "float32"}, "saliency: float32"),
        ("boxes", {"shape": [5, 5]}, "expected float32 [any, 4]"),
        ("boxes", {"shape": []}, "boxes: float32 [] is not"),
        ("boxes", {"shape": [6, 4]}, "scores: float32 [5] is not what it means; expected"),
        ("scores", {"shape": [5, 1]}, "expected float32 [5]"),
        ("classes", {"dtype": "float32"}, "expected int32 [5]"),
        ("box_depth", {"shape": [4]}, "box_depth: float32 [4]"),
    ],
)
def test_outputs_of_the_wrong_kind(finder, name, wrong, expected):
    edit(finder, lambda manifest: of(manifest["outputs"], name).update(wrong))
    message = refusal(finder)
    assert "$.outputs, " in message
    assert expected in message


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda m: m.pop("detection"), "$: 'detection' is a required property"),
        (lambda m: m["detection"].pop("nms_iou"), "$.detection: 'nms_iou' is a required"),
        (lambda m: m["detection"].update(nms_iou=0), "$.detection.nms_iou: 0 is less"),
        (lambda m: m["detection"].update(nms_iou=1.5), "$.detection.nms_iou: 1.5 is greater"),
        (lambda m: m["detection"].update(limit=9), "$.detection: Additional properties"),
        (lambda m: m.update(classes=[]), "$.classes: [] "),
        (lambda m: m.update(classes=["a", "a"]), "$.classes: ['a', 'a'] has non-unique"),
        (lambda m: m.update(classes=["a", ""]), "$.classes[1]: '' "),
        (lambda m: m["models"][0].update(settings={"a": "b"}), "$.models[0].settings.a: 'b' "),
        (lambda m: m["models"][0].pop("settings"), "$.models[0]: 'settings' is a required"),
    ],
)
def test_what_the_manifest_says_of_detections_and_networks(finder, change, named):
    assert f"{finder}/manifest.json, {named}" in refusal(edit(finder, change))


def test_nothing_is_said_of_detections_where_there_are_none(folder):
    edit(folder, lambda manifest: manifest.update(detection={"nms_iou": 0.5}))
    assert "$.detection: {'nms_iou': 0.5} should not be valid" in refusal(folder)


@pytest.mark.parametrize(
    ("tolerance", "fault"),
    [
        ({"psnr_db": 40}, None),
        ({"mean_absolute_error": 0}, None),
        ({"matched_share": 0.95}, None),
        ({}, "should be non-empty"),
        ({"psnr_db": 40, "matched_share": 0.9}, "has too many properties"),
        ({"ssim": 0.9}, "Additional properties"),
        ({"matched_share": 1.1}, "1.1 is greater"),
        ({"mean_absolute_error": 256}, "256 is greater"),
    ],
)
def test_tolerances_have_one_measure_each(folder, tolerance, fault):
    edit(folder, lambda manifest: manifest.update(tolerances={"fused": tolerance}))
    if fault is None:
        assert open_artifact(folder).manifest["tolerances"] == {"fused": tolerance}
    else:
        assert fault in refusal(folder)


def test_whole_numbers_may_be_written_as_floats(folder):
    edit(folder, lambda manifest: manifest["inputs"][0].update(shape=[48.0, 64.0, 3]))
    artifact = open_artifact(folder)
    assert np.zeros(artifact.inputs["rgb"].shape).shape == (48, 64, 3)


def test_another_graph_is_refused(folder):
    graph = folder / "graph.onnx"
    graph.write_bytes(graph.read_bytes() + b"\0")
    message = refusal(folder)
    assert f"{graph} is not the graph its manifest describes (SHA-256 " in message
    assert hashlib.sha256(graph.read_bytes()).hexdigest()[:12] in message


def test_both_houses_read_one_schema(repo_root):
    source = repo_root / "models" / "mmfusion" / "manifest.schema.json"
    robot = resources.files("mmfusion_ros.core").joinpath("manifest.schema.json")
    assert robot.read_bytes() == source.read_bytes()
    link = repo_root / "ros2_ws/src/mmfusion_ros/mmfusion_ros/core/manifest.schema.json"
    assert link.resolve() == source.resolve()


def test_reduced_graphs_are_found_by_precision(folder):
    add_reduced_graph(folder, "bf16", off_by=1)
    artifact = open_artifact(folder)
    assert artifact.graph_for("fp32") == folder / "graph.onnx"
    assert artifact.graph_for("bf16") == folder / "graph.bf16.onnx"
    assert artifact.reduced_digests.keys() == {"bf16"}
    with pytest.raises(
        ArtifactError, match=r"no int8 graph, only fp32, bf16; .*int8 --samples FRAMES"
    ):
        artifact.graph_for("int8")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_graph_that_is_exchanged_later_is_refused_when_it_is_used(folder, precision):
    add_reduced_graph(folder, "bf16", off_by=1)
    artifact = open_artifact(folder)
    path = artifact.graph_for(precision)
    assert artifact.read_graph(precision) == path.read_bytes()
    path.write_bytes(b"another")
    for use in (artifact.graph_for, artifact.read_graph):
        with pytest.raises(ArtifactError, match=r"is not the graph its manifest describes"):
            use(precision)
    path.unlink()
    with pytest.raises(ArtifactError, match=r"cannot be read \(No such file"):
        artifact.read_graph(precision)


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ({"fp8": {}}, "'fp8' was unexpected"),
        ({"int8": {"file": "graph.int8.onnx", "tool": "t"}}, "'sha256' is a required property"),
        (
            {"int8": {"file": "graph.fp16.onnx", "tool": "t", "sha256": "0" * 64}},
            "'graph.int8.onnx' was expected",
        ),
        (
            {"int8": {"file": "graph.int8.onnx", "tool": "t", "sha256": "0" * 64, "x": 1}},
            "'x' was unexpected",
        ),
    ],
)
def test_what_is_said_of_reduced_graphs_is_checked(folder, entry, fault):
    edit(folder, lambda manifest: manifest.update(reduced_graphs=entry))
    assert fault in refusal(folder)
