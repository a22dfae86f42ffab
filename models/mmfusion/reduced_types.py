"""A graph whose networks compute in a shorter floating point type.

TensorRT takes the precision of each layer from the types in the graph, so what is to be computed
in half precision must be written down as such. Where the types change, a Cast stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

_KEPT_INPUTS = {"Resize": {1, 2}}  # region and scales are float32 in every precision
_SUFFIX = "_reduced"


def reduce_types(
    model: onnx.ModelProto, to: int, chosen: Callable[[NodeProto], bool]
) -> onnx.ModelProto:
    """A copy of a model in which the chosen nodes compute in another floating point type.

    Inputs and outputs of the graph stay as they are, and so do nodes whose operator does not take
    the type. Constants beyond its range become its largest values.

    Args:
        model: with float32 as its only floating point type between nodes.
        to: ``TensorProto.FLOAT16`` or ``TensorProto.BFLOAT16``.
        chosen: whether a node is to be changed.
    """
    reduced = onnx.ModelProto()
    reduced.CopyFrom(model)
    pass_ = _Pass(reduced, to, chosen)
    nodes = list(pass_.nodes())
    del reduced.graph.node[:]
    reduced.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in reduced.graph.initializer if tensor.name in used]
    del reduced.graph.initializer[:]
    reduced.graph.initializer.extend([*kept, *pass_.constants])
    del reduced.graph.value_info[:]
    return reduced


class _Pass:
    """One walk over the nodes in their order."""

    def __init__(
        self, model: onnx.ModelProto, to: int, chosen: Callable[[NodeProto], bool]
    ) -> None:
        graph = model.graph
        opsets = {entry.domain: entry.version for entry in model.opset_import}
        self.constants: list[TensorProto] = []
        self._to = to
        self._opsets = opsets
        self._wanted = chosen
        self._given = list(graph.node)
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._floats = _float_values(model)
        self._short: set[str] = set()  # values there is a short form of, under its own name
        wide = [name for node in self._given if not self._chosen(node) for name in node.input]
        self._wide = {*wide, *(value.name for value in graph.output)}

    def _chosen(self, node: NodeProto) -> bool:
        return self._wanted(node) and _takes(node, self._to, self._opsets)

    def nodes(self) -> Iterator[NodeProto]:
        """The nodes of the reduced graph, casts among them."""
        for node in self._given:
            if self._chosen(node):
                yield from self._shortened(node)
            else:
                yield node

    def _shortened(self, node: NodeProto) -> Iterator[NodeProto]:
        kept = _KEPT_INPUTS.get(node.op_type, set())
        for index, name in enumerate(node.input):
            if name in self._floats and index not in kept:
                if name not in self._short:
                    yield from self._shorten(name)
                node.input[index] = name + _SUFFIX
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = self._to
            elif attribute.type == onnx.AttributeProto.TENSOR:
                attribute.t.CopyFrom(self._tensor(attribute.t, attribute.t.name))
        longer = []
        for index, name in enumerate(node.output):
            if name in self._floats:
                node.output[index] = name + _SUFFIX
                self._short.add(name)
                if name in self._wide or self._is_kept_input(name):
                    longer.append(self._cast(name + _SUFFIX, name, TensorProto.FLOAT))
        yield node
        yield from longer

    def _is_kept_input(self, name: str) -> bool:
        return any(
            name == value and index in _KEPT_INPUTS[node.op_type]
            for node in self._given
            if node.op_type in _KEPT_INPUTS
            for index, value in enumerate(node.input)
        )

    def _shorten(self, name: str) -> Iterator[NodeProto]:
        self._short.add(name)
        if name in self._initializers:
            self.constants.append(self._tensor(self._initializers[name], name + _SUFFIX))
        else:
            yield self._cast(name, name + _SUFFIX, self._to)

    def _cast(self, source: str, target: str, to: int) -> NodeProto:
        return helper.make_node("Cast", [source], [target], name=f"{target}/Cast", to=to)

    def _tensor(self, tensor: TensorProto, name: str) -> TensorProto:
        if tensor.data_type != TensorProto.FLOAT:
            return tensor
        largest = float(np.finfo(np.float16).max)
        values = numpy_helper.to_array(tensor)
        if self._to == TensorProto.FLOAT16:
            values = values.clip(-largest, largest)
        dtype = helper.tensor_dtype_to_np_dtype(self._to)
        return numpy_helper.from_array(values.astype(dtype), name)


def _takes(node: NodeProto, to: int, opsets: Mapping[str, int]) -> bool:
    """Whether an operator is defined for a type wherever it is for float32."""
    if not onnx.defs.has(node.op_type, node.domain):
        return False  # a function of the model's own
    schema = onnx.defs.get_schema(node.op_type, opsets[node.domain], node.domain)
    wanted = f"tensor({helper.tensor_dtype_to_string(to).removeprefix('TensorProto.').lower()})"
    return all(
        wanted in constraint.allowed_type_strs
        for constraint in schema.type_constraints
        if "tensor(float)" in constraint.allowed_type_strs
    )


def _float_values(model: onnx.ModelProto) -> set[str]:
    """Names of all float32 values of the graph."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = [*graph.input, *graph.value_info, *graph.output]
    floats = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    return floats | {t.name for t in graph.initializer if t.data_type == TensorProto.FLOAT}
