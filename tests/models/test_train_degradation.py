"""Faults of cameras: each does what it says, and what stands in is what a graph shows."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("torchvision", reason="torchvision is not installed")

from torchvision import tv_tensors

from mmfusion.errors import DataError
from mmfusion.graph.camera_graph import _see
from mmfusion.graph.depth import NEUTRAL_DEPTH, DepthMapping
from mmfusion.graph.depth_range import DepthRange
from mmfusion.train.augmentation import to_floats, to_sample
from mmfusion.train.degradation import Degradation, degrade
from mmfusion.train.scenes import Scene

pytestmark = pytest.mark.torch

SIZE = (48, 64)


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture
def sample():
    """What a robot sees, with boxes and a mask that belong to its RGB frame."""
    generator = torch.Generator().manual_seed(0)
    rgb = torch.randint(256, (3, *SIZE), generator=generator) / 255
    thermal = torch.randint(256, (1, *SIZE), generator=generator) / 255
    depth = 1 + 3 * torch.rand(1, *SIZE, generator=generator)
    depth[:, :5] = 0
    return {
        "rgb": rgb,
        "thermal": thermal,
        "depth": depth,
        "mask": (depth > 2).float(),
        "boxes": torch.tensor([[1.0, 2, 30, 40]]),
    }


def luma(rgb):
    return (rgb * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(dim=0, keepdim=True)


def test_nothing_happens_by_default(sample):
    result = degrade(sample, Degradation(), rng())
    assert result["present"].tolist() == [1, 1, 1]
    for name, entry in sample.items():
        assert torch.equal(result[name], entry)


def test_what_a_sample_does_not_have_is_not_present(sample):
    del sample["depth"], sample["thermal"]
    result = degrade(sample, Degradation(drop_depth=1, frozen_thermal=1, drop_thermal=1), rng())
    assert result.keys() == {"rgb", "mask", "boxes", "present"}
    assert result["present"].tolist() == [1, 0, 0]
    assert torch.equal(result["rgb"], sample["rgb"])


def test_rgb_stands_in_for_missing_thermal(sample):
    how = Degradation(drop_thermal=1, noise_rgb=1, noise_sigma=0.1)
    result = degrade(sample, how, rng())
    assert result["present"].tolist() == [1, 1, 0]
    torch.testing.assert_close(result["thermal"], luma(result["rgb"]))
    assert not torch.equal(result["rgb"], sample["rgb"])
    grey = {"rgb": sample["rgb"][:1], "thermal": sample["thermal"]}
    assert torch.equal(degrade(grey, Degradation(drop_thermal=1), rng())["thermal"], grey["rgb"])


def test_thermal_stands_in_for_missing_rgb(sample):
    result = degrade(sample, Degradation(drop_rgb=1), rng())
    assert result["present"].tolist() == [0, 1, 1]
    assert torch.equal(result["rgb"], sample["thermal"].expand(3, *SIZE))
    assert torch.equal(result["thermal"], sample["thermal"])
    del sample["thermal"]
    assert degrade(sample, Degradation(drop_rgb=1), rng())["rgb"].abs().max() == 0


@pytest.mark.parametrize("missing", [(), ("rgb",), ("thermal",), ("rgb", "thermal")])
def test_stand_ins_are_those_of_a_compiled_graph(sample, missing):
    how = Degradation(
        **{f"drop_{name}": 1 for name in missing},
        misregistered_thermal=1,
        misregistration_pixels=9,
    )
    found = degrade(sample, how, rng(5))
    # How much of thermal is in sight, and what is seen of it, where nothing stands in.
    black = {**sample, "rgb": torch.zeros_like(sample["rgb"])}
    shifted = Degradation(misregistered_thermal=1, misregistration_pixels=9)
    seen = degrade(black, shifted, rng(5))["thermal"]
    sees = degrade({**black, "thermal": torch.ones(1, *SIZE)}, shifted, rng(5))["thermal"]
    assert 0 < sees.mean() < 1
    pixels = (sample["rgb"] * 255).round().to(torch.uint8).permute(1, 2, 0)
    has_rgb, has_thermal = (float(name not in missing) for name in ("rgb", "thermal"))
    thermal = (seen / sees.clamp(min=1e-3))[None]
    graph = _see(pixels, torch.tensor(has_rgb), thermal, (sees * has_thermal)[None])
    for name, picture in (("rgb", graph.rgb[0]), ("thermal", graph.infrared[0])):
        torch.testing.assert_close(found[name], picture, rtol=0, atol=1e-5)
    assert found["present"].tolist() == [has_rgb, 1, has_thermal]


def test_missing_depth_is_neutral(sample):
    result = degrade(sample, Degradation(drop_depth=1), rng())
    assert result["present"].tolist() == [1, 0, 1]
    depth = result["depth"][None]
    shown = DepthMapping(SIZE, (24, 32), DepthRange())(depth, (depth > 0).float())
    assert (shown == NEUTRAL_DEPTH).all()


def test_one_picture_is_always_left(sample):
    everything = Degradation(drop_rgb=1, drop_depth=1, drop_thermal=1)
    assert degrade(sample, everything, rng())["present"].tolist() == [1, 0, 0]
    del sample["rgb"]
    assert degrade(sample, everything, rng())["present"].tolist() == [0, 1, 0]


def test_faults_happen_as_often_as_asked(sample):
    generator = rng()
    how = Degradation(drop_rgb=0.1, drop_depth=0.3, drop_thermal=0.5)
    flags = torch.stack([degrade(sample, how, generator)["present"] for _ in range(600)])
    shares = 1 - flags.mean(dim=0)
    assert shares.tolist() == pytest.approx([0.1, 0.3, 0.5], abs=0.06)


def test_noise_is_a_share_of_white_and_of_the_distance(sample):
    sample["rgb"], sample["thermal"] = torch.full((3, *SIZE), 0.5), torch.full((1, *SIZE), 0.5)
    how = Degradation(noise_rgb=1, noise_depth=1, noise_thermal=1, noise_sigma=0.05)
    generator, deviations = rng(), []
    for _ in range(40):
        result = degrade(sample, how, generator)
        known = sample["depth"] > 0
        assert (result["depth"][~known] == 0).all()
        relative = (result["depth"] / sample["depth"])[known] - 1
        spread = [result["rgb"].std().item(), result["thermal"].std().item(), relative.std().item()]
        deviations.append(spread)
    assert np.max(deviations) < 0.055
    assert np.max(deviations, axis=0) == pytest.approx(0.045, abs=0.01)
    assert np.mean(deviations, axis=0) == pytest.approx(0.025, abs=0.008)
    large = {**sample, "rgb": 255 * sample["rgb"], "thermal": 255 * sample["thermal"]}
    first, second = (degrade(s, how, rng(7), white=w) for s, w in ((large, 255), (sample, 1)))
    torch.testing.assert_close(first["rgb"] / 255, second["rgb"])
    strong = degrade(sample, Degradation(noise_rgb=1, noise_sigma=50), rng())["rgb"]
    assert (strong.amin(), strong.amax()) == (0, 1)


def test_misregistration_moves_against_rgb(sample):
    sample["thermal"] = torch.zeros(1, *SIZE)
    sample["thermal"][0, 20, 30] = 1
    how = Degradation(misregistered_thermal=1, misregistered_depth=1, misregistration_pixels=6)
    generator, shifts = rng(), []
    for _ in range(40):
        result = degrade({**sample, "rgb": torch.zeros(3, *SIZE)}, how, generator)
        row, column = divmod(int(result["thermal"].argmax()), SIZE[1])
        shifts.append((row - 20, column - 30))
        assert set(result["depth"].unique().tolist()) <= set(sample["depth"].unique().tolist())
        for name in ("mask", "boxes"):
            assert result[name] is sample[name]
    assert np.abs(shifts).max() in (5, 6)
    assert len(set(shifts)) > 20
    turned = Degradation(misregistered_thermal=1, misregistration_degrees=30)
    sample["thermal"] = torch.zeros(1, *SIZE)
    sample["thermal"][0, 22:26] = 1
    heights = [
        int(
            (degrade(sample | {"rgb": torch.zeros(3, *SIZE)}, turned, generator)["thermal"] > 0.5)
            .any(dim=2)
            .sum()
        )
        for _ in range(10)
    ]
    assert max(heights) > 10


def test_out_of_sight_is_luma(sample):
    how = Degradation(misregistered_thermal=1, misregistration_pixels=8)
    for seed in range(5):
        dark, bright = (
            degrade({**sample, "thermal": torch.full((1, *SIZE), value)}, how, rng(seed))["thermal"]
            for value in (0.0, 1.0)
        )
        sees = bright - dark
        assert 0.6 < sees.mean() < 1
        torch.testing.assert_close(dark, (1 - sees) * luma(sample["rgb"]), rtol=0, atol=1e-5)


def test_blur_takes_detail_and_keeps_the_mean(sample):
    how = Degradation(blur_rgb=1, blur_thermal=1, blur_sigma=3)
    result = degrade(sample, how, rng(1))
    for name in ("rgb", "thermal"):
        assert result[name].std() < 0.5 * sample[name].std()
        assert result[name].mean() == pytest.approx(sample[name].mean().item(), abs=0.02)
    assert torch.equal(result["depth"], sample["depth"])
    for size, same in (((1, 40), True), ((3, 3), False)):
        tiny = torch.rand(3, *size)
        strong = degrade({"rgb": tiny}, Degradation(blur_rgb=1, blur_sigma=50), rng())["rgb"]
        assert strong.isfinite().all()
        assert torch.equal(strong, tiny) == same


def test_a_frozen_picture_is_the_own_one_moved(sample):
    generator, moves = rng(), []
    for _ in range(10):
        for name in ("depth", "thermal"):
            how = Degradation(**{f"frozen_{name}": 1})
            whole = degrade(sample, how, generator)
            assert whole["present"].tolist() == [1, 1, 1]  # nobody has noticed
            for kept in {"rgb", "depth", "thermal"} - {name}:
                assert torch.equal(whole[kept], sample[kept])
            result = whole[name]
            was = sample[name][0, 10:38, 14:50]
            places = [
                (down, right)
                for down in range(-4, 5)
                for right in range(-6, 7)
                if torch.allclose(result[0, 10 + down : 38 + down, 14 + right : 50 + right], was)
            ]
            assert len(places) == 1
            moves += places
    down, right = np.abs(moves).max(axis=0)
    assert (down, right) == (4, 6)  # a tenth of the sides, at most


def test_holes_take_their_share_in_blotches(sample):
    sample["depth"] = torch.ones(1, 120, 160)
    how = Degradation(holes_depth=1, holes_share=0.5)
    generator, shares = rng(), []
    for _ in range(30):
        hole = degrade(sample, how, generator)["depth"] == 0
        shares.append(hole.float().mean().item())
        edges = (hole[..., 1:] != hole[..., :-1]).float().mean()
        assert edges < 0.25 * max(shares[-1], 0.1)
    assert max(shares) <= 0.5
    assert np.mean(shares) == pytest.approx(0.25, abs=0.08)


def test_a_seed_decides_whatever_torch_draws(sample):
    how = Degradation(**dict.fromkeys(Degradation.__dataclass_fields__, 0.5))
    results = []
    for _ in range(2):
        torch.rand(3)
        state = torch.random.get_rng_state()
        generator = rng(3)
        results.append([degrade(sample, how, generator, white=1.0) for _ in range(5)])
        assert torch.equal(torch.random.get_rng_state(), state)
    kept = {name: entry.clone() for name, entry in sample.items()}
    for first, second in zip(*results, strict=True):
        assert all(torch.equal(first[name], second[name]) for name in first)
    for name, entry in kept.items():
        assert torch.equal(sample[name], entry)


def test_augmented_scenes_can_be_degraded():
    pixels = np.full((*SIZE, 3), 80, np.uint8)
    scene = Scene("s", pixels, np.full(SIZE, 900, np.uint16), pixels[..., 0])
    how = Degradation(drop_depth=1, blur_rgb=1, blur_sigma=1)
    result = degrade(to_floats(to_sample(scene)), how, rng())
    assert isinstance(result["mask"], tv_tensors.Mask)
    assert type(result["rgb"]) is type(result["depth"]) is torch.Tensor
    assert result["present"].tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"noise_depth": 0.2}, "degradation noise_depth is 0.2 but noise_sigma 0; expected a str"),
        ({"holes_depth": 0.2}, "degradation holes_depth is 0.2 but holes_share 0; expected a str"),
        (
            {"misregistered_depth": 1},
            "misregistered_depth is 1 but misregistration_pixels and misregistration_degrees 0; e",
        ),
    ],
)
def test_impossible_degradations_are_refused(fields, told):
    with pytest.raises(DataError) as caught:
        Degradation(**fields)
    assert told in str(caught.value)


def test_one_strength_of_two_is_enough():
    Degradation(misregistered_depth=1, misregistration_degrees=2)
    Degradation(noise_sigma=0.1)
