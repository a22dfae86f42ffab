"""What fusion is trained by: every term of an objective, of the right pictures, by its weight."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from mmfusion.train.fusion_objective import FusionLoss, S4FusionObjective, WarmthObjective
from mmfusion.train.s4fusion_losses import S4FusionLoss, ssim_loss
from mmfusion.train.warmth import contrast_loss, warmth_loss

pytestmark = pytest.mark.torch


@pytest.fixture
def pictures():
    torch.manual_seed(0)
    return torch.rand(2, 1, 24, 30), torch.rand(2, 3, 24, 30)


def test_warmth(pictures):
    fused, stack = pictures
    infrared, visible, warmth = stack.split(1, dim=1)
    objective = WarmthObjective(kind="warmth", warmth=2, contrast=3, ssim=5)
    both = [
        ssim_loss(fused, one, one, torch.tensor([[0.5, 0.5]] * 2)) for one in (infrared, visible)
    ]
    assert FusionLoss(objective, tuple)(fused, stack) == {
        "warmth": pytest.approx(2 * warmth_loss(fused, infrared, visible, warmth)),
        "contrast": pytest.approx(3 * contrast_loss(fused, infrared, visible)),
        "ssim": pytest.approx(5 * sum(both) / 2),
    }


def test_s4fusion(pictures):
    fused, stack = pictures
    infrared, visible, _ = stack.split(1, dim=1)
    objective = S4FusionObjective(
        kind="s4fusion", classifier="none", temperature=0.3, ssim=2, intensity=3, gradient=5
    )
    plain = S4FusionLoss(None, 0.3)(fused, infrared, visible)
    weights = {"ssim": 2, "intensity": 3, "gradient": 5}
    assert FusionLoss(objective, tuple)(fused, stack) == {
        name: pytest.approx(weights[name] * term) for name, term in plain.items()
    }
