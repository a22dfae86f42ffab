"""Pretrained weights of timm's networks, and backbones that start from them."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import timm
from safetensors.torch import save_file

from mmfusion.errors import ModelError
from mmfusion.registry import create_model
from mmfusion.timm_weights import copy_weights
from mmfusion.train.backbone_start import start_backbone
from mmfusion.train.pretrained import load_pretrained

pytestmark = pytest.mark.torch
SMALL = "test_resnet"


def whole_network(name, tmp_path):
    """A network of timm with statistics that no fresh one has, and a file of its weights."""
    torch.manual_seed(0)
    network = timm.create_model(name).eval()
    for key, value in network.state_dict().items():
        if key.endswith(("running_mean", "running_var")):
            value.uniform_(0.5, 1.5)
    path = tmp_path / f"{name}.safetensors"
    save_file(network.state_dict(), path)
    return network, path


def picture():
    return torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def renamed(tensors):
    """As another implementation might have it, which counts no batches."""
    kept = {key: value for key, value in tensors.items() if "num_batches" not in key}
    return {f"_{n}.{key.rpartition('.')[2]}": value for n, (key, value) in enumerate(kept.items())}


def test_names_of_another_implementation_do_not_matter(tmp_path):
    network, own = whole_network(SMALL, tmp_path)
    other = tmp_path / "other.pth"
    torch.save(renamed(network.state_dict()), other)
    loaded = load_pretrained(SMALL, other)
    assert loaded.weights == other
    assert loaded.sha256 != load_pretrained(SMALL, own).sha256
    assert torch.equal(loaded.network.eval()(picture()), network(picture()))


def test_another_order_is_refused(tmp_path):
    network, _ = whole_network(SMALL, tmp_path)
    tensors = renamed(network.state_dict())
    backwards = dict(reversed(tensors.items()))
    torch.save(backwards, tmp_path / "other.pth")
    with pytest.raises(ModelError, match=r"other\.pth does not fit test_resnet"):
        load_pretrained(SMALL, tmp_path / "other.pth")


@pytest.mark.parametrize("model", ["efficientmfd_tiny", "efficientmfd_r18", "efficientmfd_lite0"])
def test_a_detector_sees_what_its_backbone_saw(model, tmp_path):
    network = create_model(model)
    whole, path = whole_network(network.config.backbone, tmp_path)
    facts = start_backbone(network, str(path))
    expected = whole.forward_intermediates(picture(), intermediates_only=True)[-4:]
    found = network.eval().features.body(picture())
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs)
    assert facts == {"backbone_sha256": load_pretrained(network.config.backbone, path).sha256}


@pytest.mark.parametrize("model", ["haf_mobilenetv3_small", "haf_resnet18"])
def test_both_streams_see_what_their_backbone_saw(model, tmp_path):
    network = create_model(model).eval()
    whole, path = whole_network(network.config.backbone, tmp_path)
    start_backbone(network, str(path))
    expected = whole.forward_intermediates(picture(), intermediates_only=True)[-4:]
    for stream in (network.rgb_backbone, network.depth_backbone):
        for mine, theirs in zip(stream(picture()), expected, strict=True):
            torch.testing.assert_close(mine, theirs)


def test_a_swin_of_timm_fits_both_streams(tmp_path):
    network = create_model("haf_swin_tiny").eval()
    whole, path = whole_network(network.config.backbone, tmp_path)
    start_backbone(network, str(path))
    x = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    tokens = whole.patch_embed(x)
    for stage in whole.layers[:-1]:
        tokens = stage(tokens)
    tokens = whole.layers[-1].downsample(tokens)
    for stream in (network.rgb_backbone, network.depth_backbone):
        torch.testing.assert_close(stream(x)[-1].permute(0, 2, 3, 1), tokens)


def test_each_backbone_has_its_own_colours():
    assert create_model("efficientmfd_lite0").mean.flatten().tolist() == [127.5, 127.5, 127.5]
    published = create_model("efficientmfd_r18").mean.flatten()
    torch.testing.assert_close(published, torch.tensor([123.675, 116.28, 103.53]))


def test_none_leaves_the_backbone_fresh():
    torch.manual_seed(0)
    network = create_model("efficientmfd_tiny")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    assert start_backbone(network, "none") == {}
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_a_backbone_that_is_kept_as_it_is_must_not_be_fresh():
    with pytest.raises(ModelError, match=r"'none', but .* of resnet18 as they are; .*--initial"):
        start_backbone(create_model("efficientmfd_r18"), "none")


@pytest.mark.parametrize("name", ["resnet_fifty", "resnet18.no_tag"])
def test_wrong_names_are_told(tmp_path, name):
    _, path = whole_network(SMALL, tmp_path)
    with pytest.raises(ModelError, match=f"timm has no .*'{name}'"):
        load_pretrained(name, path)


def test_weights_that_are_missing_or_of_another_network_are_told(tmp_path):
    network = create_model("efficientmfd_tiny")
    told = r"'cathced', which is no file; .* weights of mobilenetv3_small_100, 'cached' or 'none'"
    with pytest.raises(ModelError, match=told):
        start_backbone(network, "cathced")
    _, path = whole_network(SMALL, tmp_path)
    with pytest.raises(ModelError, match=r"does not fit mobilenetv3_small_100"):
        start_backbone(network, str(path))


def test_a_backbone_with_names_of_its_own_is_told():
    whole = timm.create_model("twins_pcpvt_small")
    extractor = timm.create_model("twins_pcpvt_small", features_only=True)
    message = r"backbone's model\.patch_embeds\.0\.proj\.weight has no weight .*fresh \(none\)"
    with pytest.raises(ModelError, match=message):
        copy_weights(extractor, whole)
