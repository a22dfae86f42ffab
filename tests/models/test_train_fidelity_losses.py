"""VIF and Q_ABF as losses: the figures of the metrics, and gradients that raise them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from mmfusion.metrics import edge_preservation, visual_information_fidelity
from mmfusion.metrics.baselines import average_fusion, maximum_fusion
from mmfusion.train.fidelity_losses import LEAST_SIDE, edge_loss, fidelity_loss

pytestmark = pytest.mark.torch


def picture(seed: int, shape: tuple[int, int] = (70, 91)) -> np.ndarray:
    """Blurred noise inside a black frame, where Q_ABF of loss and metric are of the same edges."""
    noise = np.random.default_rng(seed).uniform(0, 255, shape)
    smooth = cv2.normalize(cv2.GaussianBlur(noise, None, 2), None, 20, 235, cv2.NORM_MINMAX)
    framed = np.pad(smooth[2:-2, 2:-2], 2)
    return np.rint(framed).astype(np.uint8)


def tensor(*pictures: np.ndarray) -> torch.Tensor:
    return torch.stack([torch.from_numpy(one)[None] for one in pictures]).double() / 255


INFRARED, VISIBLE = picture(0), picture(1)


@pytest.mark.parametrize(("dtype", "digits"), [(torch.float64, 1e-6), (torch.float32, 1e-3)])
@pytest.mark.parametrize("fuse", [average_fusion, maximum_fusion])
def test_are_the_metrics(fuse, dtype, digits):
    fused = fuse(INFRARED, VISIBLE)
    stacks = [tensor(one).to(dtype) for one in (fused, INFRARED, VISIBLE)]
    roots = [np.sqrt(visual_information_fidelity(fused, one)) for one in (INFRARED, VISIBLE)]
    assert fidelity_loss(*stacks).item() == pytest.approx(1 - np.mean(roots), abs=digits)
    expected = 1 - edge_preservation(fused, INFRARED, VISIBLE)
    assert edge_loss(*stacks).item() == pytest.approx(expected, abs=1e-3)


def test_a_batch_has_the_mean_of_its_pictures():
    one = maximum_fusion(INFRARED, VISIBLE), INFRARED, VISIBLE
    other = average_fusion(picture(2), picture(3)), picture(2), picture(3)
    both = [tensor(*pictures) for pictures in zip(one, other, strict=True)]
    for loss in (fidelity_loss, edge_loss):
        alone = [loss(*map(tensor, pair)).item() for pair in (one, other)]
        assert loss(*both).item() == pytest.approx(np.mean(alone), abs=1e-12)


@pytest.mark.parametrize("loss", [fidelity_loss, edge_loss])
def test_a_step_down_the_gradient_lowers_it(loss):
    sources = tensor(INFRARED), tensor(VISIBLE)
    fused = tensor(average_fusion(INFRARED, VISIBLE)).requires_grad_()
    before = loss(fused, *sources)
    (gradient,) = torch.autograd.grad(before, fused)
    assert torch.isfinite(gradient).all()
    after = loss(fused - 1e-6 * gradient / gradient.abs().max(), *sources)
    assert after < before


@pytest.mark.parametrize("loss", [fidelity_loss, edge_loss])
def test_flat_pictures_have_finite_losses_and_gradients(loss):
    flat = torch.full((1, 1, LEAST_SIDE, LEAST_SIDE), 0.5, requires_grad=True)
    value = loss(flat, torch.zeros_like(flat), torch.ones_like(flat))
    value.backward()
    assert value.isfinite()
    assert flat.grad is not None
    assert flat.grad.isfinite().all()
