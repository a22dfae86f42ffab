"""The command line: trains, evaluates, and answers a user's mistake with one clear line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

pytest.importorskip("torch")

from safetensors.torch import load_file, save_file

from mmfusion import cli
from mmfusion.errors import DataError
from mmfusion.train.pairs import find_pairs, load_pairs, read_grey

pytestmark = pytest.mark.torch

RECIPE = "s4fusion_tiny"
STEPS = ["--set", "loop.steps=2", "loop.batch=1", "crop=41"]


def picture(seed: int, height: int = 56, width: int = 64) -> np.ndarray:
    """A few blurred blobs."""
    noise = np.random.default_rng(seed).random((height, width)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def write_pairs(folder: Path, count: int = 2, names: tuple[str, str] = ("ir", "vi")) -> Path:
    for side, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            cv2.imwrite(str(folder / name / f"{index:03}.png"), picture(2 * index + side))
    return folder


@pytest.fixture
def data(tmp_path) -> Path:
    return write_pairs(tmp_path / "pairs")


def train(data: Path, out: Path, *options: str) -> int:
    return cli.main(["train", RECIPE, "--data", str(data), "--out", str(out), *STEPS, *options])


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Weights of two steps."""
    folder = tmp_path_factory.mktemp("trained")
    assert train(write_pairs(folder / "pairs"), folder / "run") == 0
    return folder / "run"


