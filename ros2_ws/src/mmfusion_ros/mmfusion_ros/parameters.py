"""The parameters of the node: one definition for declaring, reading and documenting them."""

from __future__ import annotations

import dataclasses
import difflib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmfusion_ros.core.detections import MIN_SCORE
from mmfusion_ros.core.engines import BACKENDS, FALLBACKS, PRECISIONS, EngineOptions
from mmfusion_ros.core.errors import MmfusionError
from mmfusion_ros.core.frames import Modality
from mmfusion_ros.core.synchronizer_config import SensorTiming, SynchronizerConfig
from mmfusion_ros.core.transports import COLOUR_TRANSPORTS, RAW, TRANSPORTS

if TYPE_CHECKING:
    from rcl_interfaces.msg import ParameterDescriptor
    from rclpy.node import Node

    from mmfusion_ros.core.rig import Rig

RELIABILITIES = ("reliable_if_offered", "best_effort", "reliable")
SYNCHRONIZERS = ("mmfusion", "exact", "approximate")
EXECUTORS = ("single_threaded", "events")
_ALIKE = 0.8  # of 1, of names that differ by a slip


@dataclass(frozen=True)
class Parameter:
    """One row of the table.

    Attributes:
        name: as set with ``-p name:=value``.
        type: bool, int, float or str.
        default: also what an unset parameter has.
        description: one line, shown by ``ros2 param describe``.
        range: lowest and highest value; None for no limits.
        choices: the values a string may have; empty for any.
        read_only: only set when the node starts, as it takes a rebuild.
    """

    name: str
    type: type
    default: Any
    description: str
    range: tuple[float, float] | None
    choices: tuple[str, ...]
    read_only: bool


def _parameter(
    default: Any,
    description: str,
    *,
    limits: tuple[float, float] | None = None,
    choices: tuple[str, ...] = (),
    read_only: bool = True,
) -> Any:
    row = {
        "description": description,
        "range": limits,
        "choices": choices,
        "read_only": read_only,
    }
    return dataclasses.field(default=default, metadata=row)


@dataclass(frozen=True)
class Settings:
    """The values of all parameters; the fields are the table."""

    artifact: str = _parameter("", "folder written by 'mmfusion export'; must be set")
    rig: str = _parameter("", "rig file of the cameras; must be set")
    backend: str = _parameter("auto", "engine that runs the graph", choices=BACKENDS)
    threads: int = _parameter(
        0, "CPU threads of the engine; 0 for half of the cores", limits=(0, 1024)
    )
    precision: str = _parameter(
        "fp32",
        "what the engine computes in; below fp32 only if the artifact's tolerances are kept",
        choices=PRECISIONS,
    )
    engine_cache: str = _parameter(
        "",
        "folder of built engines and of what was measured on them; empty for mmfusion/engines in "
        "the user's cache folder",
    )
    engine_samples: str = _parameter(
        "", "file of sample_frames that reduced precision is compared on, once"
    )
    device_id: int = _parameter(
        0,
        "NVIDIA GPU that TensorRT runs on, as CUDA numbers those it sees",
        limits=(0, 1023),
    )
    engine_fallback: str = _parameter(
        "",
        "engine that takes over, in fp32, if the other cannot be opened, misses the tolerances or "
        "goes on failing; empty for none",
        choices=FALLBACKS,
    )
    autostart: bool = _parameter(
        False,  # noqa: FBT003 (a default, not an argument that switches something)
        "configure and activate without a lifecycle manager",
    )
    rgb_topic: str = _parameter(
        "rgb/image", "RGB images; its camera_info is the topic of that name beside it"
    )
    depth_topic: str = _parameter("depth/image", "depth images")
    thermal_topic: str = _parameter("thermal/image", "thermal images")
    rgb_transport: str = _parameter(
        RAW,
        "how RGB images are sent; else than raw, on the topic of that name below",
        choices=COLOUR_TRANSPORTS,
    )
    depth_transport: str = _parameter(RAW, "the same for depth images", choices=TRANSPORTS)
    thermal_transport: str = _parameter(RAW, "the same for thermal images", choices=TRANSPORTS)
    input_reliability: str = _parameter(
        "reliable_if_offered", "reliability asked of the cameras", choices=RELIABILITIES
    )
    synchronizer: str = _parameter(
        "mmfusion",
        "who matches images: this package, or exact or approximate of message_filters, which "
        "give nothing as long as a camera lacks, and know neither max_wait_ms nor "
        "frozen_after_ms, exact no window_ms either",
        choices=SYNCHRONIZERS,
    )
    executor: str = _parameter(
        "single_threaded",
        "executor of rclpy that a process with this node alone runs",
        choices=EXECUTORS,
    )
    window_ms: float = _parameter(
        15.0,
        "depth and thermal stamped at most this far from the RGB stamp match it",
        limits=(0.0, 900.0),
        read_only=False,
    )
    max_wait_ms: float = _parameter(
        25.0,
        "longest an RGB frame waits for the others; below one frame period",
        limits=(0.0, 1000.0),
        read_only=False,
    )
    frozen_after_ms: float = _parameter(
        250.0,
        "a camera that shows one picture for this long is left out; 0 for never",
        limits=(0.0, 60_000.0),
        read_only=False,
    )
    min_score: float = _parameter(
        MIN_SCORE,
        "detections that score less are left out",
        limits=(0.0, 1.0),
        read_only=False,
    )

    def __post_init__(self) -> None:
        for row in TABLE:
            _check(row, getattr(self, row.name))

    @property
    def engine(self) -> EngineOptions:
        """How the engine is to be opened."""
        return EngineOptions(
            backend=self.backend,
            precision=self.precision,
            threads=self.threads,
            cache=Path(self.engine_cache) if self.engine_cache else None,
            samples=Path(self.engine_samples) if self.engine_samples else None,
            fallback=self.engine_fallback,
            device_id=self.device_id,
        )

    @property
    def without_effect(self) -> tuple[str, ...]:
        """Names of the parameters that the synchroniser chosen knows nothing of."""
        unknown = {
            "mmfusion": (),
            "exact": ("window_ms", "max_wait_ms", "frozen_after_ms"),
            "approximate": ("max_wait_ms", "frozen_after_ms"),
        }
        return unknown[self.synchronizer]

    def topic(self, modality: Modality) -> str:
        """Topic of a camera's images, as they are sent."""
        base: str = getattr(self, f"{modality.value}_topic")
        transport = self.transport(modality)
        return base if transport == RAW else f"{base}/{transport}"

    def transport(self, modality: Modality) -> str:
        """How a camera's images are sent, one of TRANSPORTS."""
        transport: str = getattr(self, f"{modality.value}_transport")
        return transport

    def info_topic(self, modality: Modality) -> str:
        """Topic of a camera's camera_info: beside its raw images."""
        folder, slash, _ = getattr(self, f"{modality.value}_topic").rpartition("/")
        return f"{folder}{slash}camera_info"

    def synchronizer_config(self, rig: Rig) -> SynchronizerConfig:
        """How to match frames, with the time offsets of the rig."""
        window_ns = _nanoseconds(self.window_ms)
        depth, thermal = (
            SensorTiming(rig.cameras[modality].time_offset_ns, window_ns)
            for modality in (Modality.DEPTH, Modality.THERMAL)
        )
        return SynchronizerConfig(
            depth=depth,
            thermal=thermal,
            max_wait_ns=_nanoseconds(self.max_wait_ms),
            frozen_after_ns=_nanoseconds(self.frozen_after_ms),
        )


