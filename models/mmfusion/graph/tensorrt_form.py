"""A camera graph in the form that torch_tensorrt takes, computing the same.

TensorRT converts bytes from and to floats and does nothing else with them, and torch_tensorrt lacks
some operators. What it makes of a graph is of the torch_tensorrt that is named in
`mmfusion.tensorrt_compiler`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule, Interpreter
from torch.fx.node import Argument, Target
from torch.nn import functional
from torch.utils._pytree import tree_leaves, tree_map

_aten = torch.ops.aten


class TensorRTForm(nn.Module):
    """The graph with floats in place of bytes, and without the operators that are lacking.

    A float32 holds each byte exactly. Bytes may be moved, chosen and compared within: arithmetic
    on them, which could wrap, would give something else.
    """

    def __init__(self, program: ExportedProgram, dtypes: Mapping[str, torch.dtype]) -> None:
        """Take over what was exported.

        Args:
            program: takes its inputs by name.
            dtypes: of its outputs, by name.
        """
        super().__init__()
        self.program = program.module()
        self.inputs = program.graph_signature.user_inputs
        self.dtypes = dict(dtypes)

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Outputs of the program, bytes again where they are to be."""
        assert isinstance(self.program, GraphModule)  # noqa: S101 (as exported programs give)
        given = (_as_floats(inputs[str(name)]) for name in self.inputs)
        outputs = _Rewriting(self.program).run(*given)
        return {name: outputs[name].to(dtype) for name, dtype in self.dtypes.items()}


class _Rewriting(Interpreter):
    """Runs a graph with other operators."""

    def get_attr(self, target: Target, args: tuple[Argument, ...], kwargs: dict[str, Any]) -> Any:
        return _as_floats(super().get_attr(target, args, kwargs))

    def call_function(
        self, target: Target, args: tuple[Argument, ...], kwargs: dict[str, Any]
    ) -> Any:
        if target in _INSTEAD:
            return _INSTEAD[target](*args, **kwargs)
        given = (args, kwargs)
        if not any(value is torch.uint8 for value in tree_leaves(given)):
            return super().call_function(target, args, kwargs)
        # Fractions are cut off here, as by the conversion to bytes.
        args, kwargs = tree_map(lambda x: torch.int32 if x is torch.uint8 else x, given)
        return super().call_function(target, args, kwargs).float()


def _as_floats(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype == torch.uint8 else value


def _topk(values: Tensor, k: int, dim: int = -1, *others: Any) -> tuple[Tensor, Tensor]:
    """Not of a vector: it gives such to TensorRT as it is, which takes two dimensions at least."""
    if values.dim() != 1:
        as_it_is: tuple[Tensor, Tensor] = _aten.topk.default(values, k, dim, *others)
        return as_it_is
    best, index = torch.topk(values[None], k, -1, *others)
    return best[0], index[0]


def _all(values: Tensor, *args: Any) -> Tensor:
    """Of numbers too, which bytes have become."""
    false = ~values if values.dtype == torch.bool else values == 0
    return ~torch.any(false, *args)


def _avg_pool2d(  # noqa: PLR0917 (as many as the operator has)
    image: Tensor,
    kernel: list[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    ceil_mode: bool = False,  # noqa: FBT001, FBT002 (the same)
    count_include_pad: bool = True,  # noqa: FBT001, FBT002 (the same)
    divisor_override: int | None = None,
) -> Tensor:
    """Without blocks that reach beyond the picture; those of `layers.scaling.shrink` do."""
    blocks = ceil_mode and not any(padding) and list(stride) in ([], kernel)
    if not blocks or divisor_override is not None or image.dim() != 4 or len(kernel) != 2:
        as_it_is: Tensor = _aten.avg_pool2d.default(
            image, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override
        )
        return as_it_is
    down, right = (-side % length for side, length in zip(image.shape[-2:], kernel, strict=True))
    if not (down or right):
        return functional.avg_pool2d(image, kernel)
    there = functional.pad(torch.ones_like(image[:1, :1]), (0, right, 0, down))
    whole = functional.pad(image, (0, right, 0, down))
    return functional.avg_pool2d(whole, kernel) / functional.avg_pool2d(there, kernel)


def _stack(values: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Not of scalars: one that met a constant has become a vector of one for it."""
    if values[0].dim():
        return torch.stack(tuple(values), dim)
    return torch.cat([value.reshape(1) for value in values])


def _nothing(*_args: Any, **_kwargs: Any) -> None:
    """Dtypes were asserted, which are others now."""


_INSTEAD: dict[Any, Callable[..., Any]] = {
    _aten.topk.default: _topk,
    _aten.all.dim: _all,
    _aten.avg_pool2d.default: _avg_pool2d,
    _aten.stack.default: _stack,
    _aten._assert_tensor_metadata.default: _nothing,  # noqa: SLF001 (its name)
}
