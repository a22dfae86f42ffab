"""Published recipes, which want a GPU and days: a step of each that a CPU has the time for."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("timm", reason="timm is not installed")
torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")

from tiny_data import write_pairs, write_recording
from torchvision.models._utils import IntermediateLayerGetter

from mmfusion.train.backbone_start import start_backbone
from mmfusion.train.detection import DetectionTask
from mmfusion.train.fusion import FusionTask
from mmfusion.train.optimisers import create_optimiser
from mmfusion.train.processes import Processes
from mmfusion.train.recipes import load_recipe
from mmfusion.train.run import recipe_of

pytestmark = pytest.mark.torch
ALONE = Processes(0, 1, torch.device("cpu"))


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def drawn_statistics(network):
    """With statistics that no fresh network has."""
    for key, value in network.state_dict().items():
        if key.endswith(("running_mean", "running_var")):
            value.uniform_(0.5, 1.5)
    return network.eval()


def step(task, recipe):
    """One sample's step; what of the network has learnt from it, and what has not."""
    network = task.network.train()
    optimiser = create_optimiser(network, recipe.optimiser)
    assert optimiser.param_groups
    losses = task.losses([task.sample(0, 0, np.random.default_rng(0))], ALONE)
    torch.stack(losses.tasks).sum().backward()
    assert all(term.isfinite() for term in losses.terms.values())
    learning = {name: p.grad for name, p in network.named_parameters() if p.requires_grad}
    assert all(grad is None or grad.isfinite().all() for grad in learning.values())
    told = {name for name, grad in learning.items() if grad is not None and grad.any()}
    return losses.terms, told, learning.keys() - told


def test_s4fusion_takes_a_step(tmp_path):
    changes = ["objective.classifier=none", "crop=41"]
    recipe = recipe_of(load_recipe("s4fusion", changes))
    terms, _, rest = step(FusionTask(recipe, [write_pairs(tmp_path / "pairs")], []), recipe)
    assert {"ssim", "intensity", "gradient"} <= terms.keys()
    assert not rest


def test_efficientmfd_takes_a_step_from_a_resnet_of_torchvision(tmp_path):
    recipe = recipe_of(load_recipe("efficientmfd_r50", ["size=[64, 96]"]))
    task = DetectionTask(recipe, [write_recording(tmp_path / "recording")], [])
    torch.manual_seed(1)
    whole = drawn_statistics(torchvision.models.resnet50(weights=None))
    path = tmp_path / "resnet50-drawn.pth"
    torch.save(whole.state_dict(), path)
    assert start_backbone(task.network, str(path)) == {"backbone_sha256": sha256(path)}
    stages = IntermediateLayerGetter(whole, {f"layer{i}": i for i in range(1, 5)})
    picture = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected = stages(picture).values()
        found = task.network.eval().features.body(picture)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs)
    # Under norms that are kept as they are, drawn weights do not bring a gradient to everything.
    terms, told, _ = step(task, recipe)
    assert {"giou", "structure"} <= terms.keys()
    assert any(name.startswith("head.") for name in told)
