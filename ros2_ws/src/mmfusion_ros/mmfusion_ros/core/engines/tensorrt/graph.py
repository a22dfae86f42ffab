"""An artifact's graph in the form that TensorRT's parser takes."""

from __future__ import annotations

from pathlib import Path

from mmfusion_ros.core.engines.tensorrt.scan_plugin import SCAN, split_scans
from mmfusion_ros.core.errors import EngineError

FORM = 1  # of what is made here: another one makes another engine


# The field op_type of a node, as protobuf encodes it: its number and kind, length and text.
_SCAN_NODE = bytes([4 << 3 | 2, len(SCAN[1])]) + SCAN[1].encode()


def has_scan(graph: bytes) -> bool:
    """Whether a graph has a selective scan; ``onnx``, which a robot may lack, is not needed."""
    return _SCAN_NODE in graph


def parsable_graph(graph: bytes, origin: Path, *, scan_is_plugin: bool = False) -> bytes:
    """The graph without what TensorRT's parser refuses, computing the same.

    The selective scan is left to its plugin, or becomes that of `scan_in_two_levels`. Bytes are
    left at the edges only, see `bytes_at_the_edges`, and weights are in float32, see
    `weights_in_float32`. Model-local functions are put in where they are called: nothing that the
    parser says of a node in one tells which call it is of.

    Args:
        graph: content of an ONNX file.
        origin: where it comes from, for errors.
        scan_is_plugin: a plugin takes the selective scan, see `split_scans`.

    Raises:
        EngineError: if ``onnx`` is missing, or it is no graph that has such a form.
    """
    try:
        import onnx.inliner  # noqa: PLC0415 (heavy, and optional)

        from mmfusion_ros.core.engines.tensorrt.byte_edges import (  # noqa: PLC0415
            bytes_at_the_edges,
        )
        from mmfusion_ros.core.engines.tensorrt.half_weights import (  # noqa: PLC0415
            weights_in_float32,
        )
        from mmfusion_ros.core.engines.tensorrt.scan_loop import (  # noqa: PLC0415
            scan_in_two_levels,
        )
    except ImportError as error:
        raise EngineError(
            f"a graph for TensorRT cannot be prepared without onnx ({error}); install it with "
            "'pip install onnx'"
        ) from error
    try:
        model = onnx.load_from_string(graph)
        weights_in_float32(model)
        if scan_is_plugin:
            split_scans(model)
        else:
            scan_in_two_levels(model, SCAN)
        model = onnx.inliner.inline_local_functions(model)
        bytes_at_the_edges(model)
        encoded: bytes = model.SerializeToString()
    except EngineError:
        raise
    except Exception as error:  # those of onnx and protobuf share no other base
        raise EngineError(f"{origin} cannot be prepared for TensorRT: {error}") from error
    return encoded
