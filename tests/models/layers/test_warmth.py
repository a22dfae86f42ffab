"""What stands out as warm: by hand."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from mmfusion.layers.warmth import warmth_of

pytestmark = pytest.mark.torch


def test_warm_is_what_stands_out_of_its_own_picture():
    infrared = torch.full((2, 1, 20, 20), 0.4)
    infrared[0, :, :3, :3] = 0.8
    infrared[1, :, 10:, :] = 1.0
    first, second = warmth_of(infrared)
    assert first[:, :3, :3].min() > 0.98
    assert first[:, 3:].max() < 0.02
    assert second.max().item() == pytest.approx(0.5)  # half of it: one deviation above the mean
    torch.testing.assert_close(warmth_of(infrared - 0.2), warmth_of(infrared))


def test_a_picture_without_differences_has_nothing_warm():
    assert warmth_of(torch.ones(1, 1, 8, 8)).max() < 0.02


def test_a_count_of_noise_is_nothing_warm():
    infrared = torch.full((1, 1, 20, 20), 100.0)
    infrared[..., ::4, ::4] += 1
    assert warmth_of(infrared / 255).max() < 0.5


def test_what_stands_in_for_thermal_says_nothing_of_what_is_warm():
    infrared = torch.full((1, 1, 20, 40), 0.4)
    infrared[..., :3, :3] = 0.8
    seen = torch.zeros_like(infrared)
    seen[..., :20] = 1
    infrared[..., 20:] = torch.rand(20, 20)
    torch.testing.assert_close(
        warmth_of(infrared, seen)[..., :20], warmth_of(infrared[..., :20]), atol=1e-5, rtol=0
    )
    assert warmth_of(infrared, torch.zeros_like(seen)).isfinite().all()
