"""The training loop: repeats, goes on exactly, splits evenly over parts and processes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
timm = pytest.importorskip("timm", reason="timm is not installed")

from interruption import interrupted_after
from safetensors.torch import load_file, save_file
from tiny_data import write_pairs
from two_processes import in_two_processes

from mmfusion import cli
from mmfusion.errors import DataError, ModelError
from mmfusion.registry import create_model
from mmfusion.s4fusion.config import PRESETS
from mmfusion.train import run
from mmfusion.train.hardware import device_name
from mmfusion.train.optimisers import create_optimiser
from mmfusion.train.output import replace_file
from mmfusion.train.recipes import Optimiser, load_recipe
from mmfusion.train.state import load_state

pytestmark = pytest.mark.torch
STEPS = ["loop.steps=4", "loop.batch=2", "crop=41", "loop.save_every=2", "scales=[1]"]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs"))


def train(pairs, out, *changes, validation=(), **options):
    content = load_recipe("s4fusion_tiny", [*STEPS, *changes])
    initial = options.pop("initial", None)
    run.train(content, run.Places([pairs], validation, out, initial), **options)
    return rows(out)


def rows(out):
    return [json.loads(line) for line in (out / "training.jsonl").read_text().splitlines()]


def weights(out, name="model.safetensors"):
    return load_file(out / name)


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def plain(pairs, tmp_path_factory):
    """A run without anything special."""
    out = tmp_path_factory.mktemp("plain")
    train(pairs, out, "loop.ema=0.5")
    return out


def test_an_interrupted_training_goes_on_exactly(pairs, plain, tmp_path):
    with interrupted_after(3), pytest.raises(KeyboardInterrupt):
        train(pairs, tmp_path, "loop.ema=0.5")
    # The third step was logged, but the state is that of the second.
    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3]
    assert train(pairs, tmp_path, "loop.ema=0.5", resume=True) == rows(plain)
    assert_same(weights(tmp_path), weights(plain))


def test_a_seed_repeats_and_another_does_not(pairs, plain, tmp_path):
    assert train(pairs, tmp_path / "same", "loop.ema=0.5", workers=1) == rows(plain)
    assert_same(weights(tmp_path / "same"), weights(plain))
    assert train(pairs, tmp_path / "other", "loop.ema=0.5", "loop.seed=1") != rows(plain)


def test_averaged_weights_are_written_and_the_others_kept(pairs, plain, tmp_path):
    train(pairs, tmp_path)
    state = load_state(plain / "state.pt", torch.device("cpu"))
    assert_same(state["network"], weights(tmp_path))
    averaged = weights(plain)
    assert any(not torch.equal(averaged[name], state["network"][name]) for name in averaged)


def test_the_record_tells_what_it_ran_on(plain):
    record = json.loads((plain / "record.json").read_text())
    assert record["device"] == device_name(torch.device("cpu"))
    assert record["threads"] == torch.get_num_threads()
    assert (record["samples"], record["steps"], record["processes"]) == (3, 4, 1)
    assert record["torch"] == torch.__version__


def near(one, other):
    assert [row["step"] for row in one] == [row["step"] for row in other]
    for mine, theirs in zip(one, other, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-6)


def test_a_batch_in_parts_is_the_same_batch(pairs, tmp_path):
    whole = train(pairs, tmp_path / "whole", "loop.batch=4")
    near(train(pairs, tmp_path / "parts", "loop.batch=4", "loop.accumulate=2"), whole)


def test_two_processes_do_the_same_as_one(pairs, tmp_path):
    one = train(pairs, tmp_path / "one", "loop.batch=4")
    command = ["-m", "mmfusion", "train", "s4fusion_tiny", "--data", str(pairs)]
    command += ["--out", str(tmp_path / "two"), "--set", *STEPS, "loop.batch=4"]
    in_two_processes(*command)
    near(rows(tmp_path / "two"), one)
    mine, theirs = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name in mine:
        torch.testing.assert_close(mine[name], theirs[name], rtol=1e-3, atol=1e-5)
    assert json.loads((tmp_path / "two" / "record.json").read_text())["processes"] == 2
    assert in_two_processes(*command, "--resume").count("were done before") == 1  # one tells


def test_batches_that_do_not_split_are_refused(pairs, tmp_path):
    with pytest.raises(DataError, match=r"loop.batch is 2; expected a multiple of 3, as each"):
        train(pairs, tmp_path, "loop.accumulate=3")


def test_every_sample_comes_once_in_an_epoch(pairs, tmp_path, monkeypatch):
    seen = []
    sample = run.FusionTask.sample

    def spy(self, item, step, rng):
        seen.append((step, item))
        return sample(self, item, step, rng)

    monkeypatch.setattr(run.FusionTask, "sample", spy)
    train(pairs, tmp_path, "loop.batch=3", "loop.steps=2")
    assert [step for step, _ in seen] == [0, 0, 0, 1, 1, 1]
    assert {item for _, item in seen[:3]} == {item for _, item in seen[3:]} == {0, 1, 2}


def test_lower_precision_learns_about_the_same(pairs, plain, tmp_path):
    low = train(pairs, tmp_path, "loop.precision=bf16")
    assert low != rows(plain)
    for mine, theirs in zip(low, rows(plain), strict=True):
        assert mine == pytest.approx(theirs, rel=0.2)


def test_divergence_ends_the_training_with_a_reason(pairs, tmp_path):
    with pytest.raises(ModelError, match=r"diverged in step \d: .* nan.*; start anew with a"):
        train(pairs, tmp_path, "optimiser.learning_rate=1e30", "optimiser.clip_norm=null")


def test_starts_from_weights_that_it_is_given(pairs, plain, tmp_path):
    initial = plain / "model.safetensors"
    still = "optimiser.learning_rate=1e-30"
    train(pairs, tmp_path, still, "loop.steps=1", initial=initial)
    found, given = weights(tmp_path), weights(plain)
    assert_same({name: found[name] for name in given}, given)
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["initial_sha256"] == hashlib.sha256(initial.read_bytes()).hexdigest()
    with pytest.raises(DataError, match=r"differs in initial: .* data, --initial and"):
        train(pairs, tmp_path, still, "loop.steps=1", resume=True)


def test_refuses_weights_of_another_network_before_it_writes_anything(pairs, tmp_path):
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(3)}, other)
    with pytest.raises(ModelError, match=r"other\.safetensors does not fit S4Fusion"):
        train(pairs, tmp_path / "out", initial=other)
    assert not (tmp_path / "out").exists()


PUBLISHED = "objective={kind: s4fusion, classifier: none}"


@pytest.mark.parametrize("objective", ["objective={kind: warmth}", PUBLISHED])
def test_the_smallest_crops_are_learnt_from_at_every_scale(pairs, tmp_path, objective):
    found = train(pairs, tmp_path, objective, "crop=16", "scales=[1, 2]")
    assert len(found) == 4
    assert all(math.isfinite(value) for row in found for value in row.values())


def test_pairs_too_small_to_validate_on_are_named_at_once(pairs, tmp_path):
    small = write_pairs(tmp_path / "small", size=(40, 60))
    with pytest.raises(DataError, match=r"sides of at least 41 pixels; leave out pair 0"):
        train(pairs, tmp_path / "out", validation=[small])


def test_the_published_objective_is_learnt_without_a_classifier_if_one_says_so(pairs, tmp_path):
    found = train(pairs, tmp_path, PUBLISHED)
    assert {"ssim", "intensity", "gradient"} <= found[0].keys()
    assert "entropy" not in found[0]
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["classifier"] == "none"
    assert record["temperature"] > 0


def test_the_published_objective_asks_a_classifier(pairs, tmp_path, monkeypatch):
    name = "resnet10t"
    torch.manual_seed(0)
    weights = tmp_path / "classifier.safetensors"
    save_file(timm.create_model(name).state_dict(), weights)
    objective = f"{{kind: s4fusion, classifier: {name}, classifier_weights: {weights}}}"
    found = train(pairs, tmp_path / "out", f"objective={objective}", "crop=41")
    assert found[0]["entropy"] > 0
    record = json.loads((tmp_path / "out" / "record.json").read_text())
    assert len(record["classifier_sha256"]) == 64
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ModelError, match=r"no weights of resnet50\.tv_in1k; looked"):
        train(pairs, tmp_path / "without", "objective={kind: s4fusion}")
    assert not (tmp_path / "without").exists()


def test_validation_comes_before_along_and_after(pairs, tmp_path, capsys):
    found = train(pairs, tmp_path, "loop.validate_every=3", validation=[pairs])
    assert [row["step"] for row in found if "validation" in row] == [3, 4]
    assert all(row["validation"].keys() == {"VIF", "Q_ABF"} for row in found[2:])
    told = capsys.readouterr()
    assert "step 0: VIF " in told.out + told.err
    scores = {row["step"]: sum(row["validation"].values()) for row in found[2:]}
    best = weights(tmp_path, "best.safetensors")
    last = weights(tmp_path)
    assert all(torch.equal(best[n], last[n]) for n in last) is (scores[4] > scores[3])
    assert any((tmp_path / "tensorboard").iterdir())


def test_a_state_of_another_training_is_refused(pairs, plain, tmp_path):
    other = tmp_path / "other"
    train(pairs, other)
    with pytest.raises(DataError, match=r"state.pt is of another training; it differs in crop, lo"):
        train(pairs, other, "loop.seed=3", "crop=43", resume=True)
    elsewhere = tmp_path / "elsewhere"
    for name in ("ir", "vi"):
        (elsewhere / name).mkdir(parents=True)
        image = (pairs / name / "0.png").read_bytes()
        (elsewhere / name / "new.png").write_bytes(image)
    with pytest.raises(DataError, match=r"it differs in data: resume with the same"):
        train(elsewhere, other, resume=True)
    # What no step depends on may change.
    assert train(pairs, other, "loop.save_every=1", resume=True) == rows(other)


def test_a_state_of_a_model_that_was_another_is_refused(pairs, tmp_path, monkeypatch):
    train(pairs, tmp_path)
    changed = dataclasses.replace(PRESETS["s4fusion_tiny"], detail=1.0)
    monkeypatch.setitem(PRESETS, "s4fusion_tiny", changed)
    with pytest.raises(DataError, match=r"differs in network\.detail: .* and version of mmfusion"):
        train(pairs, tmp_path, resume=True)


def test_going_on_with_a_finished_training_says_so(pairs, tmp_path, capsys):
    train(pairs, tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    capsys.readouterr()
    train(pairs, tmp_path, resume=True)
    assert f"all 4 steps in {tmp_path} were done before" in "".join(capsys.readouterr())
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_a_damaged_state_is_named(pairs, tmp_path):
    train(pairs, tmp_path)
    path = tmp_path / "state.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"state.pt is not the whole state of a training"):
        train(pairs, tmp_path, resume=True)


def test_a_log_that_was_cut_is_named(pairs, tmp_path):
    train(pairs, tmp_path)
    log = tmp_path / "training.jsonl"
    log.write_text(log.read_text().splitlines(keepends=True)[0])
    with pytest.raises(DataError, match=r"training.jsonl does not list the first 4 steps"):
        train(pairs, tmp_path, resume=True)


def test_results_are_not_overwritten(pairs, plain, capsys):
    arguments = ["train", "s4fusion_tiny", "--data", str(pairs), "--out", str(plain)]
    assert cli.main(arguments) == 1
    assert "pass another --out, or --resume to go on with it" in capsys.readouterr().err


def test_resuming_nothing_begins(pairs, plain, tmp_path):
    assert train(pairs, tmp_path / "new", "loop.ema=0.5", resume=True) == rows(plain)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def die():
        with replace_file(path) as fresh:
            fresh.write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        die()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    with replace_file(path) as fresh:
        fresh.write_text("new")
    assert path.read_text() == "new"


def test_exempt_weights_do_not_decay():
    network = create_model("s4fusion_tiny")
    groups = create_optimiser(network, Optimiser(weight_decay=0.5)).param_groups
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    decaying, others = ([names[id(p)] for p in group["params"]] for group in groups)
    assert (groups[0]["weight_decay"], groups[1]["weight_decay"]) == (0.5, 0)
    kinds = {name.rpartition(".")[2] for name in decaying}
    assert {"weight", "mark", "step_weight"} <= kinds
    assert not {"log_a", "skip", "bias"} & kinds
    assert {"log_a", "skip", "bias"} <= {name.rpartition(".")[2] for name in others}
    assert len(decaying) + len(others) == len(names)


def test_a_backbone_learns_at_its_own_rate():
    network = create_model("efficientmfd_tiny")
    settings = Optimiser(learning_rate=0.5, backbone_rate=0.25)
    inside = {id(parameter) for parameter in network.features.body.parameters()}
    rates = {True: set(), False: set()}
    for group in create_optimiser(network, settings).param_groups:
        for parameter in group["params"]:
            rates[id(parameter) in inside].add(group["lr"])
    assert rates == {True: {0.125}, False: {0.5}}


def test_a_rate_for_no_backbone_is_refused():
    with pytest.raises(DataError, match=r"backbone_rate is 0\.1, but the network has no backbone"):
        create_optimiser(create_model("s4fusion_tiny"), Optimiser(backbone_rate=0.1))
