"""Recipes: strict, and every mistake named."""

from __future__ import annotations

import pytest

pytest.importorskip("pydantic", reason="mmfusion[train] is not installed")

from mmfusion import cli
from mmfusion.errors import DataError
from mmfusion.registry import list_models
from mmfusion.train.recipes import list_presets, load_recipe, write_recipe

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from mmfusion.train.run import recipe_of

pytestmark = pytest.mark.torch


def test_every_preset_is_a_recipe_of_a_model():
    assert list_presets()
    for name in list_presets():
        content = load_recipe(name)
        assert content["model"] in list_models()
        recipe_of(content)


def test_a_written_recipe_reads_the_same(tmp_path):
    for name in list_presets():
        recipe = recipe_of(load_recipe(name))
        write_recipe(recipe, tmp_path / "recipe.yaml")
        assert recipe_of(load_recipe(str(tmp_path / "recipe.yaml"))) == recipe


def test_changes_reach_groups_and_read_numbers_as_people_write_them(tmp_path):
    changes = ["optimiser.learning_rate=5e-5", "loop.steps=7", "scales=[1, 2]", "model=s4fusion"]
    content = load_recipe("s4fusion_tiny", changes)
    assert content["optimiser"]["learning_rate"] == 5e-5
    recipe = recipe_of(content)
    assert (recipe.loop.steps, recipe.scales, recipe.model) == (7, [1, 2], "s4fusion")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("loop.stepz=3", "loop.stepz: unknown key"),
        ("corp=3", "corp: unknown key"),
        ("loop.steps=x", "loop.steps: input should be a valid integer, got 'x'"),
        ("loop.steps=1.5", "loop.steps: input should be a valid integer"),
        ("loop.steps=true", "loop.steps: input should be a valid integer, got True"),
        ("loop.steps=0", "loop.steps: input should be greater than or equal to 1, got 0"),
        ("loop.precision=fp8", "loop.precision: input should be 'fp32' or 'bf16', got 'fp8'"),
        ("loop.ema=1", "loop.ema: input should be less than 1, got 1"),
        ("scales=[1, a]", "scales.1: input should be a valid integer, got 'a'"),
        ("loop=3", "loop: "),
        (
            "objective.warmth=-1",
            "objective.warmth.warmth: input should be greater than or equal to 0, got -1",
        ),
        ("objective.kind=art", "objective: input tag 'art' found using 'kind' does not match any"),
        ("degradation.drop_rgb=1.1", "degradation.drop_rgb: input should be less than or equal to"),
        ("degradation.drop_all=1", "degradation.drop_all: unknown key"),
        ("degradation.frozen_depth=true", "degradation.frozen_depth: input should be a valid numb"),
        ("crop=15", "crop: input should be greater than or equal to 16, got 15"),
    ],
)
def test_mistakes_are_named(change, fault):
    with pytest.raises(DataError) as error:
        recipe_of(load_recipe("s4fusion_tiny", [change]))
    assert str(error.value).startswith("recipe of s4fusion_tiny: ")
    assert fault in str(error.value)


def test_all_mistakes_are_named_at_once():
    content = load_recipe("s4fusion_tiny", ["loop.steps=x", "corp=3"])
    del content["crop"]
    with pytest.raises(DataError) as error:
        recipe_of(content)
    assert all(
        part in str(error.value) for part in ("loop.steps: ", "corp: unknown", "crop: missing")
    )


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "expected a mapping with the key model"),
        ("- model", "expected a mapping with the key model"),
        ("model: [1]", "expected a mapping with the key model"),
        ("model: a: b", "is not YAML: "),
    ],
)
def test_files_that_are_no_recipes_are_named(tmp_path, text, fault):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=fault) as error:
        load_recipe(str(path))
    assert str(path) in str(error.value)


def test_unknown_names_are_answered_with_the_known_ones(tmp_path, capsys):
    arguments = ["--data", str(tmp_path), "--out", str(tmp_path / "out")]
    assert cli.main(["train", "s5fusion", *arguments]) == 1
    assert "no recipe s5fusion; expected a YAML file, or one of: " in capsys.readouterr().err
    assert cli.main(["train", "s4fusion_tiny", *arguments, "--set", "model=s5fusion"]) == 1
    assert "recipe of s5fusion: unknown model; expected one of: " in capsys.readouterr().err
    for change in ("loop.steps", "=3", "model.a=3"):
        assert cli.main(["train", "s4fusion_tiny", *arguments, "--set", change]) == 1
        assert f"cannot change {change!r}" in capsys.readouterr().err
