"""The selective scan in two levels is the selective scan."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from mmfusion_ros.core.engines.tensorrt.scan_loop import scan_in_two_levels
from mmfusion_ros.core.engines.tensorrt.scan_plugin import SCAN

DOMAIN, OPERATOR = SCAN


def reference(u, step, a, b, c, d):
    """Step after step, in float64."""
    u, step, a, b, c, d = (array.astype(np.float64) for array in (u, step, a, b, c, d))
    state = np.zeros((u.shape[0], *a.shape))
    y = np.zeros_like(u)
    for t in range(u.shape[1]):
        decay = np.exp(step[:, t, :, :, None] * a)
        state = decay * state + (step * u)[:, t, :, :, None] * b[:, t, :, None, :]
        y[:, t] = np.einsum("ikds,iks->ikd", state, c[:, t]) + d * u[:, t]
    return y


def model_of(length, *, told=True):
    images, k, channels, states = 2, 3, 4, 5
    shapes = {
        "u": [images, length, k, channels],
        "step": [images, length, k, channels],
        "a": [k, channels, states],
        "b": [images, length, k, states],
        "c": [images, length, k, states],
        "d": [k, channels],
    }
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Identity", ["u"], ["u_within"]),
            helper.make_node(
                OPERATOR, ["u_within", *list(shapes)[1:]], ["y"], name="scan", domain=DOMAIN
            ),
        ],
        "scan",
        [
            value(name, TensorProto.FLOAT, shape if told else [None] * len(shape))
            for name, shape in shapes.items()
        ],
        [value("y", TensorProto.FLOAT, [None] * 4)],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9), shapes


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("length", [1, 2, 7, 18, 50, 333])
def test_it_is_the_recurrence(length, told):
    model, shapes = model_of(length, told=told)
    random = np.random.default_rng(length)
    inputs = {name: random.standard_normal(s).astype(np.float32) for name, s in shapes.items()}
    inputs["step"] = np.log1p(np.exp(inputs["step"]))
    inputs["a"] = -np.exp(inputs["a"])
    scan_in_two_levels(model, SCAN)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (given,) = session.run(None, inputs)
    np.testing.assert_allclose(given, reference(**inputs), rtol=1e-4, atol=1e-5)


def test_chunks_follow_the_length():
    model, _ = model_of(5000)
    scan_in_two_levels(model, SCAN)
    assert [function.name for function in model.functions] == ["SelectiveScanIn50"]
