"""Weights that a file stores in half, as TensorRT's parser wants them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def weights_in_float32(model: onnx.ModelProto) -> None:
    """Fold each Cast of a float16 constant to float32.

    Behind a Cast, weights are no constants to the parser: some versions refuse such a convolution,
    others leave it to the builder to find out that they never change.

    Args:
        model: changed in place.
    """
    graph = model.graph
    halves = {
        each.name: each for each in graph.initializer if each.data_type == TensorProto.FLOAT16
    }
    nodes, widened = [], set()
    for node in graph.node:
        if _widens(node) and node.input[0] in halves:
            half = halves[node.input[0]]
            values = numpy_helper.to_array(half).astype(np.float32)
            graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
            widened.add(half.name)
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    # What computes in half, in the graph or in the body of a loop, goes on reading it.
    gone = widened - set(_read(graph))
    kept = [each for each in graph.initializer if each.name not in gone]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _read(graph: onnx.GraphProto) -> Iterator[str]:
    """Names that nodes read, bodies included, or that are put out."""
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from _read(body)
    yield from (value.name for value in graph.output)


def _widens(node: onnx.NodeProto) -> bool:
    return node.op_type == "Cast" and helper.get_node_attr_value(node, "to") == TensorProto.FLOAT
