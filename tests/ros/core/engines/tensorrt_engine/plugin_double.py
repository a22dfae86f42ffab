"""A stand-in for TensorRT's plugins in Python: documented interface, refusals as the library's.

``launches`` does for a graph of plugin nodes what a build does: it asks each plugin for types, then
for shapes, then for code and launch, and hands these out for somebody to run.
"""

from __future__ import annotations

import enum
import inspect
import sys
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Union


class DataType(enum.Enum):
    FLOAT = 0
    HALF = 1
    INT32 = 3


class SymInt32:
    """A whole number known while an engine is built; `None` while types alone are asked for."""

    def __init__(self, value: int | SymInt32 | None = None) -> None:
        self.value: int | None = value.value if isinstance(value, SymInt32) else value

    def _with(self, other: int | SymInt32, compute: Callable[[int, int], int]) -> ShapeExpr:
        other = SymInt32(other)
        if self.value is None or other.value is None:
            return ShapeExpr()
        return ShapeExpr(compute(self.value, other.value))

    def __mul__(self, other: int | SymInt32) -> ShapeExpr:
        return self._with(other, lambda a, b: a * b)

    def __bool__(self) -> bool:
        raise RuntimeError("Cannot evaluate symbolic expression as boolean.")


class ShapeExpr(SymInt32):
    pass


class SymExprs:
    ELEMENT: type = SymInt32

    def __init__(self, length: int) -> None:
        self._items: list[Any] = [None] * length

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Any:
        return self._items[index]

    def __setitem__(self, index: int, value: Any) -> None:
        if not isinstance(value, (int, self.ELEMENT)):
            raise ValueError(f"Value should be {self.ELEMENT}, got {type(value)}")  # noqa: TRY004
        self._items[index] = value if isinstance(value, self.ELEMENT) else self.ELEMENT(value)


class SymIntExprs(SymExprs):
    pass


class ShapeExprs(SymExprs):
    ELEMENT = ShapeExpr

    @property
    def values(self) -> tuple[int, ...]:
        return tuple(item.value for item in self)


class TensorDesc:
    def __init__(self, dtype: DataType, shape_expr: ShapeExprs, shape: Any = None) -> None:
        self.dtype, self.shape_expr, self.shape = dtype, shape_expr, shape
        self._immutable = True

    def like(self) -> TensorDesc:
        other = TensorDesc(self.dtype, self.shape_expr, self.shape)
        other.__dict__["_immutable"] = False
        return other

    def __setattr__(self, name: str, value: Any) -> None:
        if self.__dict__.get("_immutable"):
            raise ValueError("Cannot modify immutable TensorDesc properties")
        super().__setattr__(name, value)


class KernelLaunchParams:
    _FIELDS = ("grid_x", "grid_y", "grid_z", "block_x", "block_y", "block_z", "shared_mem")

    def __init__(self) -> None:
        for name in self._FIELDS:
            setattr(self, name, 0 if name == "shared_mem" else 1)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._FIELDS:
            raise AttributeError(f"KernelLaunchParams object has no attribute '{name}'")
        self.__dict__[name] = SymInt32(value)


