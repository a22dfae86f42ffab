"""EfficientMFD: any size, every preset, parts alone, fresh weights, post-processing."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("timm", reason="timm is not installed")

from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from mmfusion.efficientmfd.backbone import FeaturePyramid
from mmfusion.efficientmfd.config import PRESETS, EfficientMFDConfig
from mmfusion.efficientmfd.diffusion import latents_to_boxes
from mmfusion.efficientmfd.fusion_tree import RegionBranches, RegionMasks
from mmfusion.efficientmfd.network import EfficientMFD
from mmfusion.efficientmfd.post_processing import detections
from mmfusion.errors import ModelError

pytestmark = pytest.mark.torch

SMALL = EfficientMFDConfig(
    backbone="mobilenetv3_small_050",
    frozen_start=True,
    channels=16,
    pixel_channels=4,
    proposals=12,
    stages=2,
    heads=2,
    feed_forward=32,
    dynamic_channels=8,
)


def small(**changes):
    torch.manual_seed(0)
    return EfficientMFD(dataclasses.replace(SMALL, **changes)).eval()


def pair(height, width, images=1):
    torch.manual_seed(1)
    return torch.rand(images, 3, height, width) * 255, torch.rand(images, 1, height, width) * 255


def test_the_config_needs_no_torch():
    code = "import sys, mmfusion.efficientmfd.config; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


class TestPresets:
    @pytest.mark.parametrize(
        ("name", "parameters", "trainable"),
        [
            # 111,092,162 published, less 16,640 of the layer that never runs.
            ("efficientmfd_r50", 111_075_522, 111_075_522 - 222_400),
            ("efficientmfd_r18", 19_120_484, 18_963_620),
            ("efficientmfd_tiny", 2_091_066, 2_091_066),
        ],
    )
    def test_parameter_counts(self, name, parameters, trainable):
        with torch.device("meta"):
            model = EfficientMFD(PRESETS[name])
        counts = [(p.numel(), p.requires_grad) for p in model.parameters()]
        assert sum(count for count, _ in counts) == parameters
        assert sum(count for count, trains in counts if trains) == trainable

    def test_the_published_shared_parameters(self):
        with torch.device("meta"):
            features = EfficientMFD(PRESETS["efficientmfd_r50"]).features
        shared = [p for p in features.parameters() if p.requires_grad]
        assert len(shared) == 58
        assert sum(p.numel() for p in shared) == 26_576_896

    @pytest.mark.parametrize("name", PRESETS)
    def test_shapes(self, name):
        config = PRESETS[name]
        with torch.device("meta"):
            model = EfficientMFD(config).eval()
            noise = torch.empty(2, config.proposals, 4)
            output = model(torch.empty(2, 3, 70, 90), torch.empty(2, 1, 70, 90), noise)
        assert output.fusion_weights.shape == (2, 2, 70, 90)
        assert output.fused.shape == (2, 1, 70, 90)
        assert output.logits.shape == (config.stages, 2, config.proposals, 6)
        assert output.boxes.shape == (config.stages, 2, config.proposals, 4)

    def test_impossible_shapes_are_refused(self):
        with pytest.raises(ModelError, match="20 channels do not split into 8 heads"):
            EfficientMFDConfig(channels=20)
        with pytest.raises(ModelError, match="fusion_stride 3"):
            EfficientMFDConfig(fusion_stride=3)
        for backbone in ("resnet5", "vit_tiny_patch16_224"):
            with pytest.raises(ModelError, match=f"backbone '{backbone}' does not fit"):
                small(backbone=backbone)


class TestBackbone:
    def test_batch_norm_stays_frozen_in_training(self):
        body = small().train().features.body
        before = {name: value.clone() for name, value in body.named_buffers()}
        assert before
        body(torch.rand(2, 3, 64, 64))
        assert all(torch.equal(before[name], value) for name, value in body.named_buffers())
        assert not any("bn" in name for name, _ in body.named_parameters())

    def test_only_what_the_first_level_depends_on_is_frozen(self):
        features = FeaturePyramid("resnet18", 16, frozen_start=True)
        frozen = {
            name.split(".")[0]
            for name, parameter in features.body.named_parameters()
            if not parameter.requires_grad
        }
        trained = {
            name.split(".")[0]
            for name, parameter in features.body.named_parameters()
            if parameter.requires_grad
        }
        assert frozen == {"conv1", "layer1"}
        assert trained == {"layer2", "layer3", "layer4"}

    def test_nothing_is_frozen_without_a_pretrained_start(self):
        features = FeaturePyramid("mobilenetv3_small_050", 16, frozen_start=False).train()
        assert all(parameter.requires_grad for parameter in features.parameters())
        before = features.body.bn1.running_mean.clone()
        features(torch.rand(2, 3, 64, 64))
        assert not torch.equal(before, features.body.bn1.running_mean)

    def test_levels_add_up_from_coarse_to_fine(self):
        # Lateral convolutions that copy channel 0, and output convolutions that double it, leave
        # twice the plain top-down sum.
        features = FeaturePyramid("mobilenetv3_small_050", 4, frozen_start=True).eval()
        with torch.inference_mode():
            for conv in features.lateral:
                conv.weight.zero_()
                conv.weight[0, 0] = 1
            for conv in features.output:
                conv.weight.zero_()
                conv.weight[0, 0, 1, 1] = 2
            images = torch.rand(1, 3, 64, 96)
            plain = [level[:, :1] for level in features.body(images)]
            pyramid = features(images)
            for index, level in enumerate(pyramid):
                expected = plain[index].clone()
                for coarser in range(index + 1, 4):
                    factor = 1 << (coarser - index)
                    wide = plain[coarser].repeat_interleave(factor, 2)
                    expected += wide.repeat_interleave(factor, 3)
                torch.testing.assert_close(level[:, :1], 2 * expected)


class TestFusionTree:
    def literal_merge(self, branches, levels, size):
        """Mask, concatenate, upsample, add, convolve: the published order."""
        total = 0
        for masks, level in zip(branches.masks, levels, strict=True):
            a = masks(level)
            branch = torch.cat((a[:, :1] * level, a[:, 1:] * level), dim=1)
            total = total + functional.interpolate(
                branch, size=size, mode="bilinear", align_corners=True
            )
        return branches.merge(total).relu()

    @settings(max_examples=15, deadline=None)
    @given(
        st.integers(1, 3),
        st.integers(1, 3),
        st.integers(1, 5),
        st.integers(1, 6),
        st.integers(0, 2**20),
    )
    def test_cheap_merge_equals_the_published_order(self, rows, columns, channels, outputs, seed):
        torch.manual_seed(seed)
        branches = RegionBranches(channels, outputs).double().eval()
        for masks in branches.masks:
            for view in masks.views:
                view[1].running_mean.normal_()
                view[1].running_var.uniform_(0.5, 2)
        size = (32 * rows, 32 * columns)
        levels = [
            torch.randn(2, channels, size[0] // stride, size[1] // stride, dtype=torch.float64)
            for stride in (4, 8, 16)
        ]
        with torch.inference_mode():
            torch.testing.assert_close(
                branches(levels, size), self.literal_merge(branches, levels, size)
            )

    def test_masks_weigh_views_over_regions(self):
        masks = RegionMasks(3).eval()
        level = torch.randn(2, 3, 8, 9)
        with torch.inference_mode():
            first, second = (view(level) for view in masks.views)
            z = masks.weigh((first + second).mean(dim=(2, 3)))  # region 1 view 1, r1 v2, r2 v1, ...
            alpha = z.view(2, 2, 2).exp()
            alpha = alpha / alpha.sum(dim=1, keepdim=True)
            expected = torch.stack(
                [
                    alpha[:, m, 0, None, None] * first[:, m]
                    + alpha[:, m, 1, None, None] * second[:, m]
                    for m in (0, 1)
                ],
                dim=1,
            )
            torch.testing.assert_close(masks(level), expected)

    def test_fused_is_the_weighted_sum_of_luminances(self):
        visible, infrared = pair(40, 50)
        with torch.inference_mode():
            output = small()(visible, infrared)
        weights = output.fusion_weights
        value = visible.amax(dim=1, keepdim=True)
        expected = (weights[:, :1] * infrared + weights[:, 1:] * value) / 255
        torch.testing.assert_close(output.fused, expected)

    def test_coarse_weights_are_interpolated(self):
        visible, infrared = pair(64, 96)
        model = small(fusion_stride=2)
        with torch.inference_mode():
            pyramid = model.pyramid(visible, infrared)
            weights, _ = model.fuse(visible, infrared, pyramid)
            images = torch.cat((infrared, visible), dim=1) / 255
            coarse = model.fusion(functional.avg_pool2d(images, 2), pyramid)
        assert coarse.shape[-2:] == (32, 48)
        wide = functional.interpolate(coarse, size=(64, 96), mode="bilinear", align_corners=False)
        torch.testing.assert_close(weights, wide)


class TestNetwork:
    def test_pads_normalised_images_at_bottom_and_right(self):
        model = small()
        visible, infrared = pair(70, 90)
        mean = np.array([123.675, 116.28, 103.53])
        std = np.array([58.395, 57.12, 57.375])
        levels = []
        for image in (visible, infrared.expand(-1, 3, -1, -1)):
            padded = np.zeros((1, 3, 96, 96), np.float32)
            padded[..., :70, :90] = (image.numpy() - mean[:, None, None]) / std[:, None, None]
            with torch.inference_mode():
                levels.append(model.features(torch.from_numpy(padded)))
        with torch.inference_mode():
            pyramid = model.pyramid(visible, infrared)
        for level, vis, ir in zip(pyramid, *levels, strict=True):
            torch.testing.assert_close(level, vis + ir, atol=1e-5, rtol=1e-5)

    def test_boxes_are_in_the_unpadded_image(self):
        model = small()
        for stage in model.head.stages:
            for parameter in stage.regress[-1].parameters():
                torch.nn.init.zeros_(parameter)  # boxes stay where noise puts them
        noise = torch.randn(1, 12, 4)
        with torch.inference_mode():
            boxes = model(*pair(70, 90), noise).boxes
        expected = latents_to_boxes(noise, (70, 90))
        for stage in boxes:
            torch.testing.assert_close(stage, expected, atol=1e-3, rtol=1e-5)

    @pytest.mark.parametrize("size", [(1, 1), (33, 64), (64, 31)])
    def test_any_size_keeps_its_size(self, size):
        with torch.inference_mode():
            output = small()(*pair(*size, images=2))
        assert output.fusion_weights.shape == (2, 2, *size)
        assert output.boxes.isfinite().all()

    def test_images_of_a_batch_do_not_mix(self):
        model = small().double()
        visible, infrared = (image.double() for image in pair(64, 64, images=3))
        with torch.inference_mode():
            together = model(visible, infrared)
            alone = model(visible[1:2], infrared[1:2])
        torch.testing.assert_close(together.fused[1:2], alone.fused)
        torch.testing.assert_close(together.logits[:, 1:2], alone.logits)
        torch.testing.assert_close(together.boxes[:, 1:2], alone.boxes)

    def test_results_repeat_without_noise_given(self):
        model = small()
        with torch.inference_mode():
            first, second = model(*pair(64, 64)), model(*pair(64, 64))
        assert torch.equal(first.boxes, second.boxes)

    def test_order_of_proposals_does_not_matter(self):
        model = small().double()
        images = [image.double() for image in pair(64, 64)]
        noise = torch.randn(1, 12, 4, dtype=torch.float64)
        order = torch.randperm(12)
        with torch.inference_mode():
            plain, shuffled = model(*images, noise), model(*images, noise[:, order])
        torch.testing.assert_close(shuffled.boxes, plain.boxes[:, :, order])
        torch.testing.assert_close(shuffled.logits, plain.logits[:, :, order])

    def test_time_may_differ_within_a_batch(self):
        model = small().double()
        pyramid = model.pyramid(*(image.double() for image in pair(64, 64, images=2)))
        latents = torch.randn(2, 12, 4, dtype=torch.float64)
        together, _ = model.detect(pyramid, latents, (64, 64), torch.tensor([3.0, 700.0]))
        second = tuple(level[1:] for level in pyramid)
        alone, _ = model.detect(second, latents[1:], (64, 64), torch.tensor([700.0]))
        torch.testing.assert_close(together[:, 1:], alone)
        other, _ = model.detect(second, latents[1:], (64, 64), torch.tensor([3.0]))
        assert (other - alone).abs().max() > 1e-3

    def test_every_trainable_parameter_gets_a_gradient(self):
        model = small().train()
        output = model(*pair(64, 64, images=2))
        sum(part.square().mean() for part in output).backward()
        idle = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert idle == []

    def test_boxes_pass_no_gradient_to_the_stage_before(self):
        model = small()
        output = model(*pair(64, 64))
        output.boxes[-1].square().mean().backward()
        first, last = model.head.stages
        assert not first.regress[-1].weight.grad.any()
        assert last.regress[-1].weight.grad.any()
        assert first.feed_forward[0].weight.grad.any()  # features do

    def test_fresh_weights(self):
        model = small()
        for stage in model.head.stages:
            torch.testing.assert_close(stage.classify[-1].bias, torch.full((6,), -4.59512))
            bound = (6 / (16 + 48)) ** 0.5
            weight = stage.attention.in_proj.weight.abs().max()
            assert 0.9 * bound < weight <= bound
        merge = model.fusion.regions.merge.weight
        assert merge.detach().std() == pytest.approx((2 / 32) ** 0.5, rel=0.15)

    def test_wrong_inputs_are_refused(self):
        model = small()
        for visible, infrared in [
            ((1, 3, 64, 64), (1, 1, 64, 65)),
            ((1, 1, 64, 64), (1, 1, 64, 64)),
            ((1, 3, 64, 64), (1, 3, 64, 64)),
            ((3, 64, 64), (1, 64, 64)),
        ]:
            with pytest.raises(ModelError, match="are no pair; expected visible"):
                model(torch.rand(visible), torch.rand(infrared))


class TestPostProcessing:
    size = (100, 200)

    def find(self, boxes, scores, **options):
        """Detections of two classes from boxes and probabilities."""
        logits = torch.tensor(scores, dtype=torch.float32).logit()
        return detections(logits, torch.tensor(boxes, dtype=torch.float32), self.size, **options)

    def test_suppression_is_by_class(self):
        found = self.find(
            [[10, 10, 50, 50], [11, 10, 51, 50], [100, 10, 150, 50]],
            [[0.9, 0.1], [0.6, 0.8], [0.7, 0.2]],
        )
        np.testing.assert_allclose(found.scores, [0.9, 0.8, 0.7, 0.2], atol=1e-6)
        assert found.labels.tolist() == [0, 1, 0, 1]
        assert found.boxes[:, 0].tolist() == [10, 11, 100, 100]

    def test_boxes_are_clipped_and_empty_ones_dropped(self):
        found = self.find(
            [[-20, 50, 40, 130], [250, 10, 300, 40], [30, 30, 30, 60]],
            [[0.9, 0.1], [0.8, 0.1], [0.7, 0.1]],
            score_threshold=0.5,
        )
        assert found.boxes.tolist() == [[0, 50, 40, 100]]

    def test_boxes_scale_to_the_output(self):
        found = self.find(
            [[20, 50, 40, 80]], [[0.9, 0.1]], score_threshold=0.5, output_size=(200, 100)
        )
        assert found.boxes.tolist() == [[10, 100, 20, 160]]

    def test_at_most_500_candidates_of_each_step(self):
        corners = torch.arange(700.0)[:, None] * torch.tensor([3.0, 0, 3.0, 0])
        boxes = corners + torch.tensor([0.0, 0, 2, 2])
        logits = torch.randn(700, 1)
        found = detections(logits, boxes, (10, 3000))
        assert len(found.scores) == 500
        assert found.scores.min() == logits.sigmoid().flatten().topk(500).values.min()
        shifted = boxes + torch.tensor([0.0, 5, 0, 5])
        steps = detections(torch.stack((logits, logits)), torch.stack((boxes, shifted)), (10, 3000))
        assert len(steps.scores) == 1000

    def test_steps_are_suppressed_jointly(self):
        boxes = torch.tensor([[[10.0, 10, 50, 50]], [[11.0, 10, 51, 50]]])
        found = detections(torch.tensor([[[1.0]], [[2.0]]]), boxes, self.size)
        assert found.boxes.tolist() == [[11, 10, 51, 50]]

    def test_nothing_found(self):
        found = self.find([[10, 10, 50, 50]], [[0.1, 0.1]], score_threshold=0.5)
        assert found.boxes.shape == (0, 4)
        assert found.labels.shape == (0,)
