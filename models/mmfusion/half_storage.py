"""Weights that are stored in half, in a graph that computes in float32.

A float16 initializer and its Cast to float32 stand in place of a float32 initializer. Engines fold
the Cast when they load the graph, so the file is smaller and everything else is as before.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

_LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
_WEIGHT = 1  # of their inputs
_SMALL_BYTES = 1024  # the Cast itself takes a fifth of that
# Of a constant's largest magnitude. What float16 holds at all is rounded by this at most; what it
# has no range for, above or below, by more.
_MOST_ERROR = 2.0**-11
_SUFFIX = "_half"


def store_in_half(model: onnx.ModelProto, tables: Container[str]) -> None:
    """Round the weights of a model's layers to float16, as far as they survive it.

    Weights are learnt, from noise that is far above this rounding. Nothing else is touched: tables
    and sampling positions are exact, a selective scan compounds its rates over thousands of steps,
    and there is little to gain from biases and norms.

    Args:
        model: in float32, changed in place.
        tables: names of constants that are computed rather than learnt, such as the matrices that
            resize a picture or transform it to frequencies. In a product they look like weights.
    """
    graph = model.graph
    modules = {
        node.input[_WEIGHT]: node.name.rpartition("/")[0]
        for node in graph.node
        if node.op_type in _LAYERS
    }
    casts = []
    for tensor in graph.initializer:
        name = tensor.name
        if name not in modules or name in tables or tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if values.nbytes <= _SMALL_BYTES or _error(values, half) > _MOST_ERROR:
            continue
        tensor.CopyFrom(numpy_helper.from_array(half, name + _SUFFIX))
        casts.append(
            helper.make_node(
                "Cast",
                [tensor.name],
                [name],
                name=f"{modules[name]}/Cast_{name}",
                to=TensorProto.FLOAT,
            )
        )
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def widen(model: onnx.ModelProto) -> None:
    """Undo `store_in_half` but for the rounding, for who looks for weights in a layer's inputs.

    Args:
        model: changed in place.
    """
    graph = model.graph
    halves = {tensor.name: tensor for tensor in graph.initializer if tensor.name.endswith(_SUFFIX)}
    nodes = []
    for node in graph.node:
        if node.op_type == "Cast" and node.input[0] in halves:
            half = halves[node.input[0]]
            values = numpy_helper.to_array(half).astype(np.float32)
            half.CopyFrom(numpy_helper.from_array(values, node.output[0]))
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _error(values: NDArray[Any], rounded: NDArray[Any]) -> float:
    """Largest difference, as a share of the largest magnitude."""
    largest = float(np.abs(values).max())
    return float(np.abs(rounded.astype(np.float32) - values).max()) / largest if largest else 0.0
