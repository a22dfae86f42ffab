"""What a fusion network is shown of a pair, and judged by."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from tiny_data import write_pairs

from mmfusion.train.fusion import FusionTask
from mmfusion.train.recipes import load_recipe
from mmfusion.train.run import recipe_of

pytestmark = pytest.mark.torch


def test_what_is_warm_is_told_by_the_whole_picture_not_by_the_crop(tmp_path):
    folder = write_pairs(tmp_path / "pairs", count=1, size=(64, 96))
    infrared = np.random.default_rng(0).integers(10, 40, (64, 96), np.uint8)
    infrared[:, :24] = 250
    cv2.imwrite(str(folder / "ir" / "0.png"), infrared)
    recipe = recipe_of(load_recipe("s4fusion_tiny", ["crop=16", "scales=[1]"]))
    task = FusionTask(recipe, [folder], [])
    cold = 0
    for step in range(20):
        _, _, judged = task.sample(0, step, np.random.default_rng(step))
        thermal, _, warmth = judged
        torch.testing.assert_close(warmth > 0.5, thermal > 0.5)
        cold += bool(thermal.max() < 0.2)
    assert cold  # crops in which something would stand out, were it not for the rest
