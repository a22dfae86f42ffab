"""An artifact's graph in the form that OpenVINO reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


def readable_graph(path: Path) -> bytes:
    """The graph without what OpenVINO's reader refuses, computing the same.

    Model-local functions are put in where they are called. What the body of a ``Scan`` takes from
    the graph around it is handed in as a state that never changes.

    Needs ``onnx``. What it raises of a file that is no graph comes out.
    """
    import onnx.inliner  # noqa: PLC0415 (heavy, and optional)

    model = onnx.inliner.inline_local_functions(onnx.load(path))
    for node in model.graph.node:
        if node.op_type == "Scan":
            _hand_in(node)
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
