"""The scan against the plain recurrence in float64, in eager mode and as an ONNX graph."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from mmfusion.layers import selective_scan as module
from mmfusion.layers.selective_scan import selective_scan, selective_scan_reference

pytestmark = pytest.mark.torch


def draw(seed, images, steps, directions, channels, states, low=1e-4, high=0.5):
    """Random inputs; step sizes log-uniform in [low, high]."""
    rng = np.random.default_rng(seed)
    arrays = (
        rng.standard_normal((images, steps, directions, channels)),
        np.exp(rng.uniform(np.log(low), np.log(high), (images, steps, directions, channels))),
        -rng.uniform(0.01, 18, (directions, channels, states)),
        rng.standard_normal((images, steps, directions, states)),
        rng.standard_normal((images, steps, directions, states)),
        rng.standard_normal((directions, channels)),
    )
    return [torch.from_numpy(array) for array in arrays]


shapes = st.tuples(
    st.integers(0, 2**32 - 1),
    st.integers(1, 3),  # images
    st.integers(1, 70),  # steps
    st.integers(1, 4),  # directions
    st.integers(1, 5),  # channels
    st.integers(1, 6),  # states
)


@settings(max_examples=60, deadline=None)
@given(shapes, st.integers(1, 300), st.sampled_from([(1e-6, 1e-3), (1e-3, 0.5), (1.0, 200.0)]))
def test_equals_the_recurrence_whatever_the_chunks(shape, chunk_elements, step_range):
    inputs = draw(*shape, *step_range)
    kept = module._CHUNK_ELEMENTS
    module._CHUNK_ELEMENTS = chunk_elements
    try:
        y = selective_scan(*inputs)
    finally:
        module._CHUNK_ELEMENTS = kept
    torch.testing.assert_close(y, selective_scan_reference(*inputs), rtol=1e-11, atol=1e-11)


@settings(max_examples=25, deadline=None)
@given(shapes, st.integers(1, 300))
def test_gradients_equal_those_of_the_recurrence(shape, chunk_elements):
    inputs = [x.requires_grad_() for x in draw(*shape)]
    kept = module._CHUNK_ELEMENTS
    module._CHUNK_ELEMENTS = chunk_elements
    try:
        ours = torch.autograd.grad(selective_scan(*inputs).sin().sum(), inputs)
    finally:
        module._CHUNK_ELEMENTS = kept
    theirs = torch.autograd.grad(selective_scan_reference(*inputs).sin().sum(), inputs)
    for gradient, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-9)


def test_float32_stays_near_float64_over_a_long_memory():
    inputs = draw(0, 1, 5000, 2, 4, 6, low=1e-4, high=1e-2)
    exact = selective_scan_reference(*inputs)
    y = selective_scan(*(x.float() for x in inputs)).double()
    assert (y - exact).abs().max() / exact.abs().max() < 2e-6


def test_no_steps_give_no_output():
    assert selective_scan(*draw(0, 2, 0, 4, 3, 5)).shape == (2, 0, 4, 3)


def test_a_shape_that_does_not_fit_is_named():
    u, step, a, b, c, d = draw(0, 1, 7, 4, 3, 5)
    with pytest.raises(ValueError, match=r"b is \(1, 6, 4, 5\), expected \(1, 7, 4, 5\)"):
        selective_scan(u, step, a, b[:, 1:], c, d)
    with pytest.raises(ValueError, match=r"u \(N, T, K, D\)"):
        selective_scan(u[0], step, a, b, c, d)


def test_equals_the_golden_scan(shared_dir):
    golden = np.load(shared_dir / "goldens" / "s4fusion.npz")

    def time_first(name, channels):
        array = golden[f"scan.{name}"]
        grouped = array.reshape(array.shape[0], 4, channels, -1)
        return torch.from_numpy(grouped.transpose(0, 3, 1, 2).copy())

    bias = torch.from_numpy(golden["scan.delta_bias"]).view(4, 3)
    y = selective_scan(
        time_first("u", 3),
        torch.nn.functional.softplus(time_first("delta", 3) + bias),
        torch.from_numpy(golden["scan.A"]).view(4, 3, 5),
        time_first("B", 5),
        time_first("C", 5),
        torch.from_numpy(golden["scan.D"]).view(4, 3),
    )
    assert (y - time_first("y", 3)).abs().max() < 2e-6


@pytest.fixture(scope="module")
def session():
    """The function body that a runtime without a kernel of its own executes."""
    onnx = pytest.importorskip("onnx")
    ort = pytest.importorskip("onnxruntime")
    from onnx import helper

    from mmfusion.layers.selective_scan_onnx import add_selective_scan

    ranks = {"u": 4, "step": 4, "a": 3, "b": 4, "c": 4, "d": 2}

    def value(name, rank):
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None] * rank)

    node = helper.make_node("SelectiveScan", list(ranks), ["y"], domain="mmfusion")
    graph = helper.make_graph(
        [node], "scan", [value(*item) for item in ranks.items()], [value("y", 4)]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    add_selective_scan(model)
    onnx.checker.check_model(model, full_check=True)
    return ort.InferenceSession(model.SerializeToString())


@settings(max_examples=60, deadline=None)
@given(shapes, st.sampled_from([(1e-6, 1e-3), (1e-3, 0.5), (1.0, 200.0)]))
def test_the_onnx_function_equals_the_recurrence(session, shape, step_range):
    inputs = draw(*shape, *step_range)
    names = ("u", "step", "a", "b", "c", "d")
    feeds = {n: x.float().numpy() for n, x in zip(names, inputs, strict=True)}
    (y,) = session.run(None, feeds)
    expected = selective_scan_reference(*inputs).numpy()
    scale = 1 + np.abs(expected).max()
    np.testing.assert_allclose(y / scale, expected / scale, atol=3e-6)
