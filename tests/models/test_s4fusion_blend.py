"""One picture of two: smooth parts by the network's word, details by their own contrast too."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from mmfusion.s4fusion.blend import blend

pytestmark = pytest.mark.torch
SIDE = 64
INNER = (..., slice(16, -16), slice(16, -16))


def flat(level):
    return torch.full((1, 1, SIDE, SIDE), level)


def stripes(contrast):
    return contrast * (-1.0) ** torch.arange(SIDE).expand(1, 1, SIDE, SIDE)


def test_without_detail_it_lies_between_the_two_pictures():
    torch.manual_seed(0)
    log_odds, infrared, visible = (torch.rand(1, 1, 27, 41) for _ in range(3))
    fused = blend(log_odds, infrared, visible, 0)
    assert (fused <= torch.maximum(infrared, visible) + 1e-6).all()
    assert (fused >= torch.minimum(infrared, visible) - 1e-6).all()


@pytest.mark.parametrize("log_odds", [8.0, -8.0])
def test_level_follows_the_network_and_texture_the_picture_that_has_one(log_odds):
    textured, plain = flat(0.3) + stripes(0.1), flat(0.8)
    trusted = plain if log_odds > 0 else textured
    fused = blend(flat(log_odds), plain, textured, 8.0)[INNER]
    torch.testing.assert_close(fused.mean(), trusted.mean(), atol=0.02, rtol=0)
    torch.testing.assert_close(fused - fused.mean(), stripes(0.12)[INNER], atol=0.005, rtol=0)


def test_what_the_network_is_undecided_about_becomes_bright_where_it_is_warm():
    infrared, visible = flat(0.4), flat(0.1)
    infrared[..., : SIDE // 4, : SIDE // 4] = 0.9
    fused = blend(flat(0.0), infrared, visible, 8.0)
    warm, cold = fused[0, 0, 4, 4].item(), fused[0, 0, -4, -4].item()
    assert warm == pytest.approx(0.1 + 0.818 * 0.8, abs=0.02)  # log-odds of 1.5
    assert cold == pytest.approx(0.1 + 0.182 * 0.3, abs=0.02)


def test_what_infrared_darkens_is_left_to_the_network():
    infrared = flat(0.4)
    infrared[..., : SIDE // 4, : SIDE // 4] = 0.6
    torch.testing.assert_close(
        blend(flat(0.0), infrared, flat(0.8), 8.0)[..., -4, -4], torch.tensor([[0.6]])
    )


def test_where_luma_stands_in_for_thermal_nothing_counts_as_warm_or_cold():
    infrared, seen = flat(0.4), torch.ones(1, 1, SIDE, SIDE)
    seen[..., SIDE // 2 :] = 0
    fused = []
    for luma in (0.1, 0.9):
        visible = flat(0.2)
        visible[..., SIDE // 2 :] = luma
        infrared[..., SIDE // 2 :] = luma
        fused.append(blend(flat(0.0), infrared, visible, 8.0, seen)[..., : SIDE // 4])
    torch.testing.assert_close(*fused, atol=1e-4, rtol=0)


def test_pictures_of_a_batch_do_not_mix():
    torch.manual_seed(0)
    log_odds, infrared, visible = (torch.rand(2, 1, 40, 40) for _ in range(3))
    infrared[1] *= 0.3
    each = [
        blend(*parts, 8.0)
        for parts in zip(*(x.split(1) for x in (log_odds, infrared, visible)), strict=True)
    ]
    torch.testing.assert_close(blend(log_odds, infrared, visible, 8.0), torch.cat(each))


def test_of_textures_alike_the_network_chooses():
    infrared, visible = flat(0.5) + stripes(0.1), flat(0.5) - stripes(0.1)
    for log_odds, chosen in ((4.0, infrared), (-4.0, visible)):
        fused = blend(flat(log_odds), infrared, visible, 8.0)
        torch.testing.assert_close(fused[INNER], chosen[INNER], atol=0.01, rtol=0)


def test_the_edge_of_a_choice_is_as_soft_as_averages_over_a_block():
    log_odds = torch.full((1, 1, SIDE, SIDE), -6.5)  # by 8, but for the 1.5 of what is not warm
    log_odds[..., SIDE // 2 :] = 9.5
    fused = blend(log_odds, flat(0.8), flat(0.3), 8.0)[0, 0, SIDE // 2]
    wide = ((fused > 0.31) & (fused < 0.79)).sum().item()
    assert wide == 8  # of 16 pixels, those between the means of two blocks that differ
    assert (fused[8], fused[-9]) == (pytest.approx(0.3, abs=0.01), pytest.approx(0.8, abs=0.01))


@pytest.mark.parametrize(("period", "kept"), [(16, 1.0), (32, 0.5), (64, 0.3)])
def test_detail_is_what_averages_over_a_block_lose(period, kept):
    wave = 0.1 * torch.sin(2 * torch.pi / period * torch.arange(4 * SIDE)).expand(1, 1, SIDE, -1)
    plain = torch.full_like(wave, 0.8)
    fused = blend(torch.full_like(wave, 8.0), plain, 0.3 + wave, 8.0)[..., 16:-16, 64:-64]
    assert (fused.std() / (1.2 * wave.std())).item() == pytest.approx(kept, abs=0.05)


def test_noise_below_what_counts_is_no_texture():
    infrared, visible = flat(0.5) + stripes(1e-5), flat(0.5)
    both = [blend(flat(level), infrared, visible, 8.0) for level in (-4.0, 4.0)]
    assert both[0][INNER].std() < 1e-6 < both[1][INNER].std()


def test_equal_pictures_stay_as_they_are():
    picture = torch.rand(1, 1, 30, 30, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(blend(torch.randn_like(picture), picture, picture, 8.0), picture)
