"""Fusion is measured as a robot would publish it, whichever camera is there."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from compositions import flags
from safetensors.torch import save_file

import mmfusion
from mmfusion import cli
from mmfusion.drawing import draw_row
from mmfusion.evaluate_fusion import publish_luma
from mmfusion.graph.camera_graph import Branches, CameraGraph
from mmfusion.graph.cameras import CameraSpec
from mmfusion.graph.luma_fusion import LumaFusion
from mmfusion.manifest import evaluation_validator
from mmfusion.metrics import edge_preservation, fusion_metrics
from mmfusion.train.pairs import Pair, load_pairs

pytestmark = pytest.mark.torch
SIZE = (48, 64)
SETS = ["rgb+thermal", "rgb", "thermal"]


def blobs(seed):
    noise = np.random.default_rng(seed).random(SIZE).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    # The ends are reached by more than the tails that a graph clips: its display range is whole.
    return (255 * ((smooth - 0.45) / 0.1).clip(0, 1)).round().astype(np.uint8)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return mmfusion.create_model("s4fusion_tiny").eval()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "pairs"
    for side, name in enumerate(("ir", "vi")):
        (folder / name).mkdir(parents=True)
        for index in range(2):
            cv2.imwrite(str(folder / name / f"{index:03}.png"), blobs(2 * index + side))
    return folder


@pytest.fixture(scope="module")
def measured(network, data, tmp_path_factory):
    """Folder with figures, pictures of the worst and weights."""
    folder = tmp_path_factory.mktemp("measured")
    checkpoint = folder / "model.safetensors"
    save_file(network.state_dict(), checkpoint)
    command = ["evaluate", "--checkpoint", checkpoint, "--data", data, "--fusion-scale", 2]
    outputs = ["--out", folder / "evaluation.json", "--failures", folder / "worst"]
    assert cli.main([str(word) for word in [*command, *outputs]]) == 0
    return folder


@pytest.mark.parametrize("modalities", SETS)
@pytest.mark.parametrize("scale", [1, 2])
def test_what_is_measured_is_what_a_graph_publishes(network, modalities, scale):
    pair = Pair("any", infrared=blobs(0), visible=blobs(1))
    fusion = LumaFusion(network, scale).eval()
    spec = CameraSpec(SIZE, SIZE, SIZE, thermal_encoding="mono8")
    graph = CameraGraph(spec, Branches(fusion)).eval()
    inputs = graph.example_inputs() | {
        "rgb": torch.from_numpy(pair.visible)[..., None].repeat(1, 1, 3),
        "thermal": torch.from_numpy(pair.infrared)[..., None],
        "present": torch.from_numpy(flags(*modalities.split("+"))),
    }
    with torch.inference_mode():
        published = graph(**inputs)["fused"].numpy().astype(int)
    luma = publish_luma(fusion, pair, modalities).astype(int)
    assert np.abs(published - luma[..., None]).max() <= 1  # rounding of the conversion to RGB
    if modalities == "rgb":
        np.testing.assert_array_equal(luma, pair.visible)


def test_the_figures_are_those_of_every_set(measured, network, data):
    record = json.loads((measured / "evaluation.json").read_text())
    assert (record["model"], record["pairs"], record["fusion_scale"]) == ("s4fusion_tiny", 2, 2)
    fusion = LumaFusion(network, 2).eval()
    for name in SETS:
        frames = [
            fusion_metrics(publish_luma(fusion, pair, name), pair.infrared, pair.visible)
            for pair in load_pairs([data])
        ]
        for metric in ("VIF", "Q_ABF", "SF"):
            mean = np.mean([frame[metric] for frame in frames])
            assert record["means"][name][metric] == pytest.approx(mean, rel=1e-5)
    assert record["means"]["rgb"]["SCD"] is None  # nothing of thermal: not defined
    assert record["means"]["rgb"]["SF"] != record["means"]["thermal"]["SF"]


def test_quality_is_what_a_manifest_takes(measured):
    record = json.loads((measured / "evaluation.json").read_text())
    assert evaluation_validator().is_valid(record)
    where = "2 pairs of pairs, luma, fusion_scale 2"
    unread = f"{where}; depth is not read"
    assert [(entry["modalities"], entry["data"]) for entry in record["quality"]] == [
        (["rgb", "thermal"], where),
        (["rgb", "depth", "thermal"], unread),
        (["rgb"], where),
        (["rgb", "depth"], unread),
        (["thermal"], where),
        (["depth", "thermal"], unread),
    ]
    for entry, name in zip(record["quality"], np.repeat(SETS, 2), strict=True):
        assert list(entry["metrics"]) == ["VIF", "Q_ABF", "SF", "AG", "SSIM"]
        for metric, value in entry["metrics"].items():
            assert value == round(record["means"][name][metric], 3)


def test_the_worst_are_shown_beside_their_sources(measured, network, data):
    fusion = LumaFusion(network, 2).eval()
    ranked = []
    for pair in load_pairs([data]):
        fused = publish_luma(fusion, pair)
        kept = edge_preservation(fused, pair.infrared, pair.visible)
        panels = {"visible": pair.visible, "infrared": pair.infrared, "fused": fused}
        ranked.append((kept, draw_row(f"{pair.name}: Q_ABF {kept:.3f}", panels)))
    ranked.sort(key=lambda entry: entry[0])
    assert len(list((measured / "worst").iterdir())) == 2
    for rank, (_, expected) in enumerate(ranked, 1):
        picture = cv2.imread(str(measured / "worst" / f"worst_{rank}.png"))
        np.testing.assert_array_equal(picture[..., ::-1], expected)


def test_data_have_the_name_that_is_given(measured, data, tmp_path):
    command = ["evaluate", "--checkpoint", measured / "model.safetensors", "--data", data]
    words = [*command, "--data-name", "2 drawn pairs", "--out", tmp_path / "e.json"]
    assert cli.main([str(word) for word in words]) == 0
    record = json.loads((tmp_path / "e.json").read_text())
    assert record["quality"][0]["data"] == "2 drawn pairs, luma, fusion_scale 1"
