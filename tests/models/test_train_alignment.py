"""Gradients of two tasks, aligned where both act, and left alone elsewhere."""

from __future__ import annotations

import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
torchjd = pytest.importorskip("torchjd.aggregation", reason="torchjd is not installed")

from torch import nn

from mmfusion.errors import ModelError
from mmfusion.train.alignment import align_gradients, require_alignment, task_gradients

pytestmark = pytest.mark.torch


class TwoTasks(nn.Module):
    """A trunk, a head for each task, a layer that one task alone sees, and one that nobody does."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 6), nn.Tanh())
        self.extra = nn.Linear(6, 6)
        self.heads = nn.ModuleList([nn.Linear(6, 3), nn.Linear(6, 2)])
        self.unused = nn.Linear(2, 2)
        self.inputs = torch.randn(16, 5)
        self.to(dtype)

    def losses(self, scale=40.0):
        """Of very different size, and at odds."""
        features = self.trunk(self.inputs.to(self.heads[0].weight))
        first = self.heads[0](torch.relu(self.extra(features))).square().sum()
        return scale * first, (1 - self.heads[1](features)).square().mean()

    def shared(self):
        return list(self.trunk.parameters())


def jacobian(losses, parameters):
    rows = [torch.autograd.grad(loss, parameters, retain_graph=True) for loss in losses]
    return torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])


def closed_form(rows):
    """The aligned gradients by the singular value decomposition: columns of s U V^T."""
    u, s, vt = torch.linalg.svd(rows.T, full_matrices=False)
    return s.min() * u @ vt


def aligned(losses, parameters):
    return align_gradients(task_gradients(losses, parameters), parameters)


def flat(parameters):
    return torch.cat([parameter.grad.flatten() for parameter in parameters])


def test_shared_parameters_get_the_sum_of_the_aligned_gradients():
    model = TwoTasks()
    rows = jacobian(model.losses(), model.shared())
    report = aligned(model.losses(), list(model.parameters()))
    found = flat(model.shared())
    wanted = closed_form(rows)
    torch.testing.assert_close(wanted.T @ wanted, torch.eye(2).double() * wanted[:, 0].norm() ** 2)
    torch.testing.assert_close(found, wanted.sum(dim=1), rtol=1e-9, atol=1e-12)
    library = torchjd.AlignedMTL(pref_vector=torch.ones(2).double())(rows)
    torch.testing.assert_close(found, library, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found, rows.new_tensor(report.weights) @ rows, rtol=1e-9, atol=1e-12)
    assert (found - rows.sum(dim=0)).norm() > 0.5 * rows.sum(dim=0).norm()
    assert report.shared == found.numel() == 5 * 8 + 8 + 8 * 6 + 6


def test_the_report_tells_what_was_and_what_came():
    model = TwoTasks()
    rows = jacobian(model.losses(), model.shared())
    report = aligned(model.losses(), list(model.parameters()))
    singular = torch.linalg.svdvals(rows)
    assert report.before.norms == pytest.approx(rows.norm(dim=1).tolist())
    assert report.before.cosine == pytest.approx(torch.cosine_similarity(*rows, dim=0).item())
    assert report.before.condition == pytest.approx((singular[0] / singular[1]).item())
    assert report.before.condition > 10
    assert report.after.norms == pytest.approx([singular[1].item()] * 2)
    assert report.after.cosine == pytest.approx(0, abs=1e-9)
    assert report.after.condition == pytest.approx(1)


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e5])
def test_a_much_weaker_task_is_aligned_too(scale):
    model = TwoTasks(torch.float32)
    rows = jacobian(model.losses(scale), model.shared()).double()
    report = aligned(model.losses(scale), list(model.parameters()))
    expected = closed_form(rows).sum(dim=1)
    assert (flat(model.shared()).double() - expected).norm() < 1e-3 * expected.norm()
    assert report.after.condition == pytest.approx(1, abs=1e-3)
    if scale == 1e5:
        assert report.before.condition > 1e4


def test_three_tasks_align_too():
    model = TwoTasks()
    third = model.trunk(model.inputs.double()).square().sum()
    rows = jacobian([*model.losses(), third], model.shared())
    third = model.trunk(model.inputs.double()).square().sum()
    report = aligned([*model.losses(), third], list(model.parameters()))
    torch.testing.assert_close(flat(model.shared()), closed_form(rows).sum(dim=1))
    assert report.after.condition == pytest.approx(1)


def test_other_parameters_get_their_own_gradients_exactly():
    model, plain = TwoTasks(), TwoTasks()
    aligned(model.losses(), list(model.parameters()))
    torch.stack(plain.losses()).sum().backward()
    for part in ("extra", "heads"):
        for mine, theirs in zip(
            getattr(model, part).parameters(), getattr(plain, part).parameters(), strict=True
        ):
            assert torch.equal(mine.grad, theirs.grad)
    assert all(parameter.grad is None for parameter in model.unused.parameters())


def test_the_optimiser_moves_shared_parameters_by_it():
    model = TwoTasks()
    before = [parameter.detach().clone() for parameter in model.shared()]
    expected = closed_form(jacobian(model.losses(), model.shared())).sum(dim=1)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    aligned(model.losses(), list(model.parameters()))
    optimiser.step()
    pairs = zip(before, model.shared(), strict=True)
    moved = torch.cat([(old - new.detach()).flatten() for old, new in pairs])
    torch.testing.assert_close(moved, 0.1 * expected, rtol=1e-9, atol=1e-12)
    assert moved.norm() > 0


def test_earlier_gradients_are_replaced():
    model = TwoTasks()
    aligned(model.losses(), list(model.parameters()))
    once = flat(model.shared())
    aligned(model.losses(), list(model.parameters()))
    assert torch.equal(flat(model.shared()), once)


def test_one_task_keeps_its_gradient():
    model, plain = TwoTasks(), TwoTasks()
    report = aligned(model.losses()[:1], list(model.parameters()))
    plain.losses()[0].backward()
    for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert (mine.grad is None) == (theirs.grad is None)
        if mine.grad is not None:
            torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-12, atol=0)
    assert (report.before.cosine, report.before.condition) == (None, pytest.approx(1))


@pytest.mark.parametrize("task", [0, 1])
def test_a_zero_gradient_leaves_the_other_alone(task):
    model = TwoTasks()
    losses = list(model.losses())
    losses[1 - task] = 0 * losses[1 - task]
    rows = jacobian(losses, model.shared())
    report = aligned(losses, list(model.parameters()))
    torch.testing.assert_close(flat(model.shared()), rows[task], rtol=1e-6, atol=0)
    assert (report.before.cosine, report.before.condition) == (None, None)


def test_zero_gradients_stay_zero():
    model = TwoTasks()
    report = aligned([0 * loss for loss in model.losses()], list(model.parameters()))
    assert flat(model.shared()).abs().max() == 0
    assert report.after.norms == [0, 0]


def test_parallel_gradients_do_not_vanish():
    """They span one direction; rounding errors across it must not set the scale."""
    model = TwoTasks(torch.float32)
    rows = jacobian([model.losses()[0]], model.shared())
    report = aligned([model.losses()[0], 3.1 * model.losses()[0]], list(model.parameters()))
    found = flat(model.shared())
    assert torch.cosine_similarity(found, rows[0], dim=0) > 0.999
    assert found.norm() > rows[0].norm()
    assert report.before.condition is None


def test_detached_tasks_share_nothing():
    model = TwoTasks()
    features = model.trunk(model.inputs.double())
    apart = model.heads[1](features.detach()).square().mean()
    with pytest.raises(ModelError, match="no parameter is reached by all 2 losses; alignment"):
        aligned([model.losses()[0], apart], list(model.parameters()))


def test_diverged_losses_are_named():
    model = TwoTasks()
    first, second = model.losses()
    with pytest.raises(ModelError, match="gradients are not finite, the training has diverged"):
        aligned([first * float("nan"), second], list(model.parameters()))


def test_the_published_matrix_is_aligned_as_published(shared_dir):
    import zlib

    generator = np.random.Generator(np.random.PCG64(zlib.crc32(b"1:gmta")))
    rows = torch.from_numpy(generator.standard_normal((2, 1000)).astype(np.float32))
    rows[0] *= 3
    rows[1] = 0.5 * rows[1] - 0.2 * rows[0]
    values = nn.Parameter(torch.zeros(1000))
    report = aligned([row @ values for row in rows], [values])
    with np.load(shared_dir / "goldens" / "efficientmfd.npz") as golden:
        balance, summed = golden["train.gmta_min_weights"], golden["train.gmta_min_grad"]
    np.testing.assert_allclose(report.weights, balance.sum(axis=1), atol=1e-4)
    np.testing.assert_allclose(values.grad.numpy(), summed, atol=1e-4)


def test_missing_torchjd_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchjd.aggregation", None)
    with pytest.raises(ModelError, match=r"alignment needs torchjd .* \(align_every: 0\)"):
        require_alignment()
