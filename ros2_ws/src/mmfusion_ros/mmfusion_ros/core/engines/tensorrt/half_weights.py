"""Weights that a file stores in half, as TensorRT's parser wants them."""

from __future__ import annotations

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
    nodes = []
    for node in graph.node:
        half = halves.get(node.input[0]) if _widens(node) else None
        if half is None:
            nodes.append(node)
        else:
            values = numpy_helper.to_array(half).astype(np.float32)
            half.CopyFrom(numpy_helper.from_array(values, node.output[0]))
    del graph.node[:]
    graph.node.extend(nodes)


def _widens(node: onnx.NodeProto) -> bool:
    return node.op_type == "Cast" and helper.get_node_attr_value(node, "to") == TensorProto.FLOAT