def complaint(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line a failing command leaves on stderr."""
    capsys.readouterr()
    assert cli.main([str(argument) for argument in arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith(f"mmfusion {arguments[0]}: ")
    return captured.err


HELP = """
import sys
from mmfusion.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert end.code == 0, end.code
heavy = {"torch", "cv2", "onnx", "safetensors", "numpy"} & sys.modules.keys()
assert not heavy, heavy
"""


@pytest.mark.parametrize("command", [[], ["train"], ["evaluate"], ["export"]])
def test_help_waits_for_nothing_heavy(command):
    result = subprocess.run(
        [sys.executable, "-c", HELP, *command, "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"usage: {' '.join(['mmfusion', *command])}")


def test_training_writes_weights_and_their_recipe(trained):
    recipe = yaml.safe_load((trained / "recipe.yaml").read_text())
    assert (recipe["loop"]["steps"], recipe["loop"]["batch"], recipe["crop"]) == (2, 1, 41)
    assert (recipe["model"], recipe["loop"]["seed"]) == ("s4fusion_tiny", 0)
    record = json.loads((trained / "record.json").read_text())
    assert (record["samples"], record["steps"]) == (2, 2)
    weights = load_file(trained / "model.safetensors")
    assert all(tensor.isfinite().all() for tensor in weights.values())


def test_a_seed_decides_the_weights(data, trained, tmp_path):
    first = (trained / "model.safetensors").read_bytes()
    for seed, same in (("0", True), ("1", False)):
        out = tmp_path / seed
        assert train(data, out, f"loop.seed={seed}") == 0
        assert ((out / "model.safetensors").read_bytes() == first) is same


def test_training_moves_the_weights(data, trained, tmp_path):
    assert train(data, tmp_path / "once", "loop.steps=1") == 0
    once, twice = (load_file(run / "model.safetensors") for run in (tmp_path / "once", trained))
    assert any((once[name] != twice[name]).any() for name in once)


@pytest.mark.parametrize("scale", [1, 2])
def test_evaluation_tells_and_writes_the_means(data, trained, tmp_path, capsys, scale):
    out = tmp_path / "new" / "quality.json"
    checkpoint = trained / "model.safetensors"
    command = ["evaluate", "--checkpoint", checkpoint, "--data", data, data, "--out", out]
    assert cli.main([*map(str, command), "--fusion-scale", str(scale)]) == 0
    record = json.loads(out.read_text())
    assert (record["pairs"], record["fusion_scale"]) == (4, scale)
    baselines = ["average", "maximum", "pyramid"]
    assert list(record["means"]) == ["rgb+thermal", "rgb", "thermal", *baselines]
    for name in ("rgb+thermal", *baselines):
        assert np.isfinite(list(record["means"][name].values())).all()
    table = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in table[1:]] == list(record["means"])
    assert table[0].split() == list(record["means"]["rgb+thermal"])
    first = next(iter(record["means"]["average"].values()))
    assert table[4].split()[1] == f"{first:.3f}"


def both_commands(data: Path, tmp_path: Path, checkpoint: Path) -> list[list[object]]:
    return [
        ["train", RECIPE, "--data", data, "--out", tmp_path / "out", *STEPS],
        ["evaluate", "--checkpoint", checkpoint, "--data", data, "--out", tmp_path / "q.json"],
    ]


def break_pairs(data: Path, how: str) -> str:
    """Spoil a folder of pairs; returns what the complaint must say."""
    ir = data / "ir"
    if how == "missing subfolder":
        (data / "ir").rename(data / "infra")
        return f"{data} has no infrared images: expected a subfolder named ir or infrared or"
    if how == "unpaired":
        (ir / "001.png").rename(ir / "002.png")
        return f"{data}: 2 images have no partner in the other subfolder: 001, 002"
    if how == "unequal sizes":
        cv2.imwrite(str(ir / "001.png"), picture(0, 40, 64))
        return f"pair 001 in {data}: infrared is (40, 64), visible (56, 64); a registered pair"
    if how == "twins":
        cv2.imwrite(str(ir / "001.JPG"), picture(0))
        return f"{ir} holds both 001.JPG and 001.png; expected one image named 001"
    if how == "empty folders":
        for path in data.glob("*/*.png"):
            path.unlink()
        return f"{data} holds no images"
    image = ir / "001.png"
    content = {"no image": b"text", "empty": b"", "cut": image.read_bytes()[:300]}.get(how)
    image.unlink()
    if content is None:
        image.mkdir()
    else:
        image.write_bytes(content)
    return f"{image} is not a readable image"


@pytest.mark.parametrize(
    "how",
    [
        *("missing subfolder", "unpaired", "unequal sizes", "twins", "empty folders"),
        *("no image", "empty", "cut", "folder"),
    ],
)
def test_unusable_data_are_named(data, trained, tmp_path, capsys, how):
    expected = break_pairs(data, how)
    for command in both_commands(data, tmp_path, trained / "model.safetensors"):
        assert expected in complaint(capsys, *command)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "q.json").exists()


def test_a_missing_folder_is_named(trained, tmp_path, capsys):
    nowhere = tmp_path / "nowhere"
    for command in both_commands(nowhere, tmp_path, trained / "model.safetensors"):
        assert f"{nowhere} has no infrared images" in complaint(capsys, *command)


def test_crops_larger_than_every_image(data, tmp_path, capsys):
    command = ["train", RECIPE, "--data", data, "--out", tmp_path / "out", "--set", "crop=57"]
    assert "no pair is at least 57 pixels wide and high" in complaint(capsys, *command)


def test_other_models_are_answered_with_the_usable_ones(data, tmp_path, capsys):
    words = [*both_commands(data, tmp_path, tmp_path)[1], "--model", "s5fusion"]
    with pytest.raises(SystemExit) as end:
        cli.main([str(word) for word in words])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert "invalid choice: 's5fusion' (choose from " in error
    assert "s4fusion_tiny" in error


def test_checkpoints_that_do_not_fit_are_refused(data, trained, tmp_path, capsys):
    weights = load_file(trained / "model.safetensors")
    name, tensor = next(iter(weights.items()))
    save_file({**weights, name: tensor.flatten()[:1]}, tmp_path / "reshaped")
    save_file({key: weights[key] for key in weights if key != name}, tmp_path / "short")
    save_file({**weights, "surplus": tensor.clone()}, tmp_path / "long")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_text("no weights " * 20)
    for file, reason in (
        ("reshaped", f"size mismatch for {name}"),
        ("short", f'Missing key(s) in state_dict: "{name}"'),
        ("long", 'Unexpected key(s) in state_dict: "surplus"'),
        ("empty", "header too small"),
        ("text", "header too large"),
    ):
        path = tmp_path / file
        message = complaint(capsys, *both_commands(data, tmp_path, path)[1])
        assert f"{path} does not fit S4Fusion: " in message
        assert reason in message
        assert "expected a safetensors file written by this package" in message
    for path in (tmp_path / "nowhere", tmp_path):
        message = complaint(capsys, *both_commands(data, tmp_path, path)[1])
        assert f"no checkpoint at {path}; expected a .safetensors file" in message


def test_unwritable_outputs_are_named(data, tmp_path, capsys):
    occupied = tmp_path / "file"
    occupied.write_text("")
    command = ["train", RECIPE, "--data", data, "--out", occupied, *STEPS]
    assert f"File exists: '{occupied}'" in complaint(capsys, *command)


def test_missing_torch_is_answered_with_how_to_get_it(data, tmp_path, capsys, monkeypatch):
    for name in ("run", "processes"):
        monkeypatch.delitem(sys.modules, f"mmfusion.train.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert train(data, tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert "mmfusion train needs PyTorch" in error
    assert "pip install 'mmfusion[train]'" in error


@pytest.mark.parametrize("names", [("infrared", "visible"), ("thermal", "rgb")])
def test_pairs_are_found_by_either_name_and_in_order(tmp_path, names):
    folder = write_pairs(tmp_path, 3, names)
    (folder / names[0] / "notes.txt").write_text("not an image")
    pairs = find_pairs(folder)
    assert [stem for stem, _, _ in pairs] == ["000", "001", "002"]
    assert pairs[2][1:] == (folder / names[0] / "002.png", folder / names[1] / "002.png")
    loaded = load_pairs([folder])
    np.testing.assert_array_equal(loaded[1].infrared, picture(2))
    np.testing.assert_array_equal(loaded[1].visible, picture(3))


def test_colour_is_read_as_luma(tmp_path):
    path = tmp_path / "green.png"
    cv2.imwrite(str(path), np.full((4, 4, 3), (0, 200, 0), np.uint8))
    np.testing.assert_array_equal(read_grey(path), np.full((4, 4), 117))


def test_a_missing_image_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone.png is not a readable image: .*No such file"):
        read_grey(tmp_path / "gone.png")
