"""Compositions: strict, with one clear line for what is wrong."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
import yaml

from mmfusion.composition import read_composition, read_provenance
from mmfusion.errors import ExportError
from mmfusion.graph.depth_range import DepthRange

WHOLE = {
    "cameras": {"rgb_size": "640x480", "thermal_size": "160x120", "registration": "homography"},
    "fusion": {"model": "s4fusion_tiny", "checkpoint": "f.safetensors", "scale": 4},
    "saliency": {
        "model": "haf_swin_base",
        "published_checkpoint": "haf.pth",
        "input_size": "320x256",
        "depth_range_m": [0.5, 6],
    },
    "detection": {
        "model": "efficientmfd_r50",
        "checkpoint": "d.safetensors",
        "provenance": "d.json",
        "noise_seed": 3.0,
    },
    "extra_outputs": ["registered_thermal"],
    "weight_storage": "float16",
}


def write(folder: Path, content: object) -> Path:
    path = folder / "composition.yaml"
    path.write_text(yaml.safe_dump(content))
    (folder / "d.json").write_text(json.dumps({"terms": "mine"}))
    return path


def test_everything_is_read(tmp_path):
    composition = read_composition(write(tmp_path, WHOLE))
    cameras = composition.cameras
    assert (cameras.rgb_size, cameras.depth_size) == ((480, 640), (480, 640))
    assert (cameras.thermal_size, cameras.registration) == ((120, 160), "homography")
    assert cameras.registered_thermal
    fusion, saliency, detection = composition.fusion, composition.saliency, composition.detection
    assert (fusion.scale, fusion.weights.checkpoint) == (4, tmp_path / "f.safetensors")
    assert not fusion.weights.published
    assert saliency.weights.published
    assert saliency.input_size == (256, 320)
    assert saliency.depth_range == DepthRange(0.5, 6)
    assert isinstance(saliency.depth_range.far_m, float)
    assert (detection.noise_seed, detection.steps, detection.scale) == (3, None, 1)
    assert isinstance(detection.noise_seed, int)
    assert detection.weights.provenance.terms == "mine"
    assert composition.weight_storage == "float16"


def test_weights_are_stored_in_float32_unless_stated(tmp_path):
    content = {key: value for key, value in WHOLE.items() if key != "weight_storage"}
    composition = read_composition(write(tmp_path, content))
    assert composition.weight_storage == "float32"
    with pytest.raises(ExportError, match="weight_storage is 'half'; expected one of: float32, fl"):
        dataclasses.replace(composition, weight_storage="half")


@pytest.mark.torch
def test_depth_is_as_in_the_training_unless_stated(tmp_path):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    saliency = {"model": "haf_mobilenetv3_small", "checkpoint": "run/best.safetensors"}
    path = write(tmp_path, {**WHOLE, "saliency": saliency})
    assert read_composition(path).saliency.depth_range == DepthRange()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("near_m: 0.5\nfar_m: 15.0\n")
    assert read_composition(path).saliency.depth_range == DepthRange(0.5, 15)
    write(tmp_path, {**WHOLE, "saliency": {**saliency, "depth_range_m": [0.3, 10]}})
    assert read_composition(path).saliency.depth_range == DepthRange(0.3, 10)


def test_a_provenance_file_names_one_evaluation_or_many(tmp_path):
    path = tmp_path / "p.json"
    for name in ("a", "b"):
        entry = {"modalities": ["rgb"], "data": name, "metrics": {"S": 0.5}}
        record = {"checkpoint_sha256": "0" * 64, "quality": [entry], "figures": {}}
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    for named, data in (("a.json", ["a"]), (["b.json", "a.json"], ["b", "a"]), ([], [])):
        path.write_text(json.dumps({"terms": "mine", "evaluation": named}))
        provenance = read_provenance(path)
        assert provenance.terms == "mine"
        assert [e.quality[0]["data"] for e in provenance.evaluations] == data
        assert [e.path.stem for e in provenance.evaluations] == data


@pytest.mark.parametrize("name", ["rgbdt_tiny", "efficientmfd_lite0", "rgbdt_full"])
def test_shipped_weights_state_what_was_measured_of_them(repo_root, name):
    composition = read_composition(repo_root / "compositions" / f"{name}_640x480.yaml")
    parts = [composition.fusion, composition.saliency, composition.detection]
    stated = []
    for part in filter(None, parts):
        (evaluation,) = part.weights.provenance.evaluations
        digest = hashlib.sha256(part.weights.checkpoint.read_bytes()).hexdigest()
        assert evaluation.checkpoint_sha256 == digest
        stated += evaluation.quality
    assert stated
    artifact = repo_root / "artifacts" / f"{name}_640x480" / "manifest.json"
    assert json.loads(artifact.read_text())["quality"] == stated


def test_the_detection_network_may_fuse(tmp_path):
    content = {**WHOLE, "fusion": "detection"}
    assert read_composition(write(tmp_path, content)).fusion is None


def without(section, key):
    return {**WHOLE, section: {k: v for k, v in WHOLE[section].items() if k != key}}


def with_(section, **values):
    return {**WHOLE, section: {**WHOLE[section], **values}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({**WHOLE, "colour": 1}, r"\$: .*'colour' was unexpected"),
        (with_("saliency", size="1x1"), r"\$\.saliency: .*'size' was unexpected"),
        ({k: v for k, v in WHOLE.items() if k != "fusion"}, "'fusion' is a required property"),
        (
            with_("cameras", rgb_size=[640, 480]),
            r"\$\.cameras\.rgb_size: .*; expected WIDTHxHEIGHT, such as 640x480",
        ),
        (with_("cameras", rgb_size="0x480"), r"\$\.cameras\.rgb_size"),
        (without("saliency", "published_checkpoint"), "saliency has neither of checkpoint and"),
        (with_("detection", published_checkpoint="x"), "detection has both of checkpoint and"),
        (with_("saliency", depth_range_m=[6, 0.5]), "depth range is 6 to 0.5 m; expected 0 < near"),
        (with_("saliency", model="s4fusion"), "'s4fusion' is no saliency network; expected one of"),
        (with_("fusion", model="efficientmfd_r50"), "'efficientmfd_r50' is no fusion network"),
        ({k: WHOLE[k] for k in ("cameras",)} | {"fusion": "detection"}, "there is none; add one"),
        (with_("detection", provenance="gone.json"), "gone.json is no readable JSON file"),
        (with_("detection", scale=1000), "scale is 1000; expected 1 to 480"),
        (with_("detection", steps=1.5), r"\$\.detection\.steps: 1.5 is not of type 'integer'"),
        ({**WHOLE, "fusion": "saliency"}, r"\$\.fusion"),
        (
            {**WHOLE, "weight_storage": "half"},
            r"\$\.weight_storage: 'half' is not one of \['float32', 'float16'\]",
        ),
        (["cameras"], r"\$: .* is not of type 'object'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, content, message):
    path = write(tmp_path, content)
    with pytest.raises(ExportError, match=message) as raised:
        read_composition(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(ExportError, match=r"no readable composition at .*gone.yaml"):
        read_composition(tmp_path / "gone.yaml")
    path = tmp_path / "bad.yaml"
    path.write_text("cameras: [")
    with pytest.raises(ExportError, match=r"bad.yaml is not valid YAML"):
        read_composition(path)
