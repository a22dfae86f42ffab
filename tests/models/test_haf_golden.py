"""HAF as published: every stage equals the recorded one, with the weights both were given."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import mmfusion
from mmfusion.haf.config import PRESETS
from mmfusion.haf.deploy import HAFDeploy
from mmfusion.haf.network import HAF
from mmfusion.haf.published import to_own_names
from mmfusion.layers.spectral import correlate

pytestmark = pytest.mark.torch

_LEVELS = range(1, 5)
_LIMITS = {
    **{f"in_{stream}": 1e-6 for stream in ("rgb", "depth")},
    **{f"{stream}_stage{i}": 5e-6 for stream in ("rgb", "depth") for i in range(4)},
    **{f"{stream}{k}_con": 2e-5 for stream in "rd" for k in _LEVELS},
    **{f"{name}_{k}": 1e-5 for name in ("F_main", "F_aux", "xf") for k in _LEVELS},
    **{f"df_{k}": 3e-5 for k in _LEVELS},
}
_LOGIT_LIMIT, _LOGIT_LIMIT_L2 = 1e-4, 2e-5


@pytest.fixture(scope="module")
def golden(shared_dir):
    return np.load(shared_dir / "goldens" / "haf.npz")


@pytest.fixture(scope="module")
def state(shared_dir, fill):
    drawn = fill.draw_state_dict(shared_dir / "goldens" / "haf.layout.json", 1)
    return {key: torch.as_tensor(value) for key, value in drawn.items()}


@pytest.fixture(scope="module")
def model(state):
    model = HAF(PRESETS["haf_swin_base"]).eval()
    mmfusion.load_published(model, state)
    return model


@pytest.fixture(scope="module")
def pair(fill):
    rgb = torch.from_numpy(fill.draw_image("rgb", (1, 3, 384, 384), 1))
    mean, deviation = torch.tensor([(0.485, 0.456, 0.406), (0.229, 0.224, 0.225)])[..., None, None]
    depth = torch.from_numpy(fill.draw_image("depth", (1, 1, 384, 384), 1))
    return (rgb - mean) / deviation, depth


@pytest.fixture(scope="module")
def stages(model, pair):
    """All recorded stages of one forward pass, by their recorded names."""
    seen = {"in_rgb": pair[0], "in_depth": pair[1].expand(-1, 3, -1, -1)}
    streams = iter("rd")  # the order in which the neck sees them

    def keep(names):
        return lambda _module, _inputs, outputs: seen.update(zip(names(), outputs, strict=True))

    def keep_fusion(level):
        def hook(block, inputs, output):
            auxiliary, primary = inputs
            query, response = block.query(auxiliary), block.correlation.response
            seen[f"F_main_{level}"] = correlate(query, block.primary_key(primary), response)
            seen[f"F_aux_{level}"] = correlate(query, block.auxiliary_key(auxiliary), response)
            seen[f"xf_{level}"] = output

        return hook

    def neck_names():
        stream = next(streams)
        return [f"{stream}{k}_con" for k in _LEVELS]

    hooks = [
        model.rgb_backbone.register_forward_hook(keep(lambda: [f"rgb_stage{i}" for i in range(4)])),
        model.depth_backbone.register_forward_hook(
            keep(lambda: [f"depth_stage{i}" for i in range(4)])
        ),
        model.neck.register_forward_hook(keep(neck_names)),
        model.decoder.register_forward_hook(keep(lambda: [f"df_{k}" for k in _LEVELS])),
    ]
    hooks += [
        block.register_forward_hook(keep_fusion(level))
        for level, block in enumerate(model.fusion, start=1)
    ]
    with torch.inference_mode():
        logits = model(*pair)
    for hook in hooks:
        hook.remove()
    seen.update(zip(("y1", "y2", "y3", "y4"), logits, strict=True))
    return seen


def test_weights_are_the_recorded_ones(state, golden):
    sums = np.zeros(2)
    for value in state.values():
        flat = value.numpy().astype(np.float64).ravel()
        sums += flat.sum(), flat @ flat
    np.testing.assert_allclose(sums, golden["weights_sum"], rtol=1e-6)


@pytest.mark.parametrize("name", _LIMITS)
def test_stage_equals_the_golden(stages, golden, name):
    limit = _LIMITS[name]
    assert stages[name].shape == tuple(golden[f"shape_{name}"])
    flat = stages[name].reshape(-1).double().numpy()
    sample, expected = (
        flat[[i * (flat.size - 1) // 63 for i in range(64)]],
        golden[f"sample_{name}"],
    )
    assert np.abs(sample - expected).max() <= limit * np.abs(expected).max()
    check = golden[f"check_{name}"]
    values = np.array([flat.mean(), flat.std(), *flat[:8]])
    assert np.abs(values - check).max() <= limit * check[1]


def test_every_recorded_stage_is_compared(golden):
    recorded = {key.removeprefix("sample_") for key in golden.files if key.startswith("sample_")}
    unused = {"rgb_unused_last", "depth_unused_last"}
    assert recorded - unused == _LIMITS.keys()


@pytest.mark.parametrize("name", ["y1", "y2", "y3", "y4"])
def test_logits_equal_the_golden(stages, golden, name):
    y = stages[name].numpy()
    expected = golden["y1"] if name == "y1" else golden[f"{name}_s8"]
    y = y if name == "y1" else y[..., ::8, ::8]
    difference = y - expected
    assert np.abs(difference).max() <= _LOGIT_LIMIT * np.abs(expected).max()
    assert np.linalg.norm(difference) <= _LOGIT_LIMIT_L2 * np.linalg.norm(expected)


def test_the_form_for_engines_equals_the_golden(model, pair, golden):
    with torch.inference_mode():
        y = HAFDeploy(model, (384, 384))(*pair).numpy()
    assert np.abs(y - golden["y1"]).max() <= _LOGIT_LIMIT * np.abs(golden["y1"]).max()


def test_the_form_for_engines_at_a_size_that_needs_padded_windows(model, pair):
    rgb, depth = (image[..., :160, :224] for image in pair)
    with torch.inference_mode():
        expected = model(rgb, depth)[0]
        y = HAFDeploy(model, (160, 224))(rgb, depth)
    assert (y - expected).abs().max() <= _LOGIT_LIMIT * expected.abs().max()


def test_only_live_parameters_are_held(model):
    assert sum(p.numel() for p in model.parameters()) == 170_104_696


def weights(model):
    """What a checkpoint must hold: all but the counters of batches."""
    own = model.state_dict()
    return {key: value for key, value in own.items() if not key.endswith("num_batches_tracked")}


class TestPublishedNames:
    def test_names_the_keys_of_no_use(self, state, model):
        derived = {
            "rgb_swin.layers.0.blocks.1.attn_mask": torch.zeros(1),
            "depth_swin.layers.3.blocks.0.attn.relative_position_index": torch.zeros(1),
            "dwc1.1.num_batches_tracked": torch.tensor(5),
        }
        renamed, unused = to_own_names({**state, **derived}, model)
        assert renamed.keys() == weights(model).keys()
        assert derived.keys() <= set(unused)
        dead = state.keys() & set(unused)
        assert {key.split(".")[0] for key in dead} == {
            "rgb_swin", "depth_swin", "conv43", "conv32", "conv21",
            *(f"CA_SA_Enhance_{k}" for k in _LEVELS),
        }  # fmt: skip
        # In whole tensors; with the rows and columns that are cut off, 62,230,016.
        rest = sum(
            3 * c * c + 32 * 32 for c in PRESETS["haf_swin_base"].widths
        )  # v of both streams, q of depth; momentum columns of the gate
        dead_numbers = sum(state[k].numel() for k in dead if ".running_" not in k)
        assert dead_numbers + rest == 62_230_016

    def test_takes_a_file_without_them(self, state, model):
        dead = set(to_own_names(state, model)[1])
        live = {key: value for key, value in state.items() if key not in dead}
        for level in _LEVELS:
            block = f"CA_SA_Enhance_{level}"
            rows = live[f"{block}.to_qkv_rgb.weight"].shape[1]
            live[f"{block}.to_qkv_rgb.weight"] = live[f"{block}.to_qkv_rgb.weight"][: 2 * rows]
            depth = live[f"{block}.to_qkv_depth.weight"]
            live[f"{block}.to_qkv_depth.weight"] = depth[rows : 2 * rows]
            gate = live[f"{block}.gate_mlp.0.weight"]
            live[f"{block}.gate_mlp.0.weight"] = gate[:, :32]
        renamed, unused = to_own_names(live, model)
        assert unused == []
        own = weights(model)
        assert renamed.keys() == own.keys()
        assert all(torch.equal(renamed[key], own[key]) for key in own)

    def test_hands_on_what_it_does_not_know(self, state, model):
        strange = {
            "head.weight": torch.zeros(2),
            "CA_SA_Enhance_5.alpha_aux": torch.zeros(()),
            "CA_SA_Enhance_1.to_qkv_rgb.weight": torch.zeros(7, 5),
            "CA_SA_Enhance_1.to_qkv_depth.weight": torch.zeros(()),
            "CA_SA_Enhance_1.fft_attn.freq_response": torch.zeros(3),
        }
        renamed, _ = to_own_names({**state, **strange}, model)
        assert renamed.keys() - model.state_dict().keys() == {
            "head.weight", "CA_SA_Enhance_5.alpha_aux",
        }  # fmt: skip
        assert renamed["fusion.0.query.weight"].shape == (7, 5)
        assert renamed["fusion.0.correlation.response"].shape == (3,)
        assert "fusion.0.auxiliary_key.weight" not in renamed
