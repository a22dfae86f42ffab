"""Training a saliency network: data, loss, and a loop that learns."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from compositions import spread
from interruption import interrupted_after
from safetensors.torch import load_file, save_file
from tiny_data import write_scenes

import mmfusion
from mmfusion import cli
from mmfusion.errors import DataError
from mmfusion.manifest import evaluation_validator
from mmfusion.train.recipes import load_recipe
from mmfusion.train.run import recipe_of
from mmfusion.train.saliency import SaliencyTask
from mmfusion.train.saliency_losses import saliency_loss
from mmfusion.train.scenes import load_scenes

pytestmark = pytest.mark.torch
MODEL = "haf_mobilenetv3_small"
STATISTICS = "loop.norm_batches=0"  # the running ones, which take no time


@pytest.fixture
def scenes(tmp_path):
    return write_scenes(tmp_path / "scenes")


def test_weights_of_an_earlier_training_are_kept(scenes, tmp_path, capsys):
    (tmp_path / "model.safetensors").write_bytes(b"hours of work")
    assert cli.main(["train", MODEL, "--data", str(scenes), "--out", str(tmp_path)]) == 1
    assert "model.safetensors exists already; pass another --out" in capsys.readouterr().err
    assert (tmp_path / "model.safetensors").read_bytes() == b"hours of work"


def test_the_loss_is_the_published_one():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 1, 5, 6))
    mask = (rng.random((2, 1, 5, 6)) < 0.4).astype(float)
    p = 1 / (1 + np.exp(-logits))
    bce = -(mask * np.log(p) + (1 - mask) * np.log(1 - p)).mean()
    shared, both = (p * mask).sum((1, 2, 3)), (p + mask).sum((1, 2, 3))
    expected = bce + (1 - (shared + 1) / (both - shared + 1)).mean()
    tensors = [torch.from_numpy(logits)] * 4
    assert saliency_loss(tensors, torch.from_numpy(mask)).item() == pytest.approx(4 * expected)


def test_training_learns_and_its_weights_fit_the_model(scenes, tmp_path):
    out = tmp_path / "out"
    arguments = ["train", MODEL, "--data", str(scenes), "--out", str(out)]
    changes = ["--set", "loop.steps=3", "loop.batch=2", "loop.seed=4", STATISTICS]
    assert cli.main([*arguments, *changes]) == 0
    assert json.loads((out / "record.json").read_text())["samples"] == 3
    trained = load_file(out / "model.safetensors")
    torch.manual_seed(4)
    model = mmfusion.create_model(MODEL)
    fresh = {key: value.clone() for key, value in model.state_dict().items()}
    model.load_state_dict(trained)
    assert any(not torch.equal(fresh[key], trained[key]) for key in fresh)


def test_batch_norms_may_take_their_statistics_at_the_end(scenes, tmp_path):
    def train(out, batches):
        changes = ["loop.steps=2", "loop.batch=2", "loop.ema=0.5", f"loop.norm_batches={batches}"]
        arguments = ["train", MODEL, "--data", str(scenes), "--out", str(out), "--set", *changes]
        assert cli.main(arguments) == 0
        return load_file(out / "model.safetensors")

    running, retaken = train(tmp_path / "running", 0), train(tmp_path / "retaken", 3)
    changed = {name for name in running if not torch.equal(running[name], retaken[name])}
    assert {name.rpartition(".")[2] for name in changed} == {
        "running_mean",
        "running_var",
        "num_batches_tracked",
    }
    counts = {n: int(v) for n, v in retaken.items() if n.endswith("num_batches_tracked")}
    assert {n.split(".")[0] for n, v in counts.items() if v == 6} == {"neck"}  # both streams
    assert set(counts.values()) == {3, 6}


def test_an_interrupted_training_goes_on_exactly(scenes, tmp_path):
    changes = ["loop.steps=3", "loop.batch=2", "loop.ema=0.5", "loop.norm_batches=2"]
    changes += ["loop.save_every=2"]

    def train(out, *more):
        arguments = ["train", MODEL, "--data", str(scenes), "--out", str(out), "--set", *changes]
        status = cli.main([*arguments, *more])
        return status, (out / "training.jsonl").read_text()

    whole = train(tmp_path / "whole")
    with interrupted_after(2):
        assert train(tmp_path / "parts")[0] == 130
    assert whole[0] == 0
    assert train(tmp_path / "parts", "--resume") == whole
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_stream_that_is_never_shown_anything_needs_them(scenes, tmp_path, capsys):
    arguments = ["train", MODEL, "--data", str(scenes), "--out", str(tmp_path / "o")]
    assert cli.main([*arguments, "--set", "degradation.drop_depth=1", STATISTICS]) == 1
    assert "drop_depth is 1, so that" in (told := capsys.readouterr().err)
    assert "expected loop.norm_batches, such as 24" in told


def test_relative_depth_is_left_out(scenes):
    near_dark = np.full((60, 80), 90, np.uint8)
    cv2.imwrite(str(scenes / "depth" / "1.png"), near_dark)
    assert [scene.name for scene in load_scenes([scenes])] == ["0", "2"]
    for index in (0, 2):
        cv2.imwrite(str(scenes / "depth" / f"{index}.png"), near_dark)
    with pytest.raises(DataError, match="no sample with 16-bit depth in"):
        load_scenes([scenes])


@pytest.mark.parametrize("augmentation", ["window", "haf"])
@pytest.mark.parametrize("level", [0, 100, 255])
def test_a_network_is_shown_the_closeness_that_relative_depth_is(scenes, level, augmentation):
    for path in (scenes / "depth").iterdir():
        cv2.imwrite(str(path), np.full((60, 80), level, np.uint8))
    keys = ["relative_depth=near_dark", "near_m=0.5", "far_m=6", "degradation={}"]
    recipe = recipe_of(load_recipe(MODEL, [*keys, f"augmentation={augmentation}"]))
    task = SaliencyTask(recipe, [scenes], [])
    rng = np.random.default_rng(0)
    for item in range(3):
        _, depth, _ = task.sample(item, 0, rng)
        assert (255 * depth - (255 - level)).abs().max() < 0.5


def test_the_published_recipe_takes_the_published_sets():
    assert recipe_of(load_recipe("haf_swin_base")).relative_depth == "near_bright"
    assert recipe_of(load_recipe(MODEL)).relative_depth == "left_out"
    told = "relative_depth: input should be 'left_out', 'near_bright' or 'near_dark', got 'bright'"
    with pytest.raises(DataError, match=told):
        recipe_of(load_recipe(MODEL, ["relative_depth=bright"]))


def test_wrong_data_are_named(scenes, tmp_path):
    (scenes / "gt" / "1.png").unlink()
    with pytest.raises(DataError, match="1 samples lack colour, depth or mask: 1"):
        load_scenes([scenes])
    cv2.imwrite(str(scenes / "gt" / "1.png"), np.zeros((60, 81), np.uint8))
    with pytest.raises(DataError, match=r"sample 1 in .*mask \(60, 81\); a registered sample"):
        load_scenes([scenes])
    (scenes / "gt" / "1.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"1.png is not a readable image"):
        load_scenes([scenes])
    with pytest.raises(DataError, match="has no colour images: expected a subfolder named rgb"):
        load_scenes([tmp_path])


def test_keys_of_other_networks_are_refused(scenes, tmp_path, capsys):
    arguments = ["train", MODEL, "--data", str(scenes), "--out", str(tmp_path / "o")]
    assert cli.main([*arguments, "--set", "crop=40"]) == 1
    assert f"recipe of {MODEL}: crop: unknown key" in capsys.readouterr().err


def test_validation_tells_how_maps_compare(scenes, tmp_path):
    pytest.importorskip("py_sod_metrics", reason="mmfusion[eval] is not installed")
    out = tmp_path / "out"
    arguments = ["train", MODEL, "--data", str(scenes), "--validation", str(scenes)]
    changes = ["--set", "loop.steps=2", "loop.batch=2", "loop.validate_every=1", STATISTICS]
    assert cli.main([*arguments, "--out", str(out), *changes]) == 0
    rows = [json.loads(line) for line in (out / "training.jsonl").read_text().splitlines()]
    assert [row["validation"].keys() for row in rows] == [{"S", "MAE"}] * 2
    assert (out / "best.safetensors").is_file()


def test_a_network_is_measured_with_depth_and_without(scenes, tmp_path, capsys):
    pytest.importorskip("py_sod_metrics", reason="mmfusion[eval] is not installed")
    checkpoint = tmp_path / "model.safetensors"
    torch.manual_seed(0)
    save_file(spread(mmfusion.create_model(MODEL)).state_dict(), checkpoint)
    out, worst = tmp_path / "figures.json", tmp_path / "worst"
    what = ["evaluate", "--model", MODEL, "--checkpoint", str(checkpoint)]
    what += ["--failures", str(worst)]
    assert cli.main([*what, "--data", str(scenes), "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    assert record["scenes"] == 3
    with_depth, without = record["figures"]["rgb+depth"], record["figures"]["rgb"]
    assert with_depth.keys() == without.keys()
    assert with_depth != without
    assert all(0 <= value <= 1 for value in with_depth.values())
    assert f"{with_depth['MAE']:.3f}" in capsys.readouterr().out
    assert evaluation_validator().is_valid(record)
    stated = {tuple(entry["modalities"]): entry for entry in record["quality"]}
    for modalities, figures in {("rgb", "depth"): with_depth, ("rgb",): without}.items():
        alone, with_thermal = stated.pop(modalities), stated.pop((*modalities, "thermal"))
        assert alone["data"] == "3 scenes of scenes"
        assert with_thermal["data"] == "3 scenes of scenes; thermal is not read"
        names = ("S", "F_max", "E_max", "F_weighted", "MAE")
        expected = {name: round(figures[name], 3) for name in names}
        assert alone["metrics"] == with_thermal["metrics"] == expected
    assert not stated
    pictures = [cv2.imread(str(worst / f"worst_{rank}.png")) for rank in (1, 2, 3)]
    truths = {picture[54:, 6 + 2 * 326 : 326 * 3].tobytes() for picture in pictures}
    masks = [cv2.imread(str(path)) for path in (scenes / "gt").iterdir()]
    assert truths == {mask.repeat(4, axis=0).repeat(4, axis=1).tobytes() for mask in masks}
