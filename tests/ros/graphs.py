"""Tiny graphs, each with one operator that is asked about."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write_graph(
    path: Path,
    *nodes: onnx.NodeProto,
    inputs: dict[str, list[int]] | None = None,
    constants: dict[str, np.ndarray] | None = None,
) -> Path:
    """Write ``x`` (1, 3, 16, 16) -> Relu -> ``a`` -> nodes -> ``b`` -> Relu -> ``y``."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Relu", ["x"], ["a"], name="stem/Relu_0"),
            *nodes,
            helper.make_node("Relu", ["b"], ["y"], name="head/Relu_9"),
        ],
        "tiny",
        [
            value(name, TensorProto.FLOAT, shape)
            for name, shape in {"x": [1, 3, 16, 16], **(inputs or {})}.items()
        ],
        [value("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    opset = helper.make_opsetid("", 20)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=9), path)
    return path
