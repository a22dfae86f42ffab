"""S4Fusion: equal to the published network, any size, every preset."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import mmfusion
from mmfusion.errors import ModelError
from mmfusion.s4fusion.config import S4FusionConfig
from mmfusion.s4fusion.network import S4Fusion, padding

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def golden(shared_dir):
    return np.load(shared_dir / "goldens" / "s4fusion.npz")


@pytest.fixture(scope="module")
def state(shared_dir, fill):
    return fill.draw_state_dict(shared_dir / "goldens" / "s4fusion.layout.json", 1)


@pytest.fixture(scope="module")
def published(state):
    model = mmfusion.create_model("s4fusion").eval()
    mmfusion.load_published(model, state)
    return model


@pytest.fixture(scope="module")
def pair(fill, golden):
    images = [torch.from_numpy(fill.draw_image(n, (1, 1, 97, 133), 1)) for n in ("ir", "vi")]
    for name, image in zip(("ir", "vi"), images, strict=True):
        np.testing.assert_array_equal(image.flatten()[:8], golden[f"{name}.first8"])
    return images


def test_equals_the_golden(published, pair, golden):
    with torch.inference_mode():
        fused = published(*pair)
    assert np.abs(fused.numpy() - golden["fused"]).max() < 5e-5


def test_every_stage_equals_the_golden(published, pair, golden):
    stages = {
        "patch_embed_x": published.embed_infrared,
        "patch_embed_y": published.embed_visible,
        "layers_x.0": published.encoder_infrared[0].merge,
        "layers_y.1": published.encoder_visible[1].merge,
        "fusion_layers.1": published.fusion["1"],
        "fusion_layers.2": published.fusion["2"],
        "layers_up.0": published.decoder[0],
        "layers_up.2": published.decoder[2],
    }
    seen = {}
    hooks = [
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
        for name, module in stages.items()
    ]
    with torch.inference_mode():
        published(*pair)
    for hook in hooks:
        hook.remove()
    for name, output in seen.items():
        np.testing.assert_allclose(output.flatten()[:8], golden[f"{name}.first8"], atol=5e-5)
        assert abs(output.mean().item() - golden[f"{name}.mean"]) < 1e-5
        assert abs(output.std(correction=0).item() - golden[f"{name}.std"]) < 1e-5
    assert seen.keys() == stages.keys()


def test_parameter_counts_of_the_published_network():
    model = mmfusion.create_model("s4fusion")
    assert sum(p.numel() for p in model.parameters()) == 3_562_981
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 3_410_893


def test_the_dead_layer_never_runs(published, pair):
    def fail(*_):
        raise AssertionError("the fusion layer of level 0 ran")

    hook = published.fusion["0"].register_forward_pre_hook(fail)
    with torch.inference_mode():
        published(*pair)
    hook.remove()


def test_every_trainable_parameter_gets_a_gradient():
    model = mmfusion.create_model("s4fusion_tiny")
    model(torch.rand(1, 1, 37, 25), torch.rand(1, 1, 37, 25)).square().mean().backward()
    idle = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == []


class TestLoadPublished:
    def test_takes_the_checkpoint_wrapper(self, state):
        mmfusion.load_published(mmfusion.create_model("s4fusion"), {"model": state})

    def test_refuses_a_checkpoint_that_does_not_fit_and_loads_nothing(self, state):
        model = mmfusion.create_model("s4fusion")
        before = {key: value.clone() for key, value in model.state_dict().items()}
        broken = dict(state)
        del broken["vmunet.final_conv.bias"]
        with pytest.raises(ModelError, match=r"missing tail\.conv\.bias"):
            mmfusion.load_published(model, broken)
        with pytest.raises(ModelError, match="unexpected head"):
            mmfusion.load_published(model, {**state, "head.weight": np.zeros(3)})
        wrong = {**state, "vmunet.final_conv.bias": np.zeros(2, np.float32)}
        with pytest.raises(ModelError, match=r"tail\.conv\.bias is \(2,\), expected \(1,\)"):
            mmfusion.load_published(model, wrong)
        assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())

    def test_refuses_a_model_without_a_published_layout(self):
        with pytest.raises(ModelError, match="Linear has no published"):
            mmfusion.load_published(torch.nn.Linear(1, 1), {})


@pytest.mark.parametrize(
    ("side", "expected"),
    [(480, (0, 1)), (640, (4, 5)), (512, (2, 3)), (768, (0, 1)), (1024, (4, 5)), (720, (0, 1)),
     (1280, (2, 3)), (229, (0, 0)), (13, (0, 0)), (1, (6, 6))],
)  # fmt: skip
def test_padding_is_the_published_rule(side, expected):
    assert padding(side) == expected


@pytest.mark.parametrize("size", [(1, 1), (13, 13), (20, 31), (97, 133)])
def test_any_size_keeps_its_size(size):
    model = S4Fusion(S4FusionConfig(16, (1, 1, 1), 2, 2, 1)).eval()
    with torch.inference_mode():
        assert model(torch.rand(2, 1, *size), torch.rand(2, 1, *size)).shape == (2, 1, *size)


def test_images_of_a_batch_do_not_mix():
    model = mmfusion.create_model("s4fusion_tiny").eval()
    infrared, visible = torch.rand(3, 1, 25, 37), torch.rand(3, 1, 25, 37)
    with torch.inference_mode():
        together = model(infrared, visible)
        alone = model(infrared[1:2], visible[1:2])
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-5)


def test_wrong_inputs_and_names_are_refused():
    model = mmfusion.create_model("s4fusion_tiny")
    with pytest.raises(ValueError, match="one shape"):
        model(torch.rand(1, 1, 20, 20), torch.rand(1, 1, 20, 21))
    with pytest.raises(ValueError, match="one shape"):
        model(torch.rand(1, 3, 20, 20), torch.rand(1, 3, 20, 20))
    with pytest.raises(ModelError, match=r"unknown model 's5'.*s4fusion_tiny"):
        mmfusion.create_model("s5")


def test_runs_under_mixed_precision_with_the_scan_in_float32():
    model = mmfusion.create_model("s4fusion_tiny").eval()
    images = torch.rand(1, 1, 37, 37), torch.rand(1, 1, 37, 37)
    with torch.inference_mode():
        exact = model(*images)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = model(*images)
    assert (mixed.float() - exact).abs().max() < 0.05 * exact.abs().max()