def cdiv(first: int | SymInt32, second: int | SymInt32) -> ShapeExpr:
    if isinstance(first, int) and isinstance(second, int):
        raise ValueError("Both arguments cannot be 'int's")  # noqa: TRY004 (the library's)
    return SymInt32(first)._with(second, lambda a, b: -(-a // b))


@dataclass
class Definition:
    describe: Callable[..., Any]
    inputs: list[str]
    outputs: int
    implement: Callable[..., Any] | None = None


@dataclass(frozen=True)
class Launch:
    """What a node of an engine would launch."""

    entry: str
    ptx: str
    grid: tuple[int, ...]
    threads: int
    shared_bytes: int
    inputs: list[str]
    sizes: list[int]
    outputs: dict[str, tuple[DataType, tuple[int, ...]]] = field(default_factory=dict)


class TensorRTWithPlugins(ModuleType):
    """The module; put into ``sys.modules`` together with its ``plugin``."""

    float32, float16, int32 = DataType.FLOAT, DataType.HALF, DataType.INT32

    def __init__(self, monkeypatch: Any, *, ahead_of_time: bool = True) -> None:
        super().__init__("tensorrt_with_plugins")
        self.definitions: dict[str, Definition] = {}
        plugin = ModuleType(f"{self.__name__}.plugin")
        public = (KernelLaunchParams, ShapeExprs, SymExprs, SymInt32, SymIntExprs, TensorDesc, cdiv)
        for each in public:
            setattr(plugin, each.__name__, each)
        plugin.register = self._register  # type: ignore[attr-defined]
        if ahead_of_time:
            plugin.aot_impl = self._aot_impl  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, self.__name__, self)
        monkeypatch.setitem(sys.modules, plugin.__name__, plugin)

    def _register(self, identity: str) -> Callable[[Any], Any]:
        def decorate(describe: Any) -> Any:
            if identity in self.definitions:
                raise ValueError(f"already has a definition for '{identity}'")
            signature = inspect.signature(describe)
            for name, parameter in signature.parameters.items():
                if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD:
                    raise ValueError(f"Argument {name} is not a positional-or-keyword arg")
                if parameter.annotation is not TensorDesc:
                    raise ValueError(f"Attribute '{name}' is not a supported serializable type")
            result = signature.return_annotation
            kinds = typing.get_args(result) if typing.get_origin(result) is tuple else (result,)
            if set(kinds) != {TensorDesc}:
                raise ValueError(f"Return argument is of type {result}.")
            names = list(signature.parameters)
            self.definitions[identity] = Definition(describe, names, len(kinds))
            return describe

        return decorate

    def _aot_impl(self, identity: str) -> Callable[[Any], Any]:
        def decorate(implement: Any) -> Any:
            definition = self.definitions[identity]
            signature = inspect.signature(implement)
            if list(signature.parameters) != [*definition.inputs, "outputs", "tactic"]:
                raise ValueError(f"Signature '{signature}' does not match the expected")
            text = Union[str, bytes]  # noqa: UP007
            expected = (text, text, KernelLaunchParams, SymExprs)
            if typing.get_args(signature.return_annotation) != expected:
                raise ValueError(f"Return annotation is {signature.return_annotation}.")
            definition.implement = implement
            return implement

        return decorate

    def launches(
        self,
        nodes: Sequence[Any],
        known: dict[str, tuple[DataType, tuple[int, ...]]],
    ) -> Iterator[Launch]:
        """What the nodes of a graph launch, in order.

        Args:
            nodes: of ONNX, all of plugins.
            known: types and shapes of the graph's inputs; outputs of nodes are added.
        """
        for node in nodes:
            attributes = {a.name: a.s.decode() for a in node.attribute}
            assert attributes == {"plugin_namespace": node.domain, "plugin_version": "1"}
            definition = self.definitions[f"{attributes['plugin_namespace']}::{node.op_type}"]
            inputs = [known[name] for name in node.input]
            types = _as_tuple(definition.describe(*(_desc(t, s, known=False) for t, s in inputs)))
            descs = [_desc(dtype, shape) for dtype, shape in inputs]
            outputs = _as_tuple(definition.describe(*descs))
            assert [each.dtype for each in types] == [each.dtype for each in outputs]
            assert len(outputs) == definition.outputs == len(node.output)
            assert definition.implement is not None
            entry, ptx, launch, sizes = definition.implement(*descs, outputs, 0)
            assert isinstance(sizes, SymExprs)
            given = {
                name: (each.dtype, each.shape_expr.values)
                for name, each in zip(node.output, outputs, strict=True)
            }
            known |= given
            yield Launch(
                entry,
                ptx,
                (launch.grid_x.value, launch.grid_y.value, launch.grid_z.value),
                launch.block_x.value * launch.block_y.value * launch.block_z.value,
                launch.shared_mem.value,
                list(node.input),
                [each.value for each in sizes],
                given,
            )


def _desc(dtype: DataType, shape: Sequence[int], *, known: bool = True) -> TensorDesc:
    expressions = ShapeExprs(len(shape))
    for index, size in enumerate(shape):
        expressions[index] = ShapeExpr(size if known else None)
    return TensorDesc(dtype, expressions, tuple(shape) if known else None)


def _as_tuple(described: Any) -> tuple[TensorDesc, ...]:
    return described if isinstance(described, tuple) else (described,)
