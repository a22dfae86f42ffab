"""What detectors learn from: matching, losses in both forms, noisy boxes."""

from __future__ import annotations

import importlib.util
import zlib

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("timm", reason="timm is not installed")


from mmfusion.efficientmfd.diffusion import latents_to_boxes
from mmfusion.efficientmfd.roi_align import pool_by_roi_align
from mmfusion.errors import DataError
from mmfusion.train.box_noise import noisy_latents
from mmfusion.train.detection_losses import detection_losses
from mmfusion.train.detection_matching import UNMATCHED, Objects, match_proposals
from mmfusion.train.joint_fusion_losses import joint_fusion_losses, object_mask
from mmfusion.train.level_pool import pool_on_own_level

pytestmark = pytest.mark.torch
SIZE = (256, 320)


def drawn(name, shape):
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(name)))
    return torch.from_numpy(generator.standard_normal(shape).astype(np.float32))


@pytest.fixture(scope="module")
def golden(shared_dir):
    with np.load(shared_dir / "goldens" / "efficientmfd.npz") as arrays:
        wanted = ("logits_all", "boxes_all", "fused")
        return {
            key: torch.from_numpy(arrays[key])
            for key in arrays
            if key in wanted or key.startswith("train.")
        }


@pytest.fixture(scope="module")
def truth(golden):
    targets = golden["train.targets"]
    return Objects(targets[:, :4], targets[:, 4].long())


@pytest.fixture(scope="module")
def jittered(truth):
    boxes = truth.boxes[torch.arange(60) % 3] + 6 * drawn(b"1:match_boxes", (60, 4))
    return drawn(b"1:match_logits", (60, 6)), boxes


def test_assignment_equals_the_published_one(golden, truth, jittered):
    last = match_proposals(golden["logits_all"][-1], golden["boxes_all"][-1], truth, SIZE)
    assert last.tolist() == golden["train.match_last"].tolist()
    assert match_proposals(*jittered, truth, SIZE).tolist() == golden["train.match_jitter"].tolist()


def test_detection_losses_equal_the_published_ones(golden, truth, jittered):
    stages = (golden["logits_all"][:, None], golden["boxes_all"][:, None])
    losses = detection_losses(*stages, [truth], SIZE).double()
    torch.testing.assert_close(losses, golden["train.det_losses"], rtol=1e-4, atol=0)
    logits, boxes = jittered
    losses = detection_losses(logits[None, None], boxes[None, None], [truth], SIZE)[0].double()
    torch.testing.assert_close(losses, golden["train.det_losses_jitter"], rtol=1e-4, atol=0)


def test_fusion_losses_equal_the_published_ones(golden, truth, shared_dir):
    spec = importlib.util.spec_from_file_location("fill", shared_dir / "goldens" / "fill.py")
    fill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fill)
    visible, infrared = (
        torch.from_numpy(np.rint(fill.draw_image(name, shape, 1) * np.float32(255))) / 255
        for name, shape in (("vi", (1, 3, *SIZE)), ("ir", (1, 1, *SIZE)))
    )
    losses = joint_fusion_losses(
        golden["fused"].view(1, 1, *SIZE),
        infrared,
        visible.amax(dim=1, keepdim=True),
        object_mask([truth.boxes], SIZE),
    )
    torch.testing.assert_close(losses.double(), golden["train.fusion_losses"], rtol=1e-4, atol=0)


def random_boxes(rng, count, size):
    low = rng.uniform(0, 0.8, (count, 2))
    high = low + rng.uniform(0.05, 0.4, (count, 2))
    scale = (size[1], size[0]) * 2
    return torch.from_numpy(np.concatenate((low, high), axis=1) * scale)


