"""An artifact's graph in the form that OpenVINO reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

FORM = 3  # of what is made here: what was measured on another one does not count
_WITH_ZERO_POINT = 3  # inputs of QuantizeLinear


def readable_graph(graph: bytes) -> bytes:
    """The graph without what OpenVINO refuses or gets wrong, computing the same.

    Model-local functions are put in where they are called. What the body of a ``Scan`` takes from
    the graph around it is handed in as a state that never changes. What a convolution reads is
    quantised to unsigned bytes.

    Needs ``onnx``. What it raises of what is no ONNX file comes out.
    """
    import onnx.inliner  # noqa: PLC0415 (heavy, and optional)

    model = onnx.inliner.inline_local_functions(onnx.load_from_string(graph))
    for node in model.graph.node:
        if node.op_type == "Scan":
            _hand_in(node)
    _read_unsigned(model.graph)
    encoded: bytes = model.SerializeToString()
    return encoded


def _hand_in(scan: onnx.NodeProto) -> None:
    from onnx import helper  # noqa: PLC0415

    body = next(attribute.g for attribute in scan.attribute if attribute.name == "body")
    count = next(a.i for a in scan.attribute if a.name == "num_scan_inputs")
    states = len(scan.input) - count
    captured = list(dict.fromkeys(_captured(body)))
    for place, name in enumerate(captured, start=states):
        kept = f"{name}_kept_by_{scan.output[0]}"
        # No shape: it is known outside, and the reader takes it from there.
        body.input.insert(place, helper.make_empty_tensor_value_info(name))
        body.node.append(helper.make_node("Identity", [name], [kept]))
        body.output.insert(place, helper.make_empty_tensor_value_info(kept))
        scan.input.insert(place, name)
        scan.output.insert(place, f"{kept}_last")


def _read_unsigned(graph: onnx.GraphProto) -> None:
    """Let convolutions read unsigned bytes instead of signed ones: 128 more, zero point included.

    Behind a ``Concat``, OpenVINO puts values into a convolution's signed bytes without dividing
    them by their scale. A matrix product keeps its signed bytes, which it gets right there;
    unsigned ones it refuses, unless the ``Concat`` is of the last axis.
    """
    from onnx import numpy_helper  # noqa: PLC0415

    zero_points = {tensor.name: tensor for tensor in graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for quantise in graph.node:
        if quantise.op_type != "QuantizeLinear" or len(quantise.input) < _WITH_ZERO_POINT:
            continue
        signed = zero_points.get(quantise.input[2])
        back = readers.get(quantise.output[0], [])
        layers = [layer for node in back for layer in readers.get(node.output[0], [])]
        if (
            signed is not None
            and signed.data_type == signed.INT8
            and any(layer.op_type == "Conv" for layer in layers)
        ):
            unsigned = numpy_helper.to_array(signed).astype(np.int16) + 128
            name = f"{quantise.output[0]}_unsigned_zero_point"
            graph.initializer.append(numpy_helper.from_array(unsigned.astype(np.uint8), name))
            for node in (quantise, *back):
                node.input[2] = name
    # Some tell the old types.
    del graph.value_info[:]


def _captured(body: onnx.GraphProto) -> Iterator[str]:
    """Values that a body uses and that nothing in it gives."""
    given = {value.name for value in (*body.input, *body.initializer)}
    for node in body.node:
        yield from (name for name in _used(node) if name and name not in given)
        given.update(node.output)


def _used(node: onnx.NodeProto) -> Iterable[str]:
    yield from node.input
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield from _captured(attribute.g)
