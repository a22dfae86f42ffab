"""Bytes as TensorRT has them: at the edges of a graph, floats within."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from mmfusion_ros.core.errors import EngineError

# These move values or compare them: floats give the same as bytes. Arithmetic on bytes could wrap.
_ALIKE = {
    *("Cast", "Compress", "Concat", "ConstantOfShape", "DepthToSpace", "Equal", "Expand"),
    *("Flatten", "Gather", "GatherElements", "GatherND", "Greater", "GreaterOrEqual", "Identity"),
    *("Less", "LessOrEqual", "Max", "Min", "Pad", "Reshape", "Shape", "Slice", "SpaceToDepth"),
    *("Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where"),
}


def bytes_at_the_edges(model: onnx.ModelProto) -> None:
    """Let nothing but inputs and outputs be of bytes; what the graph computes stays the same.

    TensorRT takes bytes in and puts them out, but converts them from and to floats only and does
    nothing else with them. A float32 holds each byte exactly.

    Args:
        model: changed in place; without functions.

    Raises:
        EngineError: if the graph does arithmetic on bytes.
    """
    graph = model.graph
    _refuse_arithmetic(model)
    edges = [value.name for value in (*graph.input, *graph.output) if _is_bytes(value)]
    within = {name: f"{name}_as_float" for name in edges}
    nodes = [made for node in graph.node for made in _without_bytes(node)]
    for node in nodes:
        _rename(node, within)
    into = [
        _cast(value.name, within[value.name], TensorProto.FLOAT)
        for value in graph.input
        if _is_bytes(value)
    ]
    out = [
        _cast(within[value.name], value.name, TensorProto.UINT8)
        for value in graph.output
        if _is_bytes(value)
    ]
    del graph.node[:]
    graph.node.extend([*into, *nodes, *out])
    for initializer in graph.initializer:
        if initializer.data_type == TensorProto.UINT8:
            initializer.CopyFrom(_as_float(initializer))
    # They tell the types of before, and nobody needs them.
    del graph.value_info[:]


def _refuse_arithmetic(model: onnx.ModelProto) -> None:
    graph = onnx.shape_inference.infer_shapes(model).graph
    of_bytes = {
        value.name for value in (*graph.input, *graph.output, *graph.value_info) if _is_bytes(value)
    }
    of_bytes |= {each.name for each in graph.initializer if each.data_type == TensorProto.UINT8}
    for node in graph.node:
        if node.op_type not in _ALIKE and of_bytes.intersection(node.input):
            raise EngineError(
                f"node {node.name} ({node.op_type}) computes with bytes, which TensorRT does not; "
                "convert them to floats before it and export the artifact again"
            )


def _is_bytes(value: onnx.ValueInfoProto) -> bool:
    return bool(value.type.tensor_type.elem_type == TensorProto.UINT8)


def _without_bytes(node: NodeProto) -> Iterator[NodeProto]:
    """The node, or what gives the same as floats if it makes bytes."""
    for attribute in node.attribute:
        if attribute.HasField("t") and attribute.t.data_type == TensorProto.UINT8:
            attribute.t.CopyFrom(_as_float(attribute.t))
    to = next((attribute.i for attribute in node.attribute if attribute.name == "to"), None)
    if node.op_type != "Cast" or to != TensorProto.UINT8:
        yield node
        return
    # Fractions are cut off here, as by the conversion to bytes.
    whole = f"{node.output[0]}_whole"
    first = _cast(node.input[0], whole, TensorProto.INT32)
    first.name = node.name
    yield first
    yield _cast(whole, node.output[0], TensorProto.FLOAT)


def _as_float(tensor: TensorProto) -> TensorProto:
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)


def _cast(given: str, made: str, to: int) -> NodeProto:
    return helper.make_node("Cast", [given], [made], name=f"bytes/Cast_{given}_{made}", to=to)


def _rename(node: NodeProto, names: dict[str, str]) -> None:
    """In the node and in the bodies it has, which see the values around them."""
    for values in (node.input, node.output):
        for place, name in enumerate(values):
            values[place] = names.get(name, name)
    for attribute in node.attribute:
        if attribute.HasField("g"):
            for inner in attribute.g.node:
                _rename(inner, names)
