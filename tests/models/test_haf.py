"""HAF: every preset and size, what its blocks compute, and its form for engines."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import timm
from timm.models.swin_transformer import swin_tiny_patch4_window7_224
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmfusion.errors import ModelError
from mmfusion.haf.backbone import SwinStream, window_mask
from mmfusion.haf.config import PRESETS, HAFConfig
from mmfusion.haf.deploy import HAFDeploy
from mmfusion.haf.fusion_block import FusionBlock
from mmfusion.haf.network import HAF, fuse
from mmfusion.haf.relief import Relief
from mmfusion.layers.spectral import correlate

pytestmark = pytest.mark.torch

LIGHT = "haf_mobilenetv3_small"


@timm.models.register_model
def swin_tests_only(pretrained=False, **kwargs):
    """A Swin of the published structure that builds in no time; windows of 4 tokens."""
    shape = {"img_size": 64, "embed_dim": 16, "num_heads": (1, 2, 4, 8), "window_size": 4}
    return swin_tiny_patch4_window7_224(pretrained, depths=(2, 2, 2, 2), **shape, **kwargs)


SWIN = HAFConfig(
    backbone="swin_tests_only",
    input_size=(64, 64),
    widths=(64, 48, 32, 16),
    decoder_widths=(32, 24, 16, 8),
    saliency_width=8,
    head_channels=16,
)


def network(config, seed=0):
    """A network in which nothing is left at a value that would hide it."""
    torch.manual_seed(seed)
    model = HAF(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("response", "scale", "bias", "table")):
                parameter.add_(0.3 * torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand_like(buffer))
            elif name.endswith("running_mean"):
                buffer.copy_(0.3 * torch.randn_like(buffer))
    return model.eval()


def images(size, batch=1):
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(batch, 3, *size, generator=generator),
        torch.rand(batch, 1, *size, generator=generator),
    )


def error(values, reference):
    return ((values - reference).abs().max() / reference.abs().max()).item()


@pytest.fixture(scope="module")
def light():
    return network(PRESETS[LIGHT])


@pytest.fixture(scope="module")
def swin():
    return network(SWIN)


class TestNetwork:
    def test_the_light_preset_is_light(self, light):
        assert sum(p.numel() for p in light.parameters()) < 4e6
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            light(*images(light.config.input_size))
        assert counter.get_total_flops() / 2 < 0.7e9

    @pytest.mark.parametrize("preset", ["haf_resnet18", "haf_swin_tiny"])
    def test_presets_build_and_run(self, preset):
        model = HAF(PRESETS[preset]).eval()
        with torch.inference_mode():
            logits = model(*images((64, 96)))
        assert [y.shape for y in logits] == [(1, 1, 64, 96)] * 4
        assert all(torch.isfinite(y).all() for y in logits)

    @pytest.mark.parametrize("size", [(1, 1), (32, 32), (33, 70), (160, 64)])
    @pytest.mark.parametrize("kind", ["light", "swin"])
    def test_any_size_keeps_its_size(self, request, kind, size):
        model = request.getfixturevalue(kind)
        with torch.inference_mode():
            logits = model(*images(size, batch=2))
        assert [y.shape for y in logits] == [(2, 1, *size)] * 4

    def test_odd_sizes_are_padded_by_their_edges(self, light):
        rgb, depth = images((50, 90))
        padded = [nn.functional.pad(x, (0, 6, 0, 14), mode="replicate") for x in (rgb, depth)]
        with torch.inference_mode():
            for y, expected in zip(light(rgb, depth), light(*padded), strict=True):
                assert torch.equal(y, expected[..., :50, :90])

    def test_depth_may_come_repeated(self, light):
        rgb, depth = images((64, 64))
        with torch.inference_mode():
            once, thrice = light(rgb, depth), light(rgb, depth.expand(-1, 3, -1, -1))
        assert all(torch.equal(*pair) for pair in zip(once, thrice, strict=True))

    def test_images_of_a_batch_do_not_mix(self, swin):
        rgb, depth = images((64, 96), batch=3)
        with torch.inference_mode():
            together, alone = swin(rgb, depth)[0], swin(rgb[1:2], depth[1:2])[0]
        assert error(together[1:2], alone) < 1e-4

    @pytest.mark.parametrize("config", [PRESETS[LIGHT], SWIN], ids=["light", "swin"])
    def test_every_parameter_gets_a_gradient(self, config):
        model = network(dataclasses.replace(config, steps=2, drop_path=0.0)).train()
        logits = model(*images((96, 128), batch=2))
        torch.stack([y.square().mean() for y in logits]).sum().backward()
        idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
        assert idle == []

    def test_trains_under_mixed_precision(self):
        model = HAF(PRESETS[LIGHT]).train()
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(*images((64, 64), batch=2))
        sum(y.float().mean() for y in logits).backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters())

    @pytest.mark.parametrize(
        ("rgb", "depth"),
        [((1, 1, 64, 64), (1, 1, 64, 64)), ((1, 3, 64, 64), (1, 2, 64, 64)),
         ((1, 3, 64, 64), (1, 1, 64, 32)), ((2, 3, 64, 64), (1, 1, 64, 64)),
         ((3, 64, 64), (1, 64, 64))],
    )  # fmt: skip
    def test_wrong_images_are_refused(self, light, rgb, depth):
        with pytest.raises(ModelError, match="one size"):
            light(torch.zeros(rgb), torch.zeros(depth))


class TestConfig:
    @pytest.mark.parametrize(
        ("change", "message"),
        [({"input_size": (384, 100)}, "multiples of 32"), ({"head_channels": 48}, "divisor"),
         ({"steps": 0}, "at least 1"), ({"primary": "thermal"}, "'rgb' or 'depth'"),
         ({"widths": (64, 32, 32)}, "4 each")],
    )  # fmt: skip
    def test_refuses_what_cannot_be_built(self, change, message):
        with pytest.raises(ModelError, match=message):
            dataclasses.replace(HAFConfig(), **change)

    @pytest.mark.parametrize(
        ("backbone", "message"),
        [("no_such_net", "unknown backbone 'no_such_net'; .* resnet18"),
         ("deit_tiny_patch16_224", r"strides \[16, .*expected \[4, 8, 16, 32\]; .* resnet18"),
         ("tf_efficientnet_lite0", r"mean \(0\.5, 0\.5, 0\.5\) .*ImageNet's, .* resnet18")],
    )  # fmt: skip
    def test_refuses_backbones_that_do_not_fit(self, backbone, message):
        with pytest.raises(ModelError, match=message):
            HAF(dataclasses.replace(PRESETS[LIGHT], backbone=backbone))


class TestFusionBlock:
    """Against the recurrence with both correlations written out."""

    @pytest.mark.parametrize("steps", [1, 2, 3])
    def test_is_the_published_recurrence(self, steps):
        torch.manual_seed(0)
        config = dataclasses.replace(SWIN, steps=steps, repulsion=0.3)
        block = FusionBlock(32, (6, 8), config)
        with torch.no_grad():
            block.correlation.response.add_(0.3 * torch.randn(6, 5))
        auxiliary, primary = torch.randn(2, 2, 32, 6, 8)
        response = block.correlation.response
        query = block.query(auxiliary)
        toward = correlate(query, block.primary_key(primary), response)
        away = correlate(query, block.auxiliary_key(auxiliary), response)
        first, second = block.gate[0], block.gate[2]
        q, p = query, torch.zeros_like(query)
        for _ in range(steps):
            force = (toward - q) + 0.3 * (q - away)
            gates = []
            for head in range(2):
                own = slice(16 * head, 16 * head + 16)
                seen = torch.cat((q[:, own], p[:, own]), dim=1) if steps > 1 else q[:, own]
                hidden = torch.einsum("oi,nihw->nohw", first.weight[..., 0, 0], seen)
                hidden = nn.functional.gelu(hidden + first.bias[:, None, None])
                gates.append(torch.einsum("oi,nihw->nohw", second.weight[..., 0, 0], hidden))
            g = torch.sigmoid(torch.cat(gates, dim=1) + second.bias.repeat(2)[:, None, None])
            p = (1 - g) * p + g * force
            q = q + p
        both = torch.cat((auxiliary + 0.8 * q, primary + 0.2 * q), dim=1)
        torch.testing.assert_close(
            block(auxiliary, primary), block.project(both), atol=1e-4, rtol=1e-4
        )

    def test_roles_decide_which_stream_asks(self):
        class Pair(nn.Module):
            def forward(self, auxiliary, primary):
                return auxiliary, primary

        blocks, levels = nn.ModuleList([Pair()]), (["rgb"], ["depth"])
        assert fuse(blocks, *levels, SWIN) == (("rgb", "depth"),)
        swapped = dataclasses.replace(SWIN, primary="rgb")
        assert fuse(blocks, *levels, swapped) == (("depth", "rgb"),)

    def test_the_preset_of_three_steps_differs_in_them_alone(self):
        assert PRESETS[f"{LIGHT}_t3"] == dataclasses.replace(PRESETS[LIGHT], steps=3)

    def test_each_step_of_the_preset_matters(self):
        """The same weights, moved fewer times, find something else."""
        model = network(PRESETS[f"{LIGHT}_t3"])
        pair = images((64, 64))
        fewer = HAF(dataclasses.replace(model.config, steps=2)).eval()
        fewer.load_state_dict(model.state_dict())
        with torch.inference_mode():
            assert error(fewer(*pair)[0], model(*pair)[0]) > 1e-2

    def test_a_gate_of_three_steps_sees_the_momentum(self):
        one, three = (HAF(PRESETS[name]).fusion[0].gate[0] for name in (LIGHT, f"{LIGHT}_t3"))
        assert three.in_channels == 2 * one.in_channels


class TestRelief:
    """A step of 0.02 is 4 cm at 0.8 m, within the range of 0.3 to 10 m."""

    def scene(self):
        """A slanted plane with a small box on it, (1, 1, 128, 128)."""
        depth = torch.linspace(0.2, 0.5, 128)[:, None].expand(128, 128).clone()
        depth[60:68, 60:68] += 0.02
        return depth[None, None]

    def test_what_stands_out_by_little_is_told_from_a_slant(self):
        depth, *reliefs = Relief()(self.scene())[0]
        assert torch.equal(depth, self.scene()[0, 0])
        for relief in reliefs:
            box, plane = relief[61:67, 61:67], relief[32:56, 32:96]
            assert box.min() > 2 * plane.abs().max()

    def test_the_wider_surroundings_show_the_larger_thing(self):
        depth = torch.zeros(1, 1, 128, 128)
        depth[..., 48:80, 48:80] = 0.02
        fine, coarse = Relief()(depth)[0, 1:, 63:65, 63:65]
        assert fine.abs().max() < 0.01
        assert coarse.min() > 0.05

    def test_flat_depth_has_none(self):
        assert not Relief()(torch.full((2, 1, 64, 96), 0.5))[:, 1:].any()

    def test_steps_keep_their_sign_and_are_bounded(self):
        relief = Relief()(torch.rand(1, 1, 64, 64).round())[:, 1:]
        assert relief.abs().max() <= 1
        assert relief.min() < -0.9
        assert relief.max() > 0.9

    def test_weights_of_the_other_kind_are_refused(self, light):
        plain = HAF(dataclasses.replace(light.config, relief=False))
        for model, other in ((light, plain), (plain, light)):
            with pytest.raises(RuntimeError, match=r"relief\.gain"):
                model.load_state_dict(other.state_dict())


class TestSwinStream:
    def test_maps_are_what_enters_each_stage(self, swin):
        stream = swin.rgb_backbone
        body = timm.create_model("swin_tests_only", num_classes=0).eval()
        load_body(body, stream)
        image = images((64, 64))[0]
        entering = [body.patch_embed(image)]
        x = body.layers[0](entering[0])
        for stage in body.layers[1:]:
            entering.append(stage.downsample(x))
            x = stage.blocks(entering[-1])
        with torch.inference_mode():
            for own, expected in zip(stream(image), entering, strict=True):
                torch.testing.assert_close(own, expected.permute(0, 3, 1, 2))

    @pytest.mark.parametrize(
        ("grid", "shift"),
        [
            ((8, 8), (2, 2)),
            ((9, 13), (2, 2)),
            ((9, 13), (0, 0)),
            ((3, 10), (0, 2)),
            ((4, 4), (0, 0)),
        ],
    )
    def test_masks_let_true_neighbours_alone_see_each_other(self, grid, shift):
        window = (4, 4)
        padded = [-(-side // 4) * 4 for side in grid]
        mask = window_mask(grid, window, shift)
        if mask is None:
            assert shift == (0, 0)
            assert list(grid) == padded
            return
        rolled = np.full((*padded, 2), -1)
        place = np.stack(np.meshgrid(*map(np.arange, grid), indexing="ij"), -1)
        rolled[: grid[0], : grid[1]] = np.roll(place, (-shift[0], -shift[1]), (0, 1))
        tiles = rolled.reshape(padded[0] // 4, 4, padded[1] // 4, 4, 2).swapaxes(1, 2)
        for tokens, seen in zip(tiles.reshape(-1, 16, 2), mask.numpy(), strict=True):
            real = tokens[:, 0] >= 0
            near = (np.abs(tokens[:, None] - tokens[None]) < 4).all(-1)
            assert ((seen == 0) == near)[real][:, real].all()
            assert (seen[real][:, ~real] == -100).all()

    def test_masks_are_swins_own_where_nothing_is_padded(self):
        body = timm.create_model("swin_tests_only", num_classes=0)
        block = body.layers[0].blocks[1]
        assert torch.equal(window_mask((16, 16), (4, 4), (2, 2)), block.attn_mask)

    def test_masks_made_while_inferring_serve_training(self):
        stream = SwinStream("swin_tests_only", 0.0)
        with torch.inference_mode():
            stream(torch.rand(1, 3, 96, 64))
        stream(torch.rand(1, 3, 96, 64))[-1].mean().backward()


def load_body(body, stream):
    """Give timm's Swin the weights of a stream."""
    own = stream.state_dict()
    for level in range(3):
        body.layers[level].blocks.load_state_dict(below(own, f"stages.{level}."))
        body.layers[level + 1].downsample.load_state_dict(below(own, f"merges.{level}."))
    body.patch_embed.load_state_dict(below(own, "embed."))


