"""S4Fusion's loss against plain loops over pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import timm
from safetensors.torch import save_file

from mmfusion.errors import DataError
from mmfusion.train.classifier import Classifier
from mmfusion.train.information import calibrate_temperature, information, information_weights
from mmfusion.train.s4fusion_losses import (
    WEIGHTS,
    S4FusionLoss,
    entropy_loss,
    gradient_loss,
    intensity_loss,
    ssim_loss,
)
from mmfusion.train.sobel import sobel_magnitude

pytestmark = pytest.mark.torch

SOBEL_X = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
SOBEL_Y = np.array([[1, 2, 1], [0, 0, 0], [-1, -2, -1]])


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """Of drawn weights, as if these were pretrained."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("classifier") / "weights.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), path)
    return Classifier("test_resnet", path)


def draw(seed, batch=2, height=17, width=20):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, 1, height, width, generator=generator, dtype=torch.float64)


def sobel(picture):
    """Of one picture (H, W), a pixel at a time, black beyond the border."""
    padded = np.pad(picture, 1)
    magnitude = np.empty_like(picture)
    for y, x in np.ndindex(*picture.shape):
        window = padded[y : y + 3, x : x + 3]
        magnitude[y, x] = abs((SOBEL_X * window).sum()) + abs((SOBEL_Y * window).sum())
    return magnitude


def dissimilarity(one, other):
    """Of two pictures (H, W), a pixel at a time, with reflected borders."""
    offsets = np.arange(11) - 5
    window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    window /= window.sum()
    a, b = np.pad(one, 5, mode="reflect"), np.pad(other, 5, mode="reflect")
    total = 0.0
    for y, x in np.ndindex(*one.shape):
        p, q = a[y : y + 11, x : x + 11], b[y : y + 11, x : x + 11]
        mp, mq = (window * p).sum(), (window * q).sum()
        vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
        cov = (window * (p - mp) * (q - mq)).sum()
        ssim = (2 * mp * mq + 1e-4) * (2 * cov + 9e-4)
        ssim /= (mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4)
        total += min(max((1 - ssim) / 2, 0), 1)
    return total / one.size


FUSED, INFRARED, VISIBLE = draw(0), draw(1), draw(2)
SHARES = torch.tensor([[0.3, 0.7], [0.9, 0.1]], dtype=torch.float64)


def weighted(distance):
    """Mean over the batch of the distances from both sources by their shares."""
    return (
        np.mean(
            [
                share * distance(source[n, 0].numpy(), FUSED[n, 0].numpy())
                for n in range(2)
                for source, share in zip((INFRARED, VISIBLE), SHARES[n].tolist(), strict=True)
            ]
        )
        * 2
    )  # each picture has two entries in this mean


def test_the_structure_term():
    loss = ssim_loss(FUSED, INFRARED, VISIBLE, SHARES)
    assert loss.item() == pytest.approx(weighted(dissimilarity), rel=1e-5)
    same = ssim_loss(FUSED, FUSED, FUSED, SHARES)
    assert same.item() == pytest.approx(0, abs=1e-7)


def test_the_intensity_term():
    loss = intensity_loss(FUSED, INFRARED, VISIBLE, SHARES)
    assert loss.item() == pytest.approx(weighted(lambda a, b: np.abs(a - b).mean()))


def test_the_gradient_term():
    expected = np.mean(
        [
            np.abs(np.maximum(sobel(i), sobel(v)) - sobel(f)).mean()
            for i, v, f in zip(*(x[:, 0].numpy() for x in (INFRARED, VISIBLE, FUSED)), strict=True)
        ]
    )
    assert gradient_loss(FUSED, INFRARED, VISIBLE).item() == pytest.approx(expected)


def test_sobel_counts_the_border_of_a_bright_picture():
    magnitude = sobel_magnitude(torch.ones(1, 1, 4, 5))[0, 0]
    assert magnitude[0].tolist() == [6, 4, 4, 4, 6]
    assert magnitude[1].tolist() == [4, 0, 0, 0, 4]


def test_the_entropy_term():
    sure, unsure = torch.tensor([[50.0, 0, 0, 0]]), torch.zeros(1, 4)
    assert entropy_loss(sure).item() == pytest.approx(0, abs=1e-6)
    assert entropy_loss(unsure).item() == pytest.approx(math.log(4), rel=1e-6)
    both = torch.cat((sure, unsure))
    assert entropy_loss(both).item() == pytest.approx(math.log(4) / 2, rel=1e-6)
    assert entropy_loss(torch.tensor([[-1e4, 1e4]])).isfinite()


