"""The robustness protocol on tiny scenes and networks that were never trained."""

from __future__ import annotations

import dataclasses
import json
import shutil

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("py_sod_metrics", reason="mmfusion[eval] is not installed")

from compositions import spread
from safetensors.torch import save_file

import mmfusion
from mmfusion import cli
from mmfusion.corruptions import CORRUPTIONS
from mmfusion.errors import DataError, ExportError
from mmfusion.evaluate_robustness import SEEDS, STREAMS, evaluate_robustness
from mmfusion.evaluate_saliency import evaluate_saliency
from mmfusion.graph.depth_range import DepthRange
from mmfusion.haf.config import PRESETS
from mmfusion.relative_depth import DepthReading, millimetres_by_level
from mmfusion.saliency_scenes import trained_depth

pytestmark = pytest.mark.torch
MODEL = "haf_mobilenetv3_small"
ROWS = sum(len(corruption.levels) for corruption in CORRUPTIONS) * len(STREAMS)


@pytest.fixture(scope="module", autouse=True)
def small_networks():
    """The presets, with pictures that take no time."""
    with pytest.MonkeyPatch.context() as patch:
        for name in (MODEL, f"{MODEL}_t3"):
            patch.setitem(PRESETS, name, dataclasses.replace(PRESETS[name], input_size=(64, 64)))
        yield