def below(state, prefix):
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}


class TestDeploy:
    @pytest.mark.parametrize("size", [(64, 64), (96, 160), (75, 100)])
    @pytest.mark.parametrize("kind", ["light", "swin"])
    def test_equals_the_network(self, request, kind, size):
        model = request.getfixturevalue(kind)
        pair = images(size, batch=2)
        with torch.inference_mode():
            expected = model(*pair)[0]
            assert error(HAFDeploy(model, size)(*pair), expected) < 2e-5

    @pytest.mark.parametrize(
        "change", [{"steps": 3}, {"primary": "rgb"}, {"relief": True}], ids=str
    )
    def test_equals_the_network_in_other_settings(self, change):
        model = network(dataclasses.replace(SWIN, **change))
        pair = images((64, 96))
        with torch.inference_mode():
            assert error(HAFDeploy(model, (64, 96))(*pair), model(*pair)[0]) < 2e-5

    def test_leaves_the_network_alone(self):
        model = network(PRESETS[LIGHT]).train()
        before = {key: value.clone() for key, value in model.state_dict().items()}
        deployed = HAFDeploy(model, (64, 64))
        assert model.training
        assert all(p.requires_grad for p in model.parameters())
        assert before.keys() == model.state_dict().keys()
        assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
        assert sum(p.numel() for p in deployed.parameters()) < sum(
            p.numel() for p in model.parameters()
        )

    @pytest.mark.export
    @pytest.mark.parametrize("kind", ["light", "swin"])
    def test_exports_without_fourier_transforms(self, request, kind):
        onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
        from mmfusion.export import onnx_model

        model, size = request.getfixturevalue(kind), (64, 96)
        rgb, depth = images(size)
        exported = onnx_model(HAFDeploy(model, size), {"rgb": rgb, "depth": depth}, ["y"])
        operators = Counter(node.op_type for node in exported.graph.node)
        assert not operators.keys() & {"DFT", "STFT", "ScatterND", "ScatterElements", "If", "Loop"}
        assert {node.domain for node in exported.graph.node} == {""}
        assert len(exported.functions) == 0
        session = onnxruntime.InferenceSession(
            exported.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        (y,) = session.run(None, {"rgb": rgb.numpy(), "depth": depth.numpy()})
        with torch.inference_mode():
            assert error(torch.from_numpy(y), model(rgb, depth)[0]) < 1e-4

    def test_a_run_on_shapes_alone_leaves_no_trace(self, swin):
        from torch._subclasses import FakeTensorMode

        deployed = HAFDeploy(swin, (64, 96))
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            assert deployed(*images((64, 96))).shape == (1, 1, 64, 96)
        with torch.inference_mode():
            assert torch.isfinite(deployed(*images((64, 96)))).all()

    def test_refuses_other_sizes(self, light):
        deployed = HAFDeploy(light, (64, 96))
        with pytest.raises(ModelError, match="build HAFDeploy for"):
            deployed(*images((96, 64)))
        with pytest.raises(ModelError, match="64, 96"):
            deployed(torch.zeros(1, 3, 64, 96), torch.zeros(1, 3, 64, 96))
        with pytest.raises(ModelError, match="height, width"):
            HAFDeploy(light, (0, 64))