def _table() -> tuple[Parameter, ...]:
    types = {"str": str, "int": int, "float": float, "bool": bool}
    return tuple(
        Parameter(field.name, types[str(field.type)], field.default, **field.metadata)
        for field in dataclasses.fields(Settings)
    )


TABLE = _table()


def declare(node: Node) -> Settings:
    """Declare every parameter on a node and read it.

    Raises:
        MmfusionError: if a value given at the start has the wrong type or is out of range.
    """
    from rclpy.exceptions import ParameterException  # noqa: PLC0415 (see _descriptor)

    for row in TABLE:
        try:
            node.declare_parameter(row.name, row.default, _descriptor(row))
        except ParameterException as error:
            expected = f"expected {_type_name(row)}{_limits(row)}"
            how = " (write 20.0, not 20)" if row.type is float else ""
            raise MmfusionError(f"parameter {row.name}: {error}; {expected}{how}") from error
    _warn_of_misspelt(node)
    return read(node)


def _warn_of_misspelt(node: Node) -> None:
    """Log values given to no parameter whose name looks like one.

    Others may be meant for other nodes: files of parameters can be for all at once.
    """
    known = [row.name for row in TABLE]
    given: Mapping[str, Any] = getattr(node, "_parameter_overrides", {})
    for name in given:
        meant = difflib.get_close_matches(name, known, n=1, cutoff=_ALIKE)
        if meant and not node.has_parameter(name):
            node.get_logger().warning(
                f"there is no parameter {name}, so its value has no effect; is {meant[0]} meant?"
            )


def read(node: Node, changes: Mapping[str, Any] | None = None) -> Settings:
    """Read all parameters of a node that has declared them.

    Args:
        node: has the values.
        changes: values that are about to replace some.

    Raises:
        MmfusionError: if a value is not allowed.
    """
    values = {row.name: node.get_parameter(row.name).value for row in TABLE}
    return Settings(**{**values, **(changes or {})})


def markdown() -> str:
    """The table for the README."""
    lines = [
        "| parameter | type | default | meaning | range | changes |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in TABLE:
        default = str(row.default).lower() if row.type is bool else row.default
        shown = f"`{default}`" if row.default != "" else ""
        changes = "at the start" if row.read_only else "any time"
        cells = (
            f"`{row.name}`",
            _type_name(row),
            shown,
            row.description,
            _limits(row).strip(),
            changes,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _check(row: Parameter, value: Any) -> None:
    out_of_range = row.range is not None and not row.range[0] <= value <= row.range[1]
    if out_of_range or (row.choices and value not in row.choices):
        raise MmfusionError(f"parameter {row.name} is {value!r}; expected{_limits(row)}")


def _limits(row: Parameter) -> str:
    if row.choices:
        return f" one of {', '.join(choice or 'nothing' for choice in row.choices)}"
    return f" {row.range[0]:g} to {row.range[1]:g}" if row.range else ""


def _type_name(row: Parameter) -> str:
    return {str: "string", int: "integer", float: "double", bool: "bool"}[row.type]


def _descriptor(row: Parameter) -> ParameterDescriptor:
    # Imported here so that the table can be printed where no ROS is.
    from rcl_interfaces.msg import (  # noqa: PLC0415
        FloatingPointRange,
        IntegerRange,
        ParameterDescriptor,
    )

    descriptor = ParameterDescriptor(
        description=row.description,
        read_only=row.read_only,
        additional_constraints=_limits(row).strip() if row.choices else "",
    )
    if row.range is not None and row.type is int:
        first, last = map(int, row.range)
        descriptor.integer_range = [IntegerRange(from_value=first, to_value=last, step=0)]
    elif row.range is not None:
        low, high = row.range
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=low, to_value=high, step=0.0)
        ]
    return descriptor


def _nanoseconds(milliseconds: float) -> int:
    return round(milliseconds * 1e6)


if __name__ == "__main__":
    sys.stdout.write(markdown())
