"""A fusion network run small, its weights applied at full size."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import mmfusion
from mmfusion.errors import ExportError
from mmfusion.graph.luma_fusion import LumaFusion
from mmfusion.layers.scaling import enlarge, shrink
from mmfusion.s4fusion.blend import blend
from mmfusion.s4fusion.config import S4FusionConfig
from mmfusion.s4fusion.network import S4Fusion

pytestmark = pytest.mark.torch


@pytest.fixture
def network():
    torch.manual_seed(0)
    return mmfusion.create_model("s4fusion_tiny").eval()


def log_odds_of(network, pair, scale):
    """What a network says of pictures that it sees smaller, at their own size."""
    if scale == 1:
        return network(*pair)
    small = [shrink(picture, scale) for picture in pair]
    return enlarge(network(*small), scale, *pair[0].shape[-2:])


def test_a_network_that_does_not_blend_gives_the_picture():
    network = S4Fusion(S4FusionConfig(16, (1, 1, 1), 2, 2, 1))
    pair = torch.rand(1, 1, 26, 38), torch.rand(1, 1, 26, 38)
    with torch.inference_mode():
        assert torch.equal(LumaFusion(network)(*pair), network(*pair))


@pytest.mark.parametrize("size", [(26, 38), (27, 41)])
@pytest.mark.parametrize("scale", [1, 2])
def test_log_odds_are_applied_to_the_full_pictures(network, scale, size):
    pair = torch.rand(1, 1, *size), torch.rand(1, 1, *size)
    detail = network.config.detail
    assert detail
    with torch.inference_mode():
        fused = LumaFusion(network, scale)(*pair)
        log_odds = log_odds_of(network, pair, scale)
    assert torch.equal(fused, blend(log_odds, *pair, detail))


@pytest.mark.parametrize("scale", [1, 2])
def test_in_training_log_odds_alone_decide(network, scale):
    pair = torch.rand(1, 1, 26, 38), torch.rand(1, 1, 26, 38)
    with torch.inference_mode():
        fused = LumaFusion(network.train(), scale)(*pair)
        log_odds = log_odds_of(network, pair, scale)
    assert torch.equal(fused, blend(log_odds, *pair, 0))


def test_the_blend_is_told_where_thermal_sees(network):
    pair = torch.rand(1, 1, 26, 38), torch.rand(1, 1, 26, 38)
    seen = torch.ones(1, 1, 26, 38)
    seen[..., 20:] = 0
    with torch.inference_mode():
        fused = LumaFusion(network)(*pair, seen)
        expected = blend(network(*pair), *pair, network.config.detail, seen)
        assert torch.equal(fused, expected)
        assert not torch.equal(fused, LumaFusion(network)(*pair))


def test_equal_pictures_stay_as_they_are(network):
    picture = torch.rand(1, 1, 30, 30)
    with torch.inference_mode():
        torch.testing.assert_close(LumaFusion(network, 2)(picture, picture), picture)


def test_a_network_that_does_not_blend_cannot_run_small():
    with pytest.raises(ExportError, match="fusion_scale 2 needs a network that blends"):
        LumaFusion(mmfusion.create_model("s4fusion"), 2)
