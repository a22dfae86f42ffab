"""A fusion network run small, its weights applied at full size."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import mmfusion
from mmfusion.errors import ExportError
from mmfusion.graph.luma_fusion import LumaFusion
from mmfusion.layers.scaling import enlarge, shrink
from mmfusion.s4fusion.blend import blend

pytestmark = pytest.mark.torch


@pytest.fixture
def network():
    torch.manual_seed(0)
    return mmfusion.create_model("s4fusion_tiny").eval()


def test_at_full_size_it_is_the_network(network):
    pair = torch.rand(1, 1, 26, 38), torch.rand(1, 1, 26, 38)
    with torch.inference_mode():
        fused = LumaFusion(network)(*pair)
        assert torch.equal(fused, network(*pair))
        assert network.config.detail
        log_odds = network.log_odds(*pair)
    assert torch.equal(fused, blend(log_odds, *pair, network.config.detail))


@pytest.mark.parametrize("size", [(26, 38), (27, 41)])
def test_run_small_it_keeps_the_detail_of_its_sources(network, size):
    infrared, luma = torch.rand(1, 1, *size), torch.rand(1, 1, *size)
    with torch.inference_mode():
        fused = LumaFusion(network, 2)(infrared, luma)
        small = (shrink(infrared, 2), shrink(luma, 2))
        log_odds = enlarge(network.log_odds(*small), 2, *size)
    assert torch.equal(fused, blend(log_odds, infrared, luma, network.config.detail))


@pytest.mark.parametrize("scale", [1, 2])
def test_in_training_log_odds_alone_decide(network, scale):
    pair = torch.rand(1, 1, 26, 38), torch.rand(1, 1, 26, 38)
    small = [shrink(picture, scale) for picture in pair]
    with torch.inference_mode():
        fused = LumaFusion(network.train(), scale)(*pair)
        log_odds = network.log_odds(*small)
        log_odds = log_odds if scale == 1 else enlarge(log_odds, scale, 26, 38)
    assert torch.equal(fused, blend(log_odds, *pair, 0))


def test_equal_pictures_stay_as_they_are(network):
    picture = torch.rand(1, 1, 30, 30)
    with torch.inference_mode():
        torch.testing.assert_close(LumaFusion(network, 2)(picture, picture), picture)


def test_a_network_that_does_not_blend_cannot_run_small():
    with pytest.raises(ExportError, match="fusion_scale 2 needs a network that blends"):
        LumaFusion(mmfusion.create_model("s4fusion"), 2)
