"""The selective scan in two levels, for a GPU that has no kernel of its own for it.

The exported loop takes the whole sequence in order: as many turns as steps, each of a few small
operations. Here the sequence is cut into chunks that are scanned side by side, so a turn is one
step of all of them: 2 sqrt(2 L) turns for L steps instead of L, each of many more numbers.

1. Each chunk is scanned from a state of zero, which gives what it adds to the state.
2. The states at the starts of the chunks follow, one after another.
3. Each chunk is scanned again from its own start, and puts out.
"""

from __future__ import annotations

import math
from itertools import count
from typing import Any

import numpy as np
import onnx
from onnx import FunctionProto, GraphProto, NodeProto, TensorProto, helper, numpy_helper

_OPSET = 20
_UNKNOWN_LENGTH = 2**16


def scan_in_two_levels(model: onnx.ModelProto, scan: tuple[str, str]) -> None:
    """Give the nodes of the selective scan functions of two levels, in place of their own.

    Args:
        model: changed in place.
        scan: domain and operator of the selective scan, with the inputs and the meaning of
            `mmfusion.layers.selective_scan`.
    """
    domain, operator = scan
    nodes = [n for n in model.graph.node if (n.domain, n.op_type) == scan]
    shapes = {
        value.name: [extent.dim_value for extent in value.type.tensor_type.shape.dim]
        for value in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    steps = {}
    for node in nodes:
        length = (shapes.get(node.input[0]) or [0, 0])[1] or _UNKNOWN_LENGTH
        chunk = max(1, round(math.sqrt(length / 2)))
        node.op_type = f"{operator}In{chunk}"
        steps[node.op_type] = chunk
    kept = [each for each in model.functions if (each.domain, each.name) != scan]
    del model.functions[:]
    model.functions.extend(
        [*kept, *(_function(domain, name, chunk) for name, chunk in steps.items())]
    )


class _Nodes(list[NodeProto]):
    """Nodes in order, each call naming its output."""

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self._names = (f"{prefix}{index}" for index in count())

    def add(self, op: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or next(self._names)
        self.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def whole(self, *numbers: int) -> str:
        tensor = numpy_helper.from_array(np.array(numbers, np.int64))
        return self.add("Constant", value=tensor)

    def loop(self, body: GraphProto, states: list[str], scanned: list[str]) -> list[str]:
        outputs = [next(self._names) for _ in body.output]
        self.append(
            helper.make_node(
                "Scan", [*states, *scanned], outputs, num_scan_inputs=len(scanned), body=body
            )
        )
        return outputs


def _function(domain: str, name: str, chunk: int) -> FunctionProto:
    nodes = _Nodes("t")
    length = nodes.add("Shape", "u", start=1, end=2)
    images = nodes.add("Shape", "u", start=0, end=1)
    missing = nodes.add("Mod", nodes.add("Neg", length), nodes.whole(chunk))
    zeros = nodes.whole(0, 0, 0, 0, 0)
    pads = nodes.add("Concat", zeros, missing, nodes.whole(0, 0), axis=0)

    def chunked(value: str) -> str:
        """(images, length, K, n) as (chunk, chunks, images, K, n); step size 0 keeps a state."""
        tail = nodes.add("Shape", value, start=2, end=4)
        shape = nodes.add("Concat", images, nodes.whole(-1, chunk), tail, axis=0)
        cut = nodes.add("Reshape", nodes.add("Pad", value, pads), shape)
        return nodes.add("Transpose", cut, perm=[2, 1, 0, 3, 4])

    u, step, b, c = (chunked(value) for value in ("u", "step", "b", "c"))
    a = nodes.add("Transpose", "a", perm=[0, 2, 1], output="a_by_state")  # (K, S, D)
    length_in_all = nodes.add("ReduceSum", step, nodes.whole(0), keepdims=0)
    decay = nodes.add(
        "Exp", nodes.add("Mul", nodes.add("Unsqueeze", length_in_all, nodes.whole(3)), a)
    )
    zero = nodes.add(
        "ConstantOfShape",
        nodes.add("Shape", decay),
        value=helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0]),
    )
    (added,) = nodes.loop(_one_step(puts_out=False), [zero], [step, u, b])
    first = nodes.add("Gather", zero, nodes.add("Squeeze", nodes.whole(0)), axis=0)
    _, starts = nodes.loop(_carry(), [first], [decay, added])
    _, outputs = nodes.loop(_one_step(puts_out=True), [starts], [step, u, b, c])
    in_order = nodes.add("Transpose", outputs, perm=[2, 1, 0, 3, 4])
    tail = nodes.add("Shape", "u", start=2, end=4)
    flat = nodes.add(
        "Reshape", in_order, nodes.add("Concat", images, nodes.whole(-1), tail, axis=0)
    )
    scanned = nodes.add("Slice", flat, nodes.whole(0), length, nodes.whole(1))
    nodes.add("Add", scanned, nodes.add("Mul", "d", "u"), output="y")
    return helper.make_function(
        domain,
        name,
        ["u", "step", "a", "b", "c", "d"],
        ["y"],
        nodes,
        [helper.make_opsetid("", _OPSET)],
    )


def _one_step(*, puts_out: bool) -> GraphProto:
    """One step of all chunks; `a_by_state` is captured from outside."""
    nodes = _Nodes("p" if puts_out else "s")
    before_channels, last = nodes.whole(3), nodes.whole(4)
    step = nodes.add("Unsqueeze", "step_now", before_channels)
    decay = nodes.add("Exp", nodes.add("Mul", step, "a_by_state"))
    signal = nodes.add("Unsqueeze", nodes.add("Mul", "step_now", "u_now"), before_channels)
    gain = nodes.add("Mul", signal, nodes.add("Unsqueeze", "b_now", last))
    nodes.add("Add", nodes.add("Mul", decay, "state_in"), gain, output="state_out")
    inputs = [_value("state_in", 5), *(_value(f"{name}_now", 4) for name in ("step", "u", "b"))]
    outputs = [_value("state_out", 5)]
    if puts_out:
        row = nodes.add("Unsqueeze", "c_now", before_channels)
        nodes.add("Squeeze", nodes.add("MatMul", row, "state_out"), before_channels, output="y_now")
        inputs.append(_value("c_now", 4))
        outputs.append(_value("y_now", 4))
    return helper.make_graph(nodes, "step_of_all_chunks", inputs, outputs)


def _carry() -> GraphProto:
    """The state goes through a chunk; what it was at the start is put out."""
    nodes = _Nodes("c")
    nodes.add("Add", nodes.add("Mul", "decay", "before"), "added", output="after")
    nodes.add("Identity", "before", output="start")
    return helper.make_graph(
        nodes,
        "chunk",
        [_value("before", 4), _value("decay", 4), _value("added", 4)],
        [_value("after", 4), _value("start", 4)],
    )


def _value(name: str, rank: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank)
