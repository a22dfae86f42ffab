"""The selective scan as an ONNX function: what a runtime without a kernel of its own executes.

A graph holds one opaque node ``SelectiveScan`` of the domain ``mmfusion`` per scan. A runtime
that knows the operator replaces it; any other inlines this function, whose
body is an ONNX ``Scan``. Inputs, output and semantics are those of
`mmfusion.layers.selective_scan.selective_scan`; every length is dynamic.

One iteration of the ``Scan`` takes several time steps: decays, inputs and outputs of all of
them are formed by one operator each, only the recurrence itself is unrolled. A padded step has
step size 0, which leaves the state as it is.
"""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

DOMAIN = "mmfusion"
DOMAIN_VERSION = 1
OPSET = 20
STEPS_PER_ITERATION = 16  # measured best by benchmarks/selective_scan.py; flat from 8 to 32


class _Nodes(list[NodeProto]):
    """Nodes in order, each call naming its output."""

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self._names = (f"{prefix}{index}" for index in count())

    def add(self, op: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        output = output or next(self._names)
        self.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def constant(self, values: list[int]) -> str:
        tensor = numpy_helper.from_array(np.array(values, np.int64))
        return self.add("Constant", value=tensor)


def selective_scan_function(steps: int = STEPS_PER_ITERATION) -> onnx.FunctionProto:
    """Build the function ``mmfusion::SelectiveScan(u, step, a, b, c, d) -> y``.

    Args:
        steps: time steps per iteration of the inner ``Scan``.
    """
    nodes = _Nodes("t")
    length = nodes.add("Shape", "u", start=1, end=2)
    tail = nodes.add("Shape", "u", start=2, end=4)  # (K, D)
    tail_states = nodes.add("Shape", "b", start=2, end=4)  # (K, S)
    images = nodes.add("Shape", "u", start=0, end=1)
    missing = nodes.add("Mod", nodes.add("Neg", length), nodes.constant([steps]))
    pads = nodes.add(
        "Concat", nodes.constant([0, 0, 0, 0, 0]), missing, nodes.constant([0, 0]), axis=0
    )

    def chunked(name: str, last: str) -> str:
        time_first = nodes.add("Transpose", nodes.add("Pad", name, pads), perm=[1, 0, 2, 3])
        shape = nodes.add("Concat", nodes.constant([-1, steps]), images, last, axis=0)
        return nodes.add("Reshape", time_first, shape)

    chunks = [chunked("step", tail), chunked("u", tail)]
    chunks += [chunked("b", tail_states), chunked("c", tail_states)]
    # States before channels: operators then run along the longer axis.
    a = nodes.add("Transpose", "a", perm=[0, 2, 1], output="a_by_state")
    state_shape = nodes.add("Concat", nodes.constant([1]), images, nodes.add("Shape", a), axis=0)
    zero = helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0])
    start = nodes.add("ConstantOfShape", state_shape, value=zero)
    nodes.append(
        helper.make_node(
            "Scan",
            [start, *chunks],
            ["end_state", "y_chunks"],
            num_scan_inputs=len(chunks),
            body=_iteration(steps),
        )
    )
    flat = nodes.add(
        "Reshape", "y_chunks", nodes.add("Concat", nodes.constant([-1]), images, tail, axis=0)
    )
    cut = nodes.add("Slice", flat, nodes.constant([0]), length, nodes.constant([0]))
    scanned = nodes.add("Transpose", cut, perm=[1, 0, 2, 3])
    nodes.add("Add", scanned, nodes.add("Mul", "d", "u"), output="y")
    return helper.make_function(
        DOMAIN,
        "SelectiveScan",
        ["u", "step", "a", "b", "c", "d"],
        ["y"],
        nodes,
        [helper.make_opsetid("", OPSET)],
        doc_string="Selective scan, see mmfusion.layers.selective_scan.",
    )


def _iteration(steps: int) -> onnx.GraphProto:
    """Body of the ``Scan``: `steps` time steps; `a_by_state` is captured from outside."""
    nodes = _Nodes("s")
    last, third = nodes.constant([-1]), nodes.constant([3])
    step = nodes.add("Unsqueeze", "step_chunk", third)
    decay = nodes.add("Exp", nodes.add("Mul", step, "a_by_state"))
    signal = nodes.add("Unsqueeze", nodes.add("Mul", "step_chunk", "u_chunk"), third)
    inputs = nodes.add("Mul", signal, nodes.add("Unsqueeze", "b_chunk", last))
    decays = [f"decay{i}" for i in range(steps)]
    gains = [f"gain{i}" for i in range(steps)]
    nodes.append(helper.make_node("Split", [decay], decays, axis=0, num_outputs=steps))
    nodes.append(helper.make_node("Split", [inputs], gains, axis=0, num_outputs=steps))
    state, states = "state_in", []
    for decay_i, gain_i in zip(decays, gains, strict=True):
        state = nodes.add("Add", nodes.add("Mul", decay_i, state), gain_i)
        states.append(state)
    all_states = nodes.add("Concat", *states, axis=0)
    outputs = nodes.add("MatMul", nodes.add("Unsqueeze", "c_chunk", third), all_states)
    nodes.add("Squeeze", outputs, third, output="y_chunk")
    nodes.add("Identity", state, output="state_out")

    def value(name: str, rank: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank)

    chunks = [value(f"{name}_chunk", 4) for name in ("step", "u", "b", "c")]
    return helper.make_graph(
        nodes,
        "selective_scan_steps",
        [value("state_in", 5), *chunks],
        [value("state_out", 5), value("y_chunk", 4)],
    )


def add_selective_scan(model: onnx.ModelProto) -> None:
    """Give a model with ``SelectiveScan`` nodes the function they call."""
    if not any(node.op_type == "SelectiveScan" for node in model.graph.node):
        return
    model.functions.append(selective_scan_function())
    if not any(opset.domain == DOMAIN for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, DOMAIN_VERSION))
