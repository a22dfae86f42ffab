"""The classifier behind S4Fusion's loss: frozen, and never without real weights."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import timm
from huggingface_hub import constants
from safetensors.torch import save_file

from mmfusion.errors import ModelError
from mmfusion.train.classifier import DEFAULT_CLASSIFIER, Classifier

pytestmark = pytest.mark.torch
SMALL = "test_resnet"  # of timm, with statistics of its own: mean and deviation 1/2


@pytest.fixture(scope="module")
def pretrained():
    torch.manual_seed(0)
    return timm.create_model(SMALL).state_dict()


@pytest.fixture
def weights(pretrained, tmp_path):
    save_file(pretrained, tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


@pytest.fixture
def caches(tmp_path, monkeypatch):
    """Empty caches of both kinds, and no way out."""

    def refuse(*args, **kwargs):
        raise AssertionError("nothing may be fetched")

    for name in ("hub", "torch"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "torch"))
    monkeypatch.setattr("socket.socket.connect", refuse)
    return tmp_path


def images(side=40, batch=2):
    return torch.rand(batch, 1, side, side, generator=torch.Generator().manual_seed(1))


def test_stages_and_logits_are_those_of_the_network(weights, pretrained):
    classifier = Classifier(SMALL, weights)
    network = timm.create_model(SMALL).eval()
    network.load_state_dict(pretrained)
    x = (images().expand(-1, 3, -1, -1) - 0.5) / 0.5
    with torch.no_grad():
        expected = network.maxpool(network.act1(network.bn1(network.conv1(x))))
        stages = classifier.stages(images())
        assert len(stages) == 4
        for index, stage in enumerate(stages):
            expected = getattr(network, f"layer{index + 1}")(expected)
            torch.testing.assert_close(stage, expected)
        torch.testing.assert_close(classifier(images()), network(x))


def test_it_is_frozen_but_lets_gradients_through(weights):
    classifier = torch.nn.Sequential(Classifier(SMALL, weights)).train()[0]
    assert not any(module.training for module in classifier.modules())
    before = {key: value.clone() for key, value in classifier.state_dict().items()}
    x = images().requires_grad_()
    classifier(x).square().sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(p.grad is None and not p.requires_grad for p in classifier.parameters())
    assert all(torch.equal(before[key], v) for key, v in classifier.state_dict().items())


def test_pytorch_files_are_read_and_their_origin_kept(weights, pretrained, tmp_path):
    torch.save({"state_dict": pretrained}, tmp_path / "weights.pth")
    other, own = Classifier(SMALL, tmp_path / "weights.pth"), Classifier(SMALL, weights)
    assert (own.name, own.weights, len(own.sha256)) == (SMALL, weights, 64)
    assert other.sha256 != own.sha256
    with torch.no_grad():
        assert torch.equal(own(images()), other(images()))


def test_earlier_downloads_are_found(caches, pretrained):
    repository = caches / "hub" / "models--timm--test_resnet.r160_in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    snapshot = repository / "snapshots" / "abc" / "model.safetensors"
    snapshot.parent.mkdir(parents=True)
    save_file(pretrained, snapshot)
    assert Classifier(SMALL).weights == snapshot


def test_downloads_of_pytorch_are_found(caches):
    torch.manual_seed(0)
    file = caches / "torch" / "checkpoints" / "resnet18-f37072fd.pth"
    file.parent.mkdir()
    torch.save(timm.create_model("resnet18").state_dict(), file)
    assert Classifier("resnet18.tv_in1k").weights == file


def test_without_weights_there_is_no_classifier(caches):
    with pytest.raises(ModelError) as error:
        Classifier()
    message = str(error.value)
    assert message.startswith(f"no weights of {DEFAULT_CLASSIFIER}; looked for ")
    assert f"timm/resnet50.tv_in1k in {caches / 'hub'}" in message
    assert str(caches / "torch" / "checkpoints" / "resnet50-0676ba61.pth") in message
    assert "hf download timm/resnet50.tv_in1k model.safetensors" in message
    assert message.endswith("(classifier_weights), or do without (classifier: none)")


def test_files_that_do_not_fit_are_refused(caches, pretrained):
    path = caches / "file.safetensors"
    with pytest.raises(ModelError, match=r"no checkpoint at .*file.safetensors"):
        Classifier(SMALL, path)
    save_file({}, path)
    with pytest.raises(ModelError, match=r"file.safetensors holds no tensors"):
        Classifier(SMALL, path)
    save_file({k: v for k, v in pretrained.items() if k != "fc.bias"}, path)
    with pytest.raises(ModelError, match=r'does not fit .*test_resnet: Missing key.*"fc.bias"'):
        Classifier(SMALL, path)
    save_file(pretrained | {"fc.bias": torch.zeros(7)}, path)
    with pytest.raises(ModelError, match=r"size mismatch for fc.bias"):
        Classifier(SMALL, path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet_fifty", "timm has no model 'resnet_fifty'; expected a name such as"),
        ("resnet18.no_tag", "no weights by the tag of 'resnet18.no_tag'"),
        ("test_vit", "has no four stages of features for pictures of any size"),
        ("swin_tiny_patch4_window7_224", "pictures of any size"),
    ],
)
def test_other_models_are_refused(caches, name, message):
    with pytest.raises(ModelError, match=message):
        Classifier(name)
