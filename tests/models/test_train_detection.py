"""Training a fusing detector: data, and a loop whose weights load, in one process and in two."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("timm", reason="timm is not installed")

import timm
from interruption import interrupted_after
from safetensors.torch import load_file, save_file
from tiny_data import write_recording
from two_processes import in_two_processes

import mmfusion
from mmfusion import cli
from mmfusion.efficientmfd.config import M3FD_CLASSES
from mmfusion.errors import DataError
from mmfusion.manifest import evaluation_validator
from mmfusion.train import run
from mmfusion.train.boxed_pairs import load_boxed_pairs
from mmfusion.train.pairs import to_grey8
from mmfusion.train.processes import Processes
from mmfusion.train.recipes import load_recipe
from mmfusion.train.state import load_state

pytestmark = pytest.mark.torch


@pytest.fixture
def recording(tmp_path):
    return write_recording(tmp_path / "recording")


def rewrite(folder, change):
    content = json.loads((folder / "boxes.json").read_text())
    change(content)
    (folder / "boxes.json").write_text(json.dumps(content))


def test_recordings_are_read(recording):
    rewrite(recording, lambda content: content["images"][2].update(labelled_classes=["People"]))
    pairs = load_boxed_pairs([recording], M3FD_CLASSES)
    assert [pair.name for pair in pairs] == ["0", "1", "2"]
    first = pairs[0]
    assert first.boxes.tolist() == [[20, 30, 44, 80]]
    assert first.labels.tolist() == [0]
    assert np.flatnonzero(first.labelled).tolist() == [0, 1]
    assert np.flatnonzero(pairs[2].labelled).tolist() == [0]
    assert first.visible.shape == (96, 128, 3)
    assert first.infrared.shape == (96, 128)
    assert first.visible[50, 30, 0] < 40 < 180 < first.visible[50, 30, 2]  # RGB
    assert (first.infrared[50, 30], first.infrared[5, 5]) == (255, 0)


def test_lists_beside_the_folders_are_read(recording, tmp_path):
    (tmp_path / "annotations").mkdir()
    (recording / "boxes.json").rename(tmp_path / "annotations" / "instances_recording.json")
    assert len(load_boxed_pairs([recording], M3FD_CLASSES)) == 3
    (recording / "annotations").mkdir()
    beside = tmp_path / "annotations" / "instances_recording.json"
    beside.rename(recording / "annotations" / "instances_all.json")
    assert len(load_boxed_pairs([recording], M3FD_CLASSES)) == 3


def test_noise_does_not_fill_the_thermal_range():
    counts = np.full((40, 50), 29000, np.uint16)
    counts[:, 25:] += 5
    assert np.ptp(to_grey8(counts)) == pytest.approx(255 * 5 / 50, abs=1)
    wide = np.linspace(20000, 30000, 2000).astype(np.uint16).reshape(40, 50)
    assert (to_grey8(wide) == 0).mean() == pytest.approx(0.005, abs=0.004)


def test_wrong_data_are_named(recording, tmp_path):
    with pytest.raises(DataError, match=r"has no boxes: expected boxes\.json or"):
        load_boxed_pairs([tmp_path], M3FD_CLASSES)
    for side in ("rgb/1.jpg", "thermal/1.png"):
        (recording / side).rename(tmp_path / side.replace("/", "_"))
    with pytest.raises(DataError, match=r"1 of its images are not in .*recording: 1; add them"):
        load_boxed_pairs([recording], M3FD_CLASSES)
    (tmp_path / "rgb_1.jpg").rename(recording / "rgb" / "1.jpg")
    with pytest.raises(DataError, match="1 images have no partner in the other subfolder: 1"):
        load_boxed_pairs([recording], M3FD_CLASSES)
    (recording / "thermal" / "1.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"1.png is not a readable image"):
        load_boxed_pairs([recording], M3FD_CLASSES)


def test_wrong_lists_are_named(recording):
    rewrite(recording, lambda content: content["annotations"][0].update(category_id=5))
    with pytest.raises(DataError, match="a box of image 0, category 5; expected ids that its"):
        load_boxed_pairs([recording], M3FD_CLASSES)
    rewrite(recording, lambda content: content["annotations"][0].update(bbox=[1, 2]))
    with pytest.raises(DataError, match=r"boxes.json, \$.annotations\[0\].bbox: .*expected a COCO"):
        load_boxed_pairs([recording], M3FD_CLASSES)
    (recording / "boxes.json").write_text("{")
    with pytest.raises(DataError, match=r"boxes.json is not readable JSON"):
        load_boxed_pairs([recording], M3FD_CLASSES)
    (recording / "boxes.json").write_text('{"images": [], "annotations": [], "categories": []}')
    with pytest.raises(DataError, match="no pair with boxes in"):
        load_boxed_pairs([recording], M3FD_CLASSES)


@pytest.mark.parametrize("missing", ["thermal", "rgb"])
def test_a_missing_camera_is_the_other_one(recording, missing):
    changes = [f"degradation={{drop_{missing}: 1}}", "size=[64, 96]"]
    recipe = run.recipe_of(load_recipe("efficientmfd_tiny", changes))
    task = run.DetectionTask(recipe, [recording], [])
    sample, _ = task.sample(0, 0, np.random.default_rng(0))
    red, green, blue = sample.visible
    torch.testing.assert_close(sample.infrared[0], 0.299 * red + 0.587 * green + 0.114 * blue)
    assert torch.equal(red, blue) is (missing == "rgb")


SMALL = ["loop.steps=2", "loop.batch=2", "size=[64, 96]"]


def train(recording, out, *changes, resume=False):
    content = load_recipe("efficientmfd_tiny", [*SMALL, *changes])
    run.train(content, run.Places([recording], [], out), resume=resume)
    return [json.loads(line) for line in (out / "training.jsonl").read_text().splitlines()]


def test_an_interrupted_training_goes_on_exactly(recording, tmp_path):
    changes = ["loop.steps=3", "loop.ema=0.5", "loop.save_every=2", "align_every=1"]
    whole = train(recording, tmp_path / "whole", *changes)
    with interrupted_after(2), pytest.raises(KeyboardInterrupt):
        train(recording, tmp_path / "parts", *changes)
    assert train(recording, tmp_path / "parts", *changes, resume=True) == whole
    assert all("alignment" in row for row in whole)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_training_writes_weights_that_fit_the_model(recording, tmp_path):
    train(recording, tmp_path / "out", "loop.seed=4")
    recipe = load_recipe(str(tmp_path / "out" / "recipe.yaml"))
    assert (recipe["model"], recipe["loop"]["steps"]) == ("efficientmfd_tiny", 2)
    assert json.loads((tmp_path / "out" / "record.json").read_text())["samples"] == 3
    trained = load_file(tmp_path / "out" / "model.safetensors")
    torch.manual_seed(4)
    model = mmfusion.create_model("efficientmfd_tiny")
    fresh = {key: value.clone() for key, value in model.state_dict().items()}
    model.load_state_dict(trained)
    for part in ("features.", "fusion.", "head."):
        assert any(k.startswith(part) and not torch.equal(v, trained[k]) for k, v in fresh.items())


def test_training_starts_from_pretrained_weights_and_keeps_their_origin(recording, tmp_path):
    network = timm.create_model("mobilenetv3_small_100")
    file = tmp_path / "pretrained.safetensors"
    save_file(network.state_dict(), file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    out = tmp_path / "out"
    still = ("loop.steps=2", "optimiser.learning_rate=1e-30", f"backbone_weights={file}")
    train(recording, out, *still, resume=True)  # there is nothing yet to go on from
    found = load_file(out / "model.safetensors")
    assert torch.equal(found["features.body.conv_stem.weight"], network.conv_stem.weight)
    assert json.loads((out / "record.json").read_text())["backbone_sha256"] == digest
    file.unlink()  # the state has all that it takes
    (out / "record.json").unlink()
    train(recording, out, *still, resume=True)
    assert json.loads((out / "record.json").read_text())["backbone_sha256"] == digest


def test_a_whole_network_to_start_from_needs_no_weights_of_its_backbone(recording, tmp_path):
    initial = tmp_path / "initial.safetensors"
    save_file(mmfusion.create_model("efficientmfd_tiny").state_dict(), initial)
    changes = [*SMALL, "loop.steps=1", f"backbone_weights={tmp_path / 'absent.pth'}"]
    content = load_recipe("efficientmfd_tiny", changes)
    run.train(content, run.Places([recording], [], tmp_path / "out", initial))
    record = json.loads((tmp_path / "out" / "record.json").read_text())
    assert "initial_sha256" in record
    assert "backbone_sha256" not in record


def test_the_rate_that_is_logged_is_not_that_of_the_backbone(recording, tmp_path):
    rates = ("optimiser.learning_rate=0.25", "optimiser.backbone_rate=0.5")
    (row,) = train(
        recording, tmp_path / "out", *rates, "optimiser.schedule=constant", "loop.steps=1"
    )
    assert row["learning_rate"] == 0.25


@pytest.mark.parametrize(("every", "aligned"), [(0, []), (1, [1, 2, 3]), (2, [2])])
def test_gradients_are_aligned_every_so_many_steps(recording, tmp_path, every, aligned):
    rows = train(recording, tmp_path / "out", "loop.steps=3", f"align_every={every}")
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert [row["step"] for row in rows if "alignment" in row] == aligned
    for row in rows:
        if "alignment" in row:
            after = row["alignment"]["after"]
            assert after["condition"] == pytest.approx(1, abs=1e-3)
            assert after["norms"][0] == pytest.approx(after["norms"][1], rel=1e-3) != 0


def test_both_tasks_share_all_but_what_fusion_ignores(recording, tmp_path):
    (row,) = train(recording, tmp_path / "out", "loop.steps=1", "align_every=1")
    features = mmfusion.create_model("efficientmfd_tiny").features
    parameters = {n: p for n, p in features.named_parameters() if p.requires_grad}
    coarsest = [name for name in parameters if name.startswith("output.3.")]
    assert len(coarsest) == 2
    shared = sum(p.numel() for name, p in parameters.items() if name not in coarsest)
    assert row["alignment"]["shared"] == shared


@pytest.mark.parametrize(
    ("alone", "gone"), [("fusion_weight", "structure"), ("detection_weight", "giou")]
)
def test_each_task_can_be_learnt_alone(recording, tmp_path, alone, gone):
    (row,) = train(recording, tmp_path / "out", "loop.steps=1", f"{alone}=0", "align_every=0")
    assert gone not in row
    assert len({"structure", "giou"} & row.keys()) == 1
    with pytest.raises(DataError, match="detection_weight and fusion_weight are both 0"):
        train(recording, tmp_path / "o", "detection_weight=0", "fusion_weight=0")


def test_a_recipe_chooses_the_form_of_the_fusion_losses(recording, tmp_path):
    common = ("loop.steps=1", "align_every=0")
    (released,) = train(recording, tmp_path / "released", *common)
    (named,) = train(recording, tmp_path / "named", *common, "fusion_loss=released")
    (paper,) = train(recording, tmp_path / "paper", *common, "fusion_loss=paper")
    assert named == released
    for name, value in released.items():
        same = paper[name] == value
        assert same is (name not in ("detail", "brightness"))
    with pytest.raises(DataError, match=r"fusion_loss: input should be 'released' or 'paper', got"):
        train(recording, tmp_path / "other", "fusion_loss=article")


# Trained: what is drawn by chance lets rounding errors grow.
TRAINED = Path(__file__).parents[2] / "weights" / "efficientmfd_lite0" / "model.safetensors"
TOGETHER = [
    *("loop.steps=2", "loop.batch=4", "size=[64, 96]", "align_every=2"),
    *("from_noise=0.5", "degradation={}"),
    # Next to standing still, as the gradients of detection change much from place to place.
    *("optimiser.learning_rate=1e-9", "optimiser.clip_norm=null"),
]
HELD_NORMS = """
import sys
from torch import nn
from mmfusion import cli
nn.BatchNorm2d.train = lambda self, mode=True: nn.Module.train(self, False)
sys.exit(cli.main(sys.argv[1:]))
"""


def compare_processes(recording, out, command, *changes):
    """Train a detector in one process and in two; the samples fusion is learnt from are few."""
    content = load_recipe("efficientmfd_lite0", [*TOGETHER, *changes])
    run.train(content, run.Places([recording], [], out / "one", TRAINED))
    where = ["--data", recording, "--out", out / "two", "--initial", TRAINED]
    what = ["train", "efficientmfd_lite0", *map(str, where), "--set", *TOGETHER, *changes]
    in_two_processes(*command, *what)
    one, two = (
        [json.loads(row) for row in (out / name / "training.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    )
    aligned, too = one[1].pop("alignment"), two[1].pop("alignment")
    assert aligned["shared"] == too["shared"]
    assert aligned["weights"] == pytest.approx(too["weights"], rel=1e-3)
    assert aligned["before"]["norms"] == pytest.approx(too["before"]["norms"], rel=1e-3)
    assert len(one) == len(two) == 2
    for mine, theirs in zip(one, two, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-6)
    sums, same = (
        load_state(out / name / "state.pt", torch.device("cpu"))["optimiser"]["state"]
        for name in ("one", "two")
    )
    assert sums.keys() == same.keys()
    for place, mine in sums.items():  # of the gradients of both steps
        theirs = same[place]["exp_avg"]
        assert (mine["exp_avg"] - theirs).norm() <= 1e-2 * theirs.norm()
    return one


def test_a_process_that_fuses_nothing_learns_as_if_it_were_part_of_one(recording, tmp_path):
    # The two samples that are fused are all of the first process.
    rows = compare_processes(recording, tmp_path, ["-m", "mmfusion"], "fusion_share=0.5")
    assert all(row["giou"] > 0 for row in rows)


def test_a_process_that_fuses_nothing_keeps_no_other_waiting(recording):
    # On GPUs each batch norm waits for those of all processes, in the precision of statistics.
    changes = ["size=[64, 96]", "fusion_share=0.5", "detection_weight=0"]
    recipe = run.recipe_of(load_recipe("efficientmfd_tiny", changes))
    task = run.DetectionTask(recipe, [recording], [])
    samples = [task.sample(item, 0, np.random.default_rng(item)) for item in range(2)]
    seen = []
    for module in task.network.fusion.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_hook(
                lambda norm, images, _: seen.append((norm, len(images[0]), images[0].dtype))
            )
    runs = []
    for rank in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            losses = task.losses(samples, Processes(rank, 2, torch.device("cpu")))
        found = torch.autograd.grad(
            losses.tasks[0], list(task.network.parameters()), allow_unused=True
        )
        runs.append((losses, seen.copy(), found))
        seen.clear()
    (_, norms, gradients), (nothing, too, none) = runs
    assert [norm for norm, *_ in norms] == [norm for norm, *_ in too] != []
    assert {count for _, count, _ in norms} == {2}
    assert {(count, kind) for _, count, kind in too} == {(0, torch.float32)}
    assert nothing.tasks[0] == 0
    for one, other in zip(gradients, none, strict=True):
        assert (one is None) == (other is None)
        assert other is None or not other.any()


def test_processes_that_fuse_unequal_parts_learn_as_one(recording, tmp_path, monkeypatch):
    # Two samples and one, and nothing to detect. On CPUs batch norms do not see other processes.
    rewrite(recording, lambda content: content.update(annotations=[]))
    script = tmp_path / "held_norms.py"
    script.write_text(HELD_NORMS)
    hold = lambda norm, mode=True: torch.nn.Module.train(norm, False)  # noqa: E731
    monkeypatch.setattr(torch.nn.BatchNorm2d, "train", hold)
    rows = compare_processes(recording, tmp_path, [str(script)], "fusion_share=0.75")
    assert all(row["giou"] == 0 < row["class"] for row in rows)


def test_losses_keep_their_precision(recording, tmp_path):
    """What the network gives in lower precision is judged in full."""
    common = ("loop.steps=1", "align_every=0")
    (full,) = train(recording, tmp_path / "full", *common)
    (low,) = train(recording, tmp_path / "low", *common, "loop.precision=bf16")
    assert low != full
    for name in ("structure", "detail", "brightness"):
        assert low[name] == pytest.approx(full[name], rel=0.1)


def test_a_network_is_measured_with_both_cameras_and_with_each(recording, tmp_path, capsys):
    pytest.importorskip("faster_coco_eval", reason="mmfusion[eval] is not installed")
    checkpoint = tmp_path / "model.safetensors"
    torch.manual_seed(0)
    save_file(mmfusion.create_model("efficientmfd_tiny").state_dict(), checkpoint)
    out, worst = tmp_path / "figures.json", tmp_path / "worst"
    what = ["evaluate", "--model", "efficientmfd_tiny", "--checkpoint", str(checkpoint)]
    what += ["--failures", str(worst)]
    assert cli.main([*what, "--data", str(recording), "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    assert record["pairs"] == 3
    assert list(record["figures"]) == ["rgb+thermal", "rgb", "thermal"]
    for figures in record["figures"].values():
        assert 0 <= figures["AP"] <= figures["AP50"] <= 1
        assert figures["classes"]["People"]["objects"] == 3
    assert "rgb+thermal" in capsys.readouterr().out
    assert evaluation_validator().is_valid(record)
    for entry, seen in zip(record["quality"][::2], record["figures"], strict=True):
        assert (entry["modalities"], entry["data"]) == (seen.split("+"), "3 pairs of recording")
        figures = record["figures"][seen]
        assert entry["metrics"] == {n: round(figures[n], 3) for n in ("AP50", "AP75", "AP")}
    for entry in record["quality"][1::2]:
        assert "depth" in entry["modalities"]
        assert entry["data"] == "3 pairs of recording; depth is not read"
    green = [0, 200, 0]
    for rank in (1, 2, 3):
        picture = cv2.imread(str(worst / f"worst_{rank}.png"))
        assert picture.shape == (54 + 3 * 96, 6 + 3 * (3 * 128 + 6), 3)
        assert (picture[:, 2 * 390 :] == green).all(axis=-1).any()
