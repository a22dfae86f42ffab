"""EfficientMFD equals the published network: every recorded quantity of it."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("timm", reason="timm is not installed")

import cv2

import mmfusion
from mmfusion.efficientmfd.config import PRESETS
from mmfusion.efficientmfd.diffusion import cosine_alphas_cumprod, latents_to_boxes
from mmfusion.efficientmfd.network import EfficientMFD
from mmfusion.efficientmfd.post_processing import detections
from mmfusion.efficientmfd.published import to_own_names
from mmfusion.efficientmfd.roi_align import level_masks, pool_by_roi_align

pytestmark = pytest.mark.torch

SIZE = (256, 320)


@pytest.fixture(scope="module")
def golden(shared_dir):
    with np.load(shared_dir / "goldens" / "efficientmfd.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def published(shared_dir, fill):
    drawn = fill.draw_state_dict(shared_dir / "goldens" / "efficientmfd.layout.json", 1)
    return {key: torch.from_numpy(value) for key, value in drawn.items()}


@pytest.fixture(scope="module")
def model(published):
    network = EfficientMFD(PRESETS["efficientmfd_r50"]).eval()
    mmfusion.load_published(network, published)
    return network


@pytest.fixture(scope="module")
def inputs(fill, golden):
    visible = np.rint(fill.draw_image("vi", (1, 3, *SIZE), 1) * np.float32(255))
    infrared = np.rint(fill.draw_image("ir", (1, 1, *SIZE), 1) * np.float32(255))
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(b"1:noise")))
    noise = generator.standard_normal((1, 500, 4)).astype(np.float32)
    for name, array in (("input.vi", visible), ("input.ir", infrared), ("noise", noise)):
        np.testing.assert_allclose(statistics(array), golden[f"stat.{name}"], rtol=1e-6, atol=1e-6)
    return tuple(torch.from_numpy(array) for array in (visible, infrared, noise))


def statistics(values):
    array = np.asarray(values, np.float64)
    return np.array([array.mean(), array.std(), *array.flatten()[:8]])


@pytest.fixture(scope="module")
def run(model, inputs):
    """One forward pass: its output, and what modules inside gave."""
    watched = {
        "features": model.features,
        "pixels": model.fusion.pixel,
        "masks": model.fusion.regions.masks,
        "region": model.fusion.regions,
        "pixel": model.fusion.pixel_unit,
        "gate": model.fusion.gate_unit,
        "reconstruct": model.fusion.reconstruct,
        "time": model.head.time,
        "stages": model.head.stages,
    }
    seen, hooks = {}, []

    def watch(name, module):
        def hook(_module, arguments, output):
            seen[name] = (arguments, output)

        hooks.append(module.register_forward_hook(hook))

    for name, module in watched.items():
        if isinstance(module, torch.nn.ModuleList):
            for index, child in enumerate(module):
                watch(f"{name}.{index}", child)
        else:
            watch(name, module)
    with torch.inference_mode():
        output = model(*inputs)
    for hook in hooks:
        hook.remove()
    return output, seen


@pytest.fixture(scope="module")
def forced(model, run, golden):
    """Logits and boxes of each stage, given the recorded boxes of the stage before."""
    _, seen = run
    pyramid = tuple(level.sum(dim=0, keepdim=True) for level in seen["features"][1])
    recorded = [golden["init_boxes"], *golden["boxes_all"][:-1, None]]
    boxes = [torch.from_numpy(stage) for stage in recorded]
    with torch.inference_mode():
        modulations = model.head.modulations(torch.tensor([999.0]))
        proposals, results = None, []
        for stage, start, modulation in zip(model.head.stages, boxes, modulations, strict=True):
            regions = pool_by_roi_align(pyramid, start)
            logits, refined, proposals = stage(regions, start, proposals, modulation)
            results.append((logits[0], refined[0], proposals))
    return results


def assert_statistics(values, recorded, tolerance):
    error = np.abs(statistics(values) - recorded).max()
    assert error <= tolerance, error


def test_pyramids(run, golden):
    _, seen = run
    for index, level in enumerate(seen["features"][1]):
        for name, value in (("vis", level[:1]), ("ir", level[1:]), ("sum", level.sum(0)[None])):
            assert_statistics(value, golden[f"stat.{name}.p{index + 2}"], 2e-5)


def test_fusion_tree(run, golden):
    _, seen = run
    assert_statistics(seen["pixels"][1], golden["stat.pfmm"], 2e-5)
    assert_statistics(seen["region"][1], golden["stat.region"], 2e-5)
    assert_statistics(seen["pixel"][1], golden["stat.pixel"], 2e-5)
    gate = torch.nn.functional.hardsigmoid(seen["gate"][1])
    assert_statistics(gate, golden["stat.gate"], 2e-5)
    (injected,) = seen["reconstruct"][0]
    assert_statistics(injected, golden["stat.injected"], 2e-5)
    for index in range(3):
        (level,), masks = seen[f"masks.{index}"]
        assert_statistics(masks, golden[f"stat.mask{index + 1}"], 2e-5)
        branch = torch.cat((masks[:, :1] * level, masks[:, 1:] * level), dim=1)
        assert_statistics(branch, golden[f"stat.rfrm{index + 1}"], 2e-5)


def test_fusion(run, golden):
    output, _ = run
    np.testing.assert_allclose(output.fusion_weights, golden["fusion_weights"], rtol=0, atol=2e-5)
    np.testing.assert_allclose(output.fused, golden["fused"], rtol=0, atol=2e-5)


def test_fused_colours(run, inputs, golden):
    output, _ = run
    rgb = inputs[0][0].permute(1, 2, 0).numpy().astype(np.uint8)
    hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)
    hsv[..., 2] = (output.fused[0, 0].numpy() * 255).clip(0, 255).astype(np.uint8)
    fused = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB).astype(int)
    recorded = golden["fused_rgb"].astype(int)
    assert np.abs(fused.max(axis=-1) - recorded.max(axis=-1)).max() <= 1
    assert (np.abs(fused - recorded) <= 3).mean() >= 0.999


def test_start_of_detection(run, inputs, golden):
    _, seen = run
    boxes = latents_to_boxes(inputs[2], SIZE)
    np.testing.assert_allclose(boxes, golden["init_boxes"], rtol=0, atol=1e-3)
    levels = torch.stack(level_masks(boxes[0])).long().argmax(dim=0)
    np.testing.assert_array_equal(levels + 2, golden["levels_first"])
    # Angles near 999 are only good to 6e-5 in float32: libraries that round otherwise differ.
    np.testing.assert_allclose(seen["time"][1], golden["time_emb"], rtol=0, atol=2e-5)
    pooled = seen["stages.0"][0][0][0].transpose(1, 2)  # positions last, as recorded
    assert_statistics(pooled, golden["stat.pool.stage1"], 2e-5)


def test_every_stage_with_forced_boxes(forced, golden):
    for stage, (logits, boxes, _) in enumerate(forced):
        np.testing.assert_allclose(logits, golden["logits_all"][stage], rtol=0, atol=2e-4)
        np.testing.assert_allclose(boxes, golden["boxes_all"][stage], rtol=0, atol=5e-2)
    assert_statistics(forced[0][2], golden["stat.proposal.stage1"], 2e-4)
    assert_statistics(forced[5][2], golden["stat.proposal.stage6"], 2e-4)


def test_all_stages_running_freely(run, golden):
    output, _ = run
    logits, boxes = output.logits[-1, 0].numpy(), output.boxes[-1, 0].numpy()
    logit_errors = np.abs(logits - golden["logits_last"][0]).max(axis=-1)
    box_errors = np.abs(boxes - golden["boxes_last"][0]).max(axis=-1)
    assert (logit_errors <= 5e-3).mean() >= 0.99
    assert (box_errors <= 0.2).mean() >= 0.99


def test_post_processing(golden):
    logits, boxes = (torch.from_numpy(golden[name][0]) for name in ("logits_last", "boxes_last"))
    found = detections(logits, boxes, SIZE)
    assert len(found.boxes) == len(golden["det_boxes"])
    np.testing.assert_allclose(found.boxes, golden["det_boxes"], rtol=0, atol=1e-3)
    np.testing.assert_allclose(found.scores, golden["det_scores"], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found.labels, golden["det_labels"])


def test_noise_schedule(golden):
    alphas = cosine_alphas_cumprod()[[0, 1, 249, 499, 749, 998, 999]]
    np.testing.assert_allclose(alphas, golden["train.alphas_cumprod"], rtol=1e-9)


class TestPublishedNames:
    def test_the_layer_that_never_runs_is_unused(self, published, model):
        _, unused = to_own_names(published, model)
        assert {key.split(".")[2] for key in unused} == {"conv_module_add"}
        assert len(unused) == 5

    def test_constants_of_a_whole_checkpoint_are_accepted(self, published, model):
        tables = [
            "betas",
            "alphas_cumprod",
            "alphas_cumprod_prev",
            "sqrt_alphas_cumprod",
            "sqrt_one_minus_alphas_cumprod",
            "log_one_minus_alphas_cumprod",
            "sqrt_recip_alphas_cumprod",
            "sqrt_recipm1_alphas_cumprod",
            "posterior_variance",
            "posterior_log_variance_clipped",
            "posterior_mean_coef1",
            "posterior_mean_coef2",
        ]
        constants = {name: torch.zeros(1000, dtype=torch.float64) for name in tables}
        constants["criterion_fuse.lap.gauss_kernel.weight"] = torch.zeros(1, 1, 5, 5)
        counters = {
            key.replace("running_mean", "num_batches_tracked"): torch.tensor(7)
            for key in published
            if key.startswith("fusion.") and key.endswith("running_mean")
        }
        assert len(constants) + len(counters) == 22
        state, unused = to_own_names({**published, **constants, **counters}, model)
        assert len(unused) == len(constants) + 6
        assert state["fusion.gate_unit.1.num_batches_tracked"] == 7
        assert state.keys() == model.state_dict().keys()

    def test_unknown_keys_keep_their_names(self, published, model):
        state, unused = to_own_names({**published, "ema.decay": torch.zeros(1)}, model)
        assert state.keys() - model.state_dict().keys() == {"ema.decay"}
        assert "ema.decay" not in unused

    def test_weights_of_the_detector_alone_leave_classes_and_fusion_fresh(self, published, model):
        coco = {
            key: torch.zeros(80, *tensor.shape[1:]) if ".class_logits." in key else tensor
            for key, tensor in published.items()
            if not key.startswith("fusion.")
        }
        state, unused = to_own_names(coco, model)
        own = model.state_dict()
        missing = own.keys() - state.keys()
        assert {key for key in missing if not key.startswith("fusion.")} == {
            f"head.stages.{stage}.classify.3.{kind}"
            for stage in range(6)
            for kind in ("weight", "bias")
        }
        assert len(unused) == 12
        assert all(state[key].shape == own[key].shape for key in state)
