"""Boxes as latents, and the sampler with fixed shapes against the published loop."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("timm", reason="timm is not installed")

from hypothesis import given, settings
from hypothesis import strategies as st

from mmfusion.efficientmfd.config import EfficientMFDConfig
from mmfusion.efficientmfd.diffusion import (
    boxes_to_latents,
    cosine_alphas_cumprod,
    latents_to_boxes,
    noise_draws,
    sampling_steps,
    standard_noise,
)
from mmfusion.efficientmfd.network import EfficientMFD
from mmfusion.errors import ModelError

pytestmark = pytest.mark.torch

SIZE = (64, 96)
SMALL = EfficientMFDConfig(
    backbone="mobilenetv3_small_050",
    channels=16,
    pixel_channels=4,
    proposals=40,
    stages=2,
    heads=2,
    feed_forward=32,
    dynamic_channels=8,
)


def test_noise_schedule_falls_from_signal_to_noise():
    alphas = cosine_alphas_cumprod()
    assert alphas.shape == (1000,)
    assert alphas.dtype == np.float64
    assert (np.diff(alphas) < 0).all()
    np.testing.assert_allclose(
        alphas[[0, 249, 499, 749, 999]],
        [0.999958716, 0.847012161, 0.493843590, 0.144272102, 2.42876691e-9],
        rtol=1e-8,
    )


@pytest.mark.parametrize(
    ("count", "times"),
    [(1, [999]), (2, [999, 499]), (3, [999, 665, 332]), (4, [999, 749, 499, 249])],
)
def test_sampling_times(count, times):
    assert [step.time for step in sampling_steps(count)] == times


@pytest.mark.parametrize("count", [0, -1, 1001])
def test_impossible_counts_of_steps_are_refused(count):
    with pytest.raises(ModelError, match=f"{count} sampling steps are impossible"):
        sampling_steps(count)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 2**20))
def test_latents_to_boxes_and_back(height, width, seed):
    torch.manual_seed(seed)
    latents = torch.randn(2, 50, 4, dtype=torch.float64) * 2
    boxes = latents_to_boxes(latents, (height, width))
    assert (boxes[..., 2:] >= boxes[..., :2]).all()
    torch.testing.assert_close(boxes_to_latents(boxes, (height, width)), latents.clamp(-2, 2))


def test_known_boxes():
    latents = torch.tensor([[0.0, 0, 2, 2], [-2, 2, -1, -2], [9, -9, 0, 0]])
    expected = [[0, 0, 200, 100], [-25, 100, 25, 100], [150, -25, 250, 25]]
    assert latents_to_boxes(latents, (100, 200)).tolist() == expected


def test_noise_repeats_and_depends_on_the_seed():
    assert torch.equal(standard_noise(1, 9, 3), standard_noise(1, 9, 3))
    assert not torch.equal(standard_noise(1, 9, 3), standard_noise(1, 9, 4))
    many = standard_noise(3, 9000, 0)
    assert many.shape == (3, 9000, 4)
    assert abs(many.mean()) < 0.02
    assert abs(many.std() - 1) < 0.02


@pytest.fixture(scope="module")
def model():
    """In double precision; about half of its proposals survive a step."""
    torch.manual_seed(0)
    model = EfficientMFD(SMALL).double().eval()
    for stage in model.head.stages:
        torch.nn.init.constant_(stage.classify[-1].bias, -1.0)
    return model


@pytest.fixture(scope="module")
def pyramid(model):
    torch.manual_seed(1)
    visible, infrared = torch.rand(1, 3, *SIZE) * 255, torch.rand(1, 1, *SIZE) * 255
    with torch.inference_mode():
        return model.pyramid(visible.double(), infrared.double())


def published_loop(model, pyramid, noises, count):
    """Drop what found nothing, fill up at the end, the steps' outputs by slot."""
    alphas = cosine_alphas_cumprod()
    times = torch.linspace(-1, 999, count + 1).int().tolist()[::-1]
    noises = list(noises)
    latents = noises.pop(0)[0]
    slots = torch.arange(len(latents))  # which slot of the unrolled sampler a row is
    results, kept_counts = [], []
    for time, following in itertools.pairwise(times):
        logits, boxes = model.detect(pyramid, latents[None], SIZE, torch.tensor([float(time)]))
        logits, boxes = logits[-1, 0], boxes[-1, 0]
        by_slot = slots.argsort()
        results.append((logits[by_slot], boxes[by_slot]))
        if following < 0:
            break
        keep = logits.sigmoid().amax(dim=-1) > 0.5
        kept_counts.append(int(keep.sum()))
        signal = boxes_to_latents(boxes, SIZE)
        a, after = alphas[time], alphas[following]
        noise = (latents / math.sqrt(a) - signal) / math.sqrt(1 / a - 1)
        sigma = math.sqrt((1 - a / after) * (1 - after) / (1 - a))
        c = math.sqrt(1 - after - sigma**2)
        fresh, renewed = noises.pop(0)[0], noises.pop(0)[0]
        moved = math.sqrt(after) * signal + c * noise + sigma * fresh[slots]
        latents = torch.cat((moved[keep], renewed[slots[~keep]]))
        slots = torch.cat((slots[keep], slots[~keep]))
    logits, boxes = zip(*results, strict=True)
    return torch.cat(logits), torch.cat(boxes), kept_counts


@pytest.mark.parametrize("count", [1, 2, 4])
def test_equals_the_published_loop(model, pyramid, count):
    noises = standard_noise(noise_draws(count), 40, 5)[:, None].double()
    with torch.inference_mode():
        logits, boxes = model.sample(pyramid, SIZE, noises, count)
        expected_logits, expected_boxes, kept = published_loop(model, pyramid, noises, count)
    assert logits.shape == (1, count * 40, 6)
    assert all(4 < number < 36 for number in kept)  # both ways are taken
    torch.testing.assert_close(logits[0], expected_logits, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(boxes[0], expected_boxes, atol=1e-5, rtol=1e-6)


def test_one_step_is_one_run_of_the_head(model, pyramid):
    with torch.inference_mode():
        logits, boxes = model.sample(pyramid, SIZE)
        every_logits, every_boxes = model.detect(
            pyramid, model.default_noise(1, 1)[0].double(), SIZE
        )
    assert torch.equal(logits, every_logits[-1])
    assert torch.equal(boxes, every_boxes[-1])


def test_missing_noises_are_refused(model, pyramid):
    with pytest.raises(ModelError, match="2 noises do not fit 2 sampling steps; expected 3"):
        model.sample(pyramid, SIZE, torch.zeros(2, 1, 40, 4).double(), 2)