def overlap(a, b):
    """IoU and generalised IoU of two boxes."""
    inner = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0).prod()
    union = (a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - inner
    hull = (np.maximum(a[2:], b[2:]) - np.minimum(a[:2], b[:2])).prod()
    return inner / union, inner / union - (hull - union) / hull


def plainly_matched(logits, boxes, objects, labels, size):
    """The rule again, one proposal and one object at a time."""
    p, scale = 1 / (1 + np.exp(-logits)), np.array((size[1], size[0]) * 2)
    count = len(labels)
    cost, iou = np.zeros((len(boxes), count)), np.zeros((len(boxes), count))
    for i, box in enumerate(boxes):
        centre, candidate = (box[:2] + box[2:]) / 2, False
        for j, (target, label) in enumerate(zip(objects, labels, strict=True)):
            sides, middle = target[2:] - target[:2], (target[:2] + target[2:]) / 2
            within = bool(np.all(centre > target[:2]) and np.all(centre < target[2:]))
            near = bool(np.all(np.abs(centre - middle) < 2.5 * sides))
            candidate |= within or near
            q = p[i, label]
            focal = -0.25 * (1 - q) ** 2 * np.log(q + 1e-8)
            focal += 0.75 * q**2 * np.log(1 - q + 1e-8)
            iou[i, j], giou = overlap(box, target)
            cost[i, j] = 5 * np.abs(box / scale - target / scale).sum() + 2 * focal - 2 * giou
            cost[i, j] += 0 if within and near else 100
        cost[i] += 0 if candidate else 10000
    served = [set() for _ in boxes]

    def settle():
        for i, owners in enumerate(served):
            if len(owners) > 1:
                served[i] = {min(owners, key=lambda j: cost[i, j])}

    for j in range(count):
        k = max(1, int(np.sort(iou[:, j])[-5:].sum()))
        for i in np.argsort(cost[:, j])[:k]:
            served[i].add(j)
    settle()
    while empty := set(range(count)) - set().union(*served):
        for i, owners in enumerate(served):
            cost[i] += 100000 if owners else 0
        for j in empty:
            served[int(cost[:, j].argmin())].add(j)
        settle()
    return [next(iter(owners)) if owners else UNMATCHED for owners in served]


@pytest.mark.parametrize("seed", range(40))
def test_assignment_follows_its_rule(seed):
    rng = np.random.default_rng(seed)
    size, count = (60, 80), int(rng.integers(1, 7))
    objects = random_boxes(rng, count, size)
    if seed % 2:  # crowds of equal objects compete for the same proposals
        objects = objects[:1] + torch.from_numpy(rng.normal(size=(count, 4)))
    # So many that some are free: five are the most that an object takes.
    boxes = random_boxes(rng, int(rng.integers(5 * count, 40)), size)
    labels = torch.from_numpy(rng.integers(3, size=count))
    logits = torch.from_numpy(rng.normal(size=(len(boxes), 3)))
    found = match_proposals(logits, boxes, Objects(objects, labels), size).tolist()
    arrays = (logits.numpy(), boxes.numpy(), objects.numpy(), labels.numpy())
    assert found == plainly_matched(*arrays, size)
    assert set(range(count)) <= set(found)  # nobody is left out


def test_assignment_has_limits():
    boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [0.0, 0.0, 0.0, 0.0]])
    nothing = Objects(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
    assert match_proposals(torch.zeros(2, 1), boxes, nothing, SIZE).tolist() == [UNMATCHED] * 2
    crowd = Objects(boxes[:1].expand(3, 4), torch.zeros(3, dtype=torch.long))
    # Two good boxes for the first object, and none is left for a second one just like it.
    twins, couple = boxes[:1].repeat(2, 1), Objects(boxes[:1].repeat(2, 1), crowd.labels[:2])
    assert match_proposals(torch.zeros(2, 1), twins, couple, SIZE).tolist() == [0, 0]
    with pytest.raises(DataError, match="holds 3 objects, the network proposes 2 boxes"):
        match_proposals(torch.zeros(2, 1), boxes, crowd, SIZE)


def test_classes_without_labels_cost_nothing():
    rng = np.random.default_rng(0)
    size = (60, 80)
    logits = torch.from_numpy(rng.normal(size=(1, 2, 8, 3))).requires_grad_()
    boxes = random_boxes(rng, 16, size).view(1, 2, 8, 4)
    objects = [
        Objects(random_boxes(rng, 2, size), torch.tensor([0, 1])),
        Objects(torch.zeros(0, 4, dtype=torch.double), torch.zeros(0, dtype=torch.long)),
    ]
    labelled = torch.tensor([[True, True, False], [True, False, True]])
    losses = detection_losses(logits, boxes, objects, size, labelled=labelled)
    (gradient,) = torch.autograd.grad(losses[0, 0], logits)
    assert (gradient.abs().sum(dim=2)[0] > 0).tolist() == labelled.tolist()
    nothing = detection_losses(logits[:, 1:], boxes[:, 1:], objects[1:], size)
    assert nothing[0, 1:].tolist() == [0, 0]
    assert nothing[0, 0] > 0


def test_brightness_aims_at_the_sum_on_objects():
    infrared, visible = torch.full((1, 1, 20, 30), 0.5), torch.full((1, 1, 20, 30), 0.25)
    mask = object_mask([torch.tensor([[2.9, 3.2, 10.9, 40.0]])], (20, 30))
    assert mask.sum() == (10 - 2) * (20 - 3)
    assert mask[0, 0, 3, 2] == mask[0, 0, 19, 9] == 1
    wanted = 0.5 + 0.25 * mask
    assert joint_fusion_losses(wanted, infrared, visible, mask)[2] == 0
    flat = joint_fusion_losses(torch.full_like(wanted, 0.5), infrared, visible, mask)[2]
    assert flat.item() == pytest.approx(0.25 * mask.mean().item())


def standing_out(picture):
    """Saliency of the article: distance from every pixel, level by level."""
    levels = np.rint(picture * 255).astype(int)
    counts = [int((levels == i).sum()) for i in range(256)]
    return np.vectorize(lambda level: sum(n * abs(level - i) for i, n in enumerate(counts)))(levels)


def difference_from_blur(picture, width):
    """The picture less its Gaussian, sigma 2, black beyond the border."""
    reach = width // 2
    window = np.exp(-(np.arange(-reach, reach + 1) ** 2) / 8.0)
    kernel = np.outer(window, window) / window.sum() ** 2
    return picture - cv2.filter2D(picture, -1, kernel, borderType=cv2.BORDER_CONSTANT)


def test_the_losses_of_the_article_are_those_that_it_prints():
    rng = np.random.default_rng(0)
    infrared, visible, fused = rng.random((3, 2, 18, 26)) * [[[[0.5]], [[0.9]]]]
    mask = np.zeros((2, 18, 26))
    mask[0, 4:11, 6:20] = 1
    detail, brightness = np.zeros(2), np.zeros(2)
    for i, (x, y, u, m) in enumerate(zip(infrared, visible, fused, mask, strict=True)):
        for width in (3, 5, 7):
            dx, dy, du = (difference_from_blur(picture, width) for picture in (x, y, u))
            detail[i] += ((du - np.maximum(dx, dy)) ** 2).mean()
        first = standing_out(x) / (standing_out(x) + standing_out(y))
        products = first * x, (1 - first) * y
        brightness[i] = np.abs(m * (u - np.maximum(*products))).mean()
        brightness[i] += np.abs((1 - m) * (u - np.add(*products) / 2)).mean()
    images = [torch.from_numpy(i).float()[:, None] for i in (fused, infrared, visible, mask)]
    found = joint_fusion_losses(*images, "paper")
    assert found[1:].tolist() == pytest.approx([detail.mean(), brightness.mean()], rel=1e-5)
    released = joint_fusion_losses(*images)
    assert found[0] == released[0]  # structure is common to both
    assert (found[1:] < 0.9 * released[1:]).all()


def test_pictures_that_do_not_stand_out_share_alike():
    flat, other = torch.full((1, 1, 20, 30), 0.25), torch.full((1, 1, 20, 30), 0.75)
    mask = object_mask([torch.tensor([[0.0, 0.0, 30.0, 10.0]])], (20, 30))
    wanted = torch.where(mask > 0, 0.75 / 2, (0.25 / 2 + 0.75 / 2) / 2)
    assert joint_fusion_losses(wanted, flat, other, mask, "paper")[2] == 0


def test_pooling_on_the_own_level_alone_is_the_same():
    rng = np.random.default_rng(0)
    pyramid = tuple(torch.from_numpy(rng.normal(size=(2, 4, 64 >> i, 96 >> i))) for i in range(4))
    boxes = random_boxes(rng, 40, (700, 900)).view(2, 20, 4)
    boxes[0, 0] = torch.tensor([5.0, 5.0, 5.0, 5.0])
    expected = pool_by_roi_align(pyramid, boxes)
    torch.testing.assert_close(pool_on_own_level(pyramid, boxes), expected, rtol=0, atol=1e-12)


def test_noisy_boxes_start_from_the_objects():
    boxes = torch.tensor([[10.0, 20.0, 60.0, 90.0], [80.0, 30.0, 150.0, 110.0]])

    rng = np.random.default_rng(0)
    start = noisy_latents(boxes, 5, SIZE, 0, rng)
    assert start.shape == (5, 4)
    found = latents_to_boxes(start, SIZE)
    # At time 0 the noise is 0.0064 of 4 units of signal that span the image.
    distance = torch.cdist(boxes, found, p=float("inf")).amin(dim=1)
    assert distance.max() < 5 * 0.0064 / 4 * SIZE[1] * 1.5
    noise = torch.cat([noisy_latents(boxes, 100, SIZE, 999, rng) for _ in range(40)])
    assert noise.mean(dim=0).abs().max() < 0.06
    assert (noise.std(dim=0) - 1).abs().max() < 0.06
    assert noisy_latents(boxes[:0], 4, SIZE, 500, rng).isfinite().all()
    assert noisy_latents(boxes.repeat(5, 1), 4, SIZE, 500, rng).shape == (4, 4)
