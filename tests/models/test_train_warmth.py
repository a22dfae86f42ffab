"""What a fused picture owes to what is warm and to the stronger contrast: by hand, and learnt."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from mmfusion.train.warmth import contrast_loss, warmth_loss

pytestmark = pytest.mark.torch


def picture(rows):
    return torch.tensor(rows, dtype=torch.float64)[None, None]


INFRARED = picture([[0.9, 0.1, 0.5], [0.3, 0.3, 0.3]])
VISIBLE = picture([[0.2, 0.6, 0.5], [0.1, 0.5, 0.2]])


def test_what_is_cold_is_to_look_as_visible():
    cold = torch.zeros_like(VISIBLE)
    assert warmth_loss(VISIBLE, INFRARED, VISIBLE, cold) == 0
    wrong = warmth_loss(INFRARED, INFRARED, VISIBLE, cold)
    assert wrong.item() == pytest.approx((0.7 + 0.5 + 0 + 0.2 + 0.2 + 0.1) / 6)


def test_what_is_warm_is_to_be_as_bright_as_the_brighter_and_counts_six_times():
    warm = torch.ones_like(VISIBLE)
    right = warmth_loss(torch.maximum(INFRARED, VISIBLE), INFRARED, VISIBLE, warm)
    assert right.item() == pytest.approx(0)
    wrong = warmth_loss(VISIBLE, INFRARED, VISIBLE, warm)
    assert wrong.item() == pytest.approx(6 * (0.7 + 0 + 0 + 0.2 + 0 + 0.1) / 6)


def test_contrast_is_the_stronger_step_with_its_sign():
    across = np.array([[-0.8, 0.4], [0.4, -0.3]])  # 0.4 = visible's, by which it is stronger
    down = np.array([[-0.6, 0.2, -0.3]])
    fused = picture([[0.5, 0.0, 0.3], [0.2, 0.2, 0.2]])[0, 0].numpy()
    expected = [
        np.abs(np.diff(fused, axis=axis) - wanted).mean()
        for axis, wanted in ((1, across), (0, down))
    ]
    found = contrast_loss(torch.from_numpy(fused)[None, None], INFRARED, VISIBLE)
    assert found.item() == pytest.approx(np.mean(expected))


def test_contrast_has_no_level():
    assert contrast_loss(VISIBLE + 0.3, VISIBLE, VISIBLE).item() == pytest.approx(0)
