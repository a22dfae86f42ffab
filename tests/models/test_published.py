"""Checkpoints in the published layouts: read safely, and refused with one clear line."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from safetensors.torch import save_file

import mmfusion
from mmfusion.errors import ModelError
from mmfusion.registry import FAMILIES, Role, list_models

pytestmark = pytest.mark.torch


class Harmful:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (open, ("/tmp/mmfusion_was_here", "w"))


@pytest.fixture(scope="module")
def weights():
    """Published names of a small network: its own names happen to be right after renaming."""
    torch.manual_seed(0)
    return dict(mmfusion.create_model("s4fusion_tiny").state_dict())


@pytest.fixture
def model():
    torch.manual_seed(1)
    return mmfusion.create_model("s4fusion_tiny")


def same(model, weights):
    return all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("wrapper", [None, "model", "state_dict", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_wrappers_and_prefixes_are_taken_off(weights, model, tmp_path, wrapper, prefix):
    content = {prefix + key: value for key, value in weights.items()}
    if wrapper is not None:
        content = {wrapper: content, "epoch": 3, "optimizer": {"lr": 0.1}}
    path = tmp_path / "published.pth"
    torch.save(content, path)
    report = mmfusion.load_published(model, path)
    assert same(model, weights)
    assert (report.loaded, report.unused, report.missing) == (len(weights), (), ())


def test_safetensors_and_arrays_are_read_too(weights, model, tmp_path):
    path = tmp_path / "published.safetensors"
    save_file(weights, path)
    mmfusion.load_published(model, path)
    assert same(model, weights)
    other = mmfusion.create_model("s4fusion_tiny")
    mmfusion.load_published(other, {key: value.numpy() for key, value in weights.items()})
    assert same(other, weights)


def test_no_code_in_a_checkpoint_runs(weights, model, tmp_path):
    path = tmp_path / "harmful.pth"
    torch.save({"model": weights, "hook": Harmful()}, path)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(
        ModelError, match=r"harmful.pth cannot be read safely: .*save its state dict"
    ):
        mmfusion.load_published(model, path)
    assert same(model, before)
    with path.open("wb") as file:
        pickle.dump(Harmful(), file)
    with pytest.raises(ModelError, match="cannot be read safely"):
        mmfusion.load_published(model, path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read safely"),
        (b"hello world", "cannot be read safely"),
        (b"no checkpoint at all", "cannot be read safely"),
        (None, r"no checkpoint at .*file.pth; expected a PyTorch or safetensors file"),
    ],
)
def test_other_files_are_one_clear_line(model, tmp_path, content, message):
    path = tmp_path / "file.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=message) as raised:
        mmfusion.load_published(model, path)
    assert "\n" not in str(raised.value)


def test_another_object_is_named(model, tmp_path):
    path = tmp_path / "list.pth"
    torch.save([1, 2], path)
    with pytest.raises(ModelError, match=r"list.pth holds a list; expected a state dict"):
        mmfusion.load_published(model, path)
    with pytest.raises(ModelError, match="these weights: 'epoch' is a int; expected"):
        mmfusion.load_published(model, {"epoch": 1})


def test_keys_must_be_names(model, tmp_path):
    path = tmp_path / "numbers.pth"
    torch.save({1: torch.zeros(2)}, path)
    with pytest.raises(ModelError, match=r"numbers.pth: 1 is a Tensor; expected tensors by name"):
        mmfusion.load_published(model, path)


@pytest.mark.parametrize("name", ["haf_mobilenetv3_small", "efficientmfd_tiny", "s4fusion_tiny"])
def test_a_foreign_checkpoint_is_refused_however_loosely_it_is_read(name):
    network = mmfusion.create_model(name)
    with pytest.raises(ModelError, match=r"not a published .* checkpoint for this model"):
        mmfusion.load_published(network, {"foo": torch.zeros(3)}, strict=False)


def test_a_partial_checkpoint_loads_only_when_asked_for(weights, model):
    first, *rest = sorted(weights)
    partial = {key: weights[key] for key in rest} | {"head.weight": torch.zeros(2)}
    with pytest.raises(ModelError, match=f"missing {first}; unexpected head.weight"):
        mmfusion.load_published(model, partial)
    report = mmfusion.load_published(model, partial, strict=False)
    assert report.missing == (first,)
    assert report.unexpected == ("head.weight",)
    assert torch.equal(model.state_dict()[rest[0]], weights[rest[0]])


def test_weights_of_another_network_are_refused_even_then(model):
    other = {"conv.weight": np.zeros((3, 3), np.float32)}
    with pytest.raises(ModelError, match="not a published S4Fusion checkpoint for this model"):
        mmfusion.load_published(model, other, strict=False)
    wrong = {key: value[..., None] for key, value in model.state_dict().items()}
    with pytest.raises(ModelError, match=r"is \(.*\), expected \("):
        mmfusion.load_published(model, wrong, strict=False)


@pytest.mark.parametrize("name", ["haf_mobilenetv3_small", "efficientmfd_tiny", "s4fusion_tiny"])
def test_weights_of_one_system_do_not_load_into_another(name):
    model = mmfusion.create_model(name)
    others = [
        n for n in ("haf_mobilenetv3_small", "efficientmfd_tiny", "s4fusion_tiny") if n != name
    ]
    for other in others:
        with pytest.raises(ModelError, match="not a published") as raised:
            mmfusion.load_published(model, mmfusion.create_model(other).state_dict())
        assert "\n" not in str(raised.value)


def test_every_preset_is_of_one_role():
    by_role = [list_models(role) for role in Role]
    assert sorted(name for names in by_role for name in names) == list_models()
    assert all(family.presets for family in FAMILIES)
