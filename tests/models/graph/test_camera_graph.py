"""The whole way from bytes to bytes, in PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from mmfusion.errors import ExportError
from mmfusion.graph.camera_graph import Branches, CameraGraph
from mmfusion.graph.cameras import CameraSpec
from mmfusion.graph.luma_fusion import LumaFusion

pytestmark = pytest.mark.torch
SIZE = (24, 36)


class Brighter(torch.nn.Module):
    """A fusion one can predict: the brighter of both."""

    def forward(self, infrared, visible):
        return torch.maximum(infrared, visible)


def run(spec, present=(1, 1, 1), rgb=None, thermal=None, **more):
    graph = CameraGraph(spec, Branches(LumaFusion(Brighter()))).eval()
    inputs = graph.example_inputs() | more
    inputs["present"] = torch.tensor(present, dtype=torch.float32)
    if rgb is not None:
        inputs["rgb"] = rgb
    if thermal is not None:
        inputs["thermal"] = thermal
    with torch.inference_mode():
        return graph(**inputs)


def pack(counts):
    counts = np.ascontiguousarray(counts, dtype="<u2")
    return torch.from_numpy(counts.view(np.uint8).reshape(*counts.shape, 2))


@pytest.fixture
def rgb():
    return torch.from_numpy(np.random.default_rng(0).integers(20, 90, (*SIZE, 3), np.uint8))


@pytest.fixture
def person():
    """Counts of a cold scene with a warm square."""
    counts = np.full(SIZE, 29000, np.uint16)
    counts[8:16, 10:20] = 30500
    return pack(counts)


SPEC = CameraSpec(SIZE, SIZE, SIZE)


def test_warm_things_turn_bright_and_the_rest_keeps_its_colour(rgb, person):
    fused = run(SPEC, rgb=rgb, thermal=person)["fused"]
    assert fused.dtype == torch.uint8
    assert tuple(fused.shape) == (*SIZE, 3)
    assert fused[10:14, 12:18].float().mean() > 240
    outside = torch.ones(SIZE, dtype=torch.bool)
    outside[8:16, 10:20] = False
    assert (fused[outside].int() - rgb[outside].int()).abs().max() <= 1


def test_without_thermal_the_rgb_bytes_pass_unchanged(rgb, person):
    outputs = run(SPEC, (1, 1, 0), rgb, person, thermal_range=torch.tensor([5.0, 99.0]))
    assert torch.equal(outputs["fused"], rgb)
    assert outputs["thermal_range_next"].tolist() == [5, 99]


def test_without_rgb_the_picture_is_thermal_in_grey(rgb, person):
    fused = run(SPEC, (0, 1, 1), rgb, person)["fused"].int()
    assert (fused.amax(-1) - fused.amin(-1)).max() <= 1
    assert fused[10, 12, 0] == 255
    assert fused[0, 0, 0] == 0


def test_without_anything_the_picture_is_black(rgb, person):
    assert run(SPEC, (0, 0, 0), rgb, person)["fused"].max() == 0


def test_pixels_that_thermal_does_not_see_keep_their_rgb_bytes(rgb, person):
    spec = CameraSpec(SIZE, SIZE, SIZE, registration="homography")
    shift = torch.tensor([1.0, 0, 6, 0, 1, 0, 0, 0, 1])  # RGB pixel x lies at thermal x + 6
    fused = run(spec, rgb=rgb, thermal=person, rig=shift)["fused"]
    assert torch.equal(fused[:, 30:], rgb[:, 30:])
    assert fused[10:14, 6:12].float().mean() > 240  # the warm square, six pixels to the left


def test_fusion_is_told_where_thermal_sees(rgb, person):
    fusion, told = LumaFusion(Brighter()), []
    fusion.register_forward_pre_hook(lambda _, given: told.append(given[2]))
    spec = CameraSpec(SIZE, SIZE, SIZE, registration="homography")
    graph = CameraGraph(spec, Branches(fusion)).eval()
    shift = torch.tensor([1.0, 0, 6, 0, 1, 0, 0, 0, 1])
    for present, seen in (((1, 1, 1), 1), ((1, 1, 0), 0)):
        inputs = graph.example_inputs() | {"rgb": rgb, "thermal": person, "rig": shift}
        inputs["present"] = torch.tensor(present, dtype=torch.float32)
        with torch.inference_mode():
            graph(**inputs)
        assert (told[-1][..., :29] == seen).all()
        assert (told[-1][..., 30:] == 0).all()


def test_a_thermal_camera_of_another_size_is_scaled(rgb):
    counts = np.full((12, 18), 29000, np.uint16)
    counts[4:8, 5:10] = 30500
    spec = CameraSpec(SIZE, SIZE, (12, 18))
    fused = run(spec, rgb=rgb, thermal=pack(counts))["fused"]
    assert fused[10:14, 12:18].float().mean() > 240


def test_a_mono8_camera_gives_the_same_picture(rgb):
    counts = np.random.default_rng(1).integers(0, 256, SIZE, np.uint8)
    wide = run(SPEC, rgb=rgb, thermal=pack(counts))["fused"]
    spec = CameraSpec(SIZE, SIZE, SIZE, thermal_encoding="mono8")
    narrow = run(spec, rgb=rgb, thermal=torch.from_numpy(counts[..., None]))["fused"]
    assert torch.equal(wide, narrow)


def test_the_registered_thermal_comes_when_asked_for(rgb, person):
    spec = CameraSpec(SIZE, SIZE, SIZE, registered_thermal=True)
    registered = run(spec, rgb=rgb, thermal=person)["registered_thermal"]
    assert registered.dtype == torch.uint8
    assert registered[10, 12] == 255
    assert registered[0, 0] == 0
    assert "registered_thermal" not in run(SPEC, rgb=rgb, thermal=person)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rgb_size": (0, 5)}, "rgb_size is 0x5"),
        ({"thermal_encoding": "mono12"}, "thermal_encoding is 'mono12'; expected mono16 or mono8"),
        ({"registration": "guess"}, "registration is 'guess'"),
        ({"thermal_min_span": float("inf")}, "thermal_min_span is inf"),
        ({"thermal_min_span": 0}, "thermal_min_span is 0; expected counts above 0"),
    ],
)
def test_impossible_cameras_are_refused(wrong, message):
    with pytest.raises(ExportError, match=message):
        CameraSpec(**({"rgb_size": SIZE, "depth_size": SIZE, "thermal_size": SIZE} | wrong))