def write_scenes(folder, sizes=((48, 64), (40, 56))):
    """A near object before a far wall, with holes of depth."""
    for name in ("rgb", "depth", "gt"):
        (folder / name).mkdir(parents=True)
    for index, size in enumerate(sizes):
        rng = np.random.default_rng(index)
        rgb = rng.integers(120, 200, (*size, 3), np.uint8)
        depth, mask = np.full(size, 4000, np.uint16), np.zeros(size, np.uint8)
        square = np.s_[10:30, 12 + 8 * index : 40]
        rgb[square], depth[square], mask[square] = (40, 60, 80), 900, 255
        depth[:5] = 0
        for name, image in (("rgb", rgb), ("depth", depth), ("gt", mask)):
            cv2.imwrite(str(folder / name / f"{index}.png"), image)
    return folder


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Checkpoints of both presets, by name."""
    folder = tmp_path_factory.mktemp("weights")
    for name in (MODEL, f"{MODEL}_t3"):
        torch.manual_seed(0)
        save_file(spread(mmfusion.create_model(name)).state_dict(), folder / f"{name}.safetensors")
    return {name: folder / f"{name}.safetensors" for name in (MODEL, f"{MODEL}_t3")}


def command(scenes, weights, out, model=MODEL):
    paths = ["--checkpoint", str(weights[model]), "--data", str(scenes), "--out", str(out)]
    return ["evaluate", "--corrupt", "--model", model, *paths]


@pytest.fixture(scope="module")
def records(scenes, weights, tmp_path_factory):
    """What the command writes, by model."""
    folder = tmp_path_factory.mktemp("records")
    for name in weights:
        assert cli.main(command(scenes, weights, folder / f"{name}.json", name)) == 0
    return folder


def record_of(records, model=MODEL):
    return json.loads((records / f"{model}.json").read_text())


@pytest.mark.parametrize("model", [MODEL, f"{MODEL}_t3"])
def test_the_record_holds_every_figure(records, model):
    record = record_of(records, model)
    assert (record["model"], record["scenes"], record["seeds"]) == (model, 2, list(SEEDS))
    assert record["depth_range_m"] == [0.3, 10]
    assert len(record["corrupted"]) == ROWS
    expected = [
        (stream, corruption.name, level)
        for stream in ("depth", "rgb")
        for corruption in CORRUPTIONS
        for level in corruption.levels
    ]
    rows = record["corrupted"]
    assert [(row["stream"], row["corruption"], row["level"]) for row in rows] == expected
    for row in rows:
        assert ("by_seed" in row) == (row["corruption"] in {"noise", "holes"})
        assert 0 <= row["S"] <= 1
        assert 0 <= row["MAE"] <= 1
        if "by_seed" in row:
            assert len(row["by_seed"]) == len(SEEDS)
            for name in ("S", "MAE"):
                values = [entry[name] for entry in row["by_seed"]]
                assert row[name] == pytest.approx(np.mean(values))


def test_networks_of_one_and_three_steps_fare_differently(records):
    one, three = (record_of(records, name) for name in (MODEL, f"{MODEL}_t3"))
    assert one["clean"] != three["clean"]


def test_each_corruption_changes_what_is_found(records):
    record = record_of(records)
    for row in record["corrupted"]:
        assert (row["S"], row["MAE"]) != (record["clean"]["S"], record["clean"]["MAE"]), row
        if "by_seed" in row:
            assert len({entry["MAE"] for entry in row["by_seed"]}) > 1, row


def test_clean_and_without_depth_are_the_figures_of_plain_evaluation(
    records, scenes, weights, tmp_path
):
    plain = evaluate_saliency(MODEL, weights[MODEL], [scenes], tmp_path / "plain.json")
    record = record_of(records)
    lost = next(
        row
        for row in record["corrupted"]
        if (row["stream"], row["corruption"]) == ("depth", "lost")
    )
    for name in ("S", "MAE"):
        assert record["clean"][name] == pytest.approx(plain["rgb+depth"][name], abs=2e-4)
        assert lost[name] == pytest.approx(plain["rgb"][name], abs=1e-9)


def test_a_picture_shows_it(records):
    picture = cv2.imread(str(records / f"{MODEL}.png"))
    assert picture.shape == (540, 1320, 3)
    # A line for the clean value and one for the lost stream in each of the eight panels.
    for colour in ((140, 140, 140), (40, 40, 200), (170, 90, 20)):
        rows, columns = np.nonzero((picture == colour).all(axis=-1))
        panels = {(y - 40) // 250 * 4 + x // 330 for y, x in zip(rows, columns, strict=True)}
        assert set(range(8)) <= panels


def test_the_table_is_printed_and_runs_agree(records, scenes, weights, tmp_path, capsys):
    out = tmp_path / "new" / "again.json"
    assert cli.main(command(scenes, weights, out)) == 0
    captured = capsys.readouterr()
    header, *rows = captured.out.splitlines()
    assert header.split() == ["S", "MAE", "S", "change"]
    assert len(rows) == 1 + ROWS
    record = json.loads(out.read_text())
    assert record == record_of(records)
    row = next(line for line in rows if line.startswith("rgb holes 0.25 "))
    found = next(r for r in record["corrupted"] if r["stream"] == "rgb" and r["level"] == 0.25)
    change = found["S"] - record["clean"]["S"]
    assert row.split()[3:] == [f"{found['S']:.3f}", f"{found['MAE']:.3f}", f"{change:.3f}"]
    assert "map/s" in captured.err


def test_corruptions_of_a_scene_do_not_depend_on_its_company(weights, tmp_path):
    """Nor on the network: all see the same."""
    alone = write_scenes(tmp_path / "alone", ((48, 64),))
    with_another = write_scenes(tmp_path / "both", ((48, 64), (8, 8)))
    for kind in ("rgb", "depth", "gt"):
        (with_another / kind / "1.png").rename(with_another / kind / "00.png")
    seen = {}
    for folder in (alone, with_another):
        seen[folder.name] = streams_seen(weights, folder, tmp_path / "out.json", (48, 64))
    assert len(seen["alone"]) == 63
    for one, other in zip(seen["alone"], seen["both"], strict=True):
        assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))


def streams_seen(weights, folder, out, size):
    """What the branch was given of the scenes of a size."""
    from mmfusion import evaluate_robustness as module

    seen = []

    def watch(branch, *tensors):
        if tensors[0].shape[-2:] == size:
            seen.append(tensors)
        return np.tile(np.uint8([0, 255]), (tensors[0].shape[-2], tensors[0].shape[-1] // 2))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "find_salient", watch)
        evaluate_robustness(MODEL, weights[MODEL], [folder], out)
    return seen


def test_one_stream_is_corrupted_at_a_time(scenes, weights, tmp_path):
    clean, *others = streams_seen(weights, scenes, tmp_path / "out.json", (48, 64))
    depth, rgb = others[:31], others[31:]
    assert len(rgb) == 31
    for seen in depth:
        assert torch.equal(seen[0], clean[0])
        assert not (torch.equal(seen[1], clean[1]) and torch.equal(seen[2], clean[2]))
    for seen in rgb:
        assert not torch.equal(seen[0], clean[0])
        assert torch.equal(seen[1], clean[1])
        assert torch.equal(seen[2], clean[2])
    for seen in others:
        assert seen[1].min() >= 0.3 - 1e-4
        assert seen[1].max() <= 10 + 1e-3


def test_fusion_networks_are_refused(scenes, weights, tmp_path, capsys):
    words = command(scenes, weights, tmp_path / "out.json")
    words[words.index(MODEL)] = "s4fusion_tiny"
    assert cli.main(words) == 1
    error = capsys.readouterr().err
    assert "--corrupt is for saliency networks; leave it out for s4fusion_tiny" in error


@pytest.mark.parametrize("option", ["--failures", "--data-name"])
def test_what_plain_evaluation_alone_does_is_refused(scenes, weights, tmp_path, capsys, option):
    assert cli.main([*command(scenes, weights, tmp_path / "out.json"), option, "x"]) == 1
    assert f"{option} does not go with --corrupt" in capsys.readouterr().err


def test_figures_do_not_take_the_place_of_their_picture(scenes, weights, tmp_path, capsys):
    assert cli.main(command(scenes, weights, tmp_path / "out.png")) == 1
    assert "where their picture goes; name a .json" in capsys.readouterr().err


class TestTrainedDepth:
    def test_is_that_of_the_recipe(self, tmp_path, scenes, weights):
        checkpoint = tmp_path / "model.safetensors"
        checkpoint.write_bytes(weights[MODEL].read_bytes())
        assert trained_depth(checkpoint) == DepthReading(DepthRange(), "left_out")
        (tmp_path / "recipe.yaml").write_text(json.dumps({"near_m": 0.8, "far_m": 5, "steps": 1}))
        assert trained_depth(checkpoint) == DepthReading(DepthRange(0.8, 5), "left_out")
        out = tmp_path / "out.json"
        clean = streams_seen({MODEL: checkpoint}, scenes, out, (48, 64))[0]
        assert json.loads(out.read_text())["depth_range_m"] == [0.8, 5]
        known = clean[1][clean[2] > 0]
        assert sorted(known.unique().tolist()) == pytest.approx([0.9, 4])

    @pytest.mark.parametrize(
        "text", ["{", "[]", '{"near_m": "near"}', '{"near_m": null}', '{"relative_depth": 3}']
    )
    def test_of_damaged_recipes_is_refused(self, tmp_path, text):
        (tmp_path / "recipe.yaml").write_text(text)
        with pytest.raises(DataError, match=r"recipe.yaml is no recipe of a training"):
            trained_depth(tmp_path / "model.safetensors")

    def test_of_impossible_recipes_is_refused(self, tmp_path):
        (tmp_path / "recipe.yaml").write_text('{"near_m": 5, "far_m": 2}')
        with pytest.raises(ExportError, match="depth range is 5 to 2 m"):
            trained_depth(tmp_path / "model.safetensors")


def as_relative(scenes, folder, *, near_bright):
    """The scenes with 8-bit depth instead; the grey levels."""
    shutil.copytree(scenes, folder)
    levels = {}
    for path in sorted((folder / "depth").iterdir()):
        depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        near = np.where(depth == 900, 230, np.where(depth, 40, 0)).astype(np.uint8)
        levels[path.stem] = near if near_bright else 255 - near
        cv2.imwrite(str(path), levels[path.stem])
    return levels


@pytest.mark.parametrize("relative", ["near_bright", "near_dark"])
def test_a_network_trained_on_relative_depth_is_measured_on_it(scenes, tmp_path, relative):
    folder, out = tmp_path / "scenes", tmp_path / "out"
    levels = as_relative(scenes, folder, near_bright=relative == "near_bright")
    what = ["--data", str(folder), "--validation", str(folder), "--out", str(out)]
    keys = ["loop.steps=1", "loop.batch=2", "loop.norm_batches=0", f"relative_depth={relative}"]
    keys += ["near_m=0.4", "far_m=8"]
    assert cli.main(["train", MODEL, *what, "--set", *keys]) == 0
    checkpoint = out / "model.safetensors"
    reading = DepthReading(DepthRange(0.4, 8), relative)
    assert trained_depth(checkpoint) == reading

    worst = tmp_path / "worst"
    plain, corrupted = tmp_path / "plain.json", tmp_path / "corrupted.json"
    evaluate_saliency(MODEL, checkpoint, [folder], plain, failures=worst)
    assert len(list(worst.iterdir())) == 2
    clean = streams_seen({MODEL: checkpoint}, folder, corrupted, (48, 64))[0]
    for path in (plain, corrupted):
        record = json.loads(path.read_text())
        assert (record["scenes"], record["relative_depth"]) == (2, relative)
    _, metres, valid = (plane[0, 0].numpy() for plane in clean)
    assert valid.all()
    expected = millimetres_by_level(reading)[levels["0"]]
    np.testing.assert_allclose(metres, 1e-3 * expected, rtol=1e-4)

    (out / "recipe.yaml").unlink()
    with pytest.raises(DataError, match=r"no sample with 16-bit depth in .*: all 2 have 8-bit dep"):
        evaluate_saliency(MODEL, checkpoint, [folder], plain)
