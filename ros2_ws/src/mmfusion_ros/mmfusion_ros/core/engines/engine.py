"""What every backend gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

if TYPE_CHECKING:
    from typing_extensions import Self

    from mmfusion_ros.core.engines.precision_gate import GateResult

ONNX = "onnx"


class Engine(Protocol):
    """A loaded graph; backends derive from this.

    Attributes:
        backend: that runs it.
        precision: that it is run in.
        builder: what it was built from: ``onnx``, the artifact's graph, or a compiler's name.
        form: of the graph that is made of the artifact's for the library; 0 if it takes that as it
            is.
        selective_scan: how it computes that operator; empty if it runs no graph.
        gate: comparison with fp32 that let it pass; None where none was needed.
        stands_in: why it runs instead of the engine that was asked for; empty if it is that one.
    """

    backend: str
    precision: str
    form: int = 0
    selective_scan: str
    builder: str = ONNX
    gate: GateResult | None = None
    stands_in: str = ""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """Run the graph once.

        Args:
            inputs: every input of the artifact, C-contiguous, of its dtype and shape.

        Returns:
            Every output by name; the arrays stay valid until the next run.

        Raises:
            EngineError: if the engine fails; it may be closed and opened again.
        """

    def close(self) -> None:
        """Release everything; calling it again does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
