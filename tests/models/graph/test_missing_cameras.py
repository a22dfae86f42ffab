"""Any camera may be missing: what comes out stays sensible, and does not jump about."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from compositions import as_bytes, drawn_inputs, flags, write_composition

from mmfusion.composition import read_composition
from mmfusion.export import build_graph
from mmfusion.graph.depth import NEUTRAL_DEPTH

pytestmark = pytest.mark.torch
ALL = ("rgb", "depth", "thermal")


@pytest.fixture(scope="module", params=["s4fusion", "joint"])
def graph(request, tmp_path_factory):
    changes = {"fusion": "detection"} if request.param == "joint" else {}
    return build_graph(
        read_composition(write_composition(tmp_path_factory.mktemp("weights"), **changes))
    )[0]


def run(graph, inputs, *present, **more):
    feeds = inputs | {"present": flags(*present)} | more
    with torch.inference_mode():
        outputs = graph(**{name: torch.from_numpy(array) for name, array in feeds.items()})
    return {name: tensor.numpy() for name, tensor in outputs.items()}


def real_inputs(graph, shared_dir, stem):
    folder = shared_dir / "data" / "rgbdt" / "val"
    rgb = cv2.imread(str(folder / "rgb" / f"{stem}.jpg"))[..., ::-1]
    thermal = cv2.imread(str(folder / "thermal" / f"{stem}.png"), cv2.IMREAD_UNCHANGED)
    depth = cv2.imread(str(folder / "depth" / f"{stem}.png"), cv2.IMREAD_UNCHANGED)
    return drawn_inputs(graph) | {
        "rgb": np.ascontiguousarray(cv2.resize(rgb, (160, 120), interpolation=cv2.INTER_AREA)),
        "thermal": as_bytes(cv2.resize(thermal, (160, 120))),
        "depth": as_bytes(depth[::8, ::8]),
    }


def without(inputs, camera):
    """The same frame, the bytes of one camera being whatever was in memory."""
    junk = np.random.default_rng(9).integers(0, 256, inputs[camera].shape, np.uint8)
    return inputs | {camera: junk}


@pytest.mark.parametrize("present", [("rgb",), ("rgb", "thermal"), ("rgb", "depth"), ("thermal",)])
def test_what_is_not_there_has_no_influence(graph, present):
    inputs = drawn_inputs(graph)
    expected = run(graph, inputs, *present)
    for camera in set(ALL) - set(present):
        found = run(graph, without(inputs, camera), *present)
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array, err_msg=f"{name} without {camera}")


@pytest.mark.parametrize("present", [ALL, ("rgb", "thermal"), ("rgb", "depth"), ("rgb",)])
def test_every_set_of_cameras_gives_usable_outputs(graph, shared_dir, present):
    inputs = real_inputs(graph, shared_dir, "mm5_071")
    outputs = run(graph, inputs, *present)
    boxes, scores = outputs["boxes"], outputs["scores"]
    assert np.isfinite(boxes).all()
    assert ((scores > 0) & (scores < 1)).all()
    assert np.isfinite(outputs["box_depth"]).any() == ("depth" in present)
    assert outputs["saliency"].std() > 0
    assert outputs["fused"].std() > 5


def test_without_thermal_the_fused_picture_is_the_rgb_picture(graph, shared_dir):
    inputs = real_inputs(graph, shared_dir, "mm5_231")
    np.testing.assert_array_equal(run(graph, inputs, "rgb", "depth")["fused"], inputs["rgb"])


def test_without_depth_the_saliency_network_sees_the_neutral_map(graph):
    seen = []
    hook = graph.saliency.network.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    inputs = drawn_inputs(graph)
    run(graph, inputs, "rgb")
    run(graph, inputs | {"depth": np.zeros_like(inputs["depth"])}, "rgb", "depth")
    hook.remove()
    for depth in seen:
        assert (depth == NEUTRAL_DEPTH).all()


def test_where_thermal_does_not_see_the_networks_see_luma(graph):
    seen = []
    hook = graph.joint.network.register_forward_pre_hook(lambda _, args: seen.append(args))
    inputs = drawn_inputs(graph)
    run(graph, inputs, "rgb")
    hook.remove()
    visible, infrared = seen[0]
    luma = (visible * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    torch.testing.assert_close(infrared, luma, atol=1e-3, rtol=0)


@pytest.mark.parametrize("stem", ["mm5_071", "mm5_231"])
def test_nothing_turns_black_when_a_camera_comes_and_goes(graph, shared_dir, stem):
    inputs = real_inputs(graph, shared_dir, stem)
    carried = {"thermal_range": np.zeros(2, np.float32)}
    frames = []
    for present in (ALL, ALL, ("rgb", "depth"), ("rgb",), ALL, ("rgb", "thermal"), ALL):
        outputs = run(graph, inputs, *present, **carried)
        carried = {"thermal_range": outputs["thermal_range_next"]}
        frames.append((present, outputs))
    plain = inputs["rgb"].mean()
    steady = frames[1][1]
    for present, outputs in frames:
        # The joint network has drawn weights here: only the trained one is held to a bound.
        if graph.fusion is not None:
            assert 0.7 * plain < outputs["fused"].mean() < 1.6 * plain
        if present == ALL:  # the same again, whatever went on between
            for name in ("fused", "saliency", "boxes"):
                np.testing.assert_array_equal(outputs[name], steady[name])