def test_the_whole_loss_and_its_gradient(classifier):
    fused, infrared, visible = (draw(seed, 2, 40, 48).float() for seed in range(3))
    fused.requires_grad_()
    terms = S4FusionLoss(classifier, 1e-2)(fused, infrared, visible)
    assert terms.keys() == WEIGHTS.keys()
    shares = information_weights(infrared, visible, classifier, 1e-2)
    assert torch.equal(terms["ssim"], ssim_loss(fused, infrared, visible, shares))
    assert torch.equal(terms["intensity"], intensity_loss(fused, infrared, visible, shares))
    assert torch.equal(terms["entropy"], entropy_loss(classifier(fused)))
    for term in terms.values():
        (gradient,) = torch.autograd.grad(term, fused, retain_graph=True)
        assert gradient.isfinite().all()
        assert gradient.any(dim=(1, 2, 3)).all()


def test_without_a_classifier_there_is_no_entropy():
    fused = FUSED.clone().requires_grad_()
    terms = S4FusionLoss(None, 0.5)(fused, INFRARED, VISIBLE)
    assert list(terms) == ["ssim", "intensity", "gradient"]
    torch.stack([WEIGHTS[name] * term for name, term in terms.items()]).sum().backward()
    assert fused.grad.any()


def test_the_loss_falls_to_the_one_source_there_is():
    """Both pictures alike: descending from noise finds them."""
    source = torch.nn.functional.avg_pool2d(draw(3, 1, 24, 24), 5, 1)
    fused = torch.full_like(source, 0.5).requires_grad_()
    loss_of = S4FusionLoss(None, 1.0)
    optimiser = torch.optim.Adam([fused], lr=0.01)
    losses = []
    for _ in range(60):
        terms = loss_of(fused, source, source)
        loss = torch.stack([WEIGHTS[name] * term for name, term in terms.items()]).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    assert (fused - source).abs().mean() < 0.02


class TestInformation:
    def test_of_a_classifier_is_that_of_its_stages(self, classifier):
        images = draw(4, 2, 64, 72).float()
        levels = []
        for stage in classifier.stages(images):
            squares = [[np.mean(sobel(c) ** 2) for c in picture] for picture in stage.numpy()]
            levels.append(np.mean(squares, axis=1))
        values = information(images, classifier)
        np.testing.assert_allclose(values.numpy(), np.mean(levels, axis=0), rtol=1e-4)
        assert not values.requires_grad

    def test_without_one_is_that_of_the_picture_and_its_averages(self):
        picture = draw(5, 1, 16, 24)[0, 0].numpy()
        energies = []
        for block in (1, 2, 4, 8):
            tiles = picture.reshape(16 // block, block, 24 // block, block)
            energies.append(np.mean(sobel(tiles.mean(axis=(1, 3))) ** 2))
        value = information(torch.from_numpy(picture)[None, None], None)
        assert value.item() == pytest.approx(np.mean(energies))

    @pytest.mark.parametrize("kind", ["classifier", "none"])
    def test_the_richer_picture_weighs_more(self, classifier, kind):
        judge = classifier if kind == "classifier" else None
        rich, poor = draw(6, 1, 64, 64).float(), torch.full((1, 1, 64, 64), 0.2)
        temperature = calibrate_temperature([(rich, poor)], judge)
        weights = information_weights(
            torch.cat((rich, poor)), torch.cat((poor, rich)), judge, temperature
        )
        assert weights.tolist() == [pytest.approx([0.75, 0.25]), pytest.approx([0.25, 0.75])]

    def test_weights_sum_to_one_at_any_temperature(self):
        for temperature in (1e-6, 1e-2, 1e3):
            weights = information_weights(INFRARED, VISIBLE, None, temperature)
            torch.testing.assert_close(weights.sum(dim=1), torch.ones(2, dtype=torch.float64))
            assert not weights.requires_grad

    def test_the_median_pair_is_weighed_three_to_one(self):
        pairs = [(draw(seed, 3), draw(seed + 50, 3) * 0.9) for seed in range(3)]
        temperature = calibrate_temperature(pairs, None)
        heavier = torch.cat(
            [information_weights(*pair, None, temperature).amax(dim=1) for pair in pairs]
        )
        assert heavier.median().item() == pytest.approx(0.75)
        assert heavier.min() > 0.5

    @pytest.mark.parametrize("pairs", [[], [(INFRARED, INFRARED)]], ids=["none", "alike"])
    def test_pairs_that_cannot_calibrate_are_refused(self, pairs):
        with pytest.raises(DataError, match="tell equally much"):
            calibrate_temperature(pairs, None)
