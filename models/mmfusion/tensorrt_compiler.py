"""The seam to torch_tensorrt: what is asked of it, and how it is asked.

Torch-TensorRT 2.14. It cannot be imported without a GPU and TensorRT's libraries.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.export import ExportedProgram

from mmfusion.errors import ExportError

NAME = "torch_tensorrt"
_OF_PYTORCH = ".".join(torch.__version__.split(".")[:2])  # each is built for one
_HOW = f"install it with: pip install 'torch-tensorrt=={_OF_PYTORCH}.*'"


@dataclass(frozen=True)
class BuilderSettings:
    """What changes an engine besides its graph; the robot looks for engines of these.

    Attributes:
        hardware_compatible: it also runs on other GPUs of its compute capability.
        workspace_mib: most memory that a layer may take for itself while the engine runs.
        optimization_level: how long to look for faster code, 0 to 5.
    """

    hardware_compatible: bool = False
    workspace_mib: int = 2048
    optimization_level: int = 3


class Compiler(Protocol):
    """Makes engines for the GPU at hand.

    Attributes:
        version: of it.
        library: that runs the engines, with its version.
        gpu: name of the device.
        compute_capability: of the device.
    """

    version: str
    library: str
    gpu: str
    compute_capability: tuple[int, int]

    def compile(
        self,
        program: ExportedProgram,
        inputs: Mapping[str, Tensor],
        outputs: Sequence[str],
        settings: BuilderSettings,
    ) -> bytes:
        """A serialised engine, in float32, whose inputs and outputs have the given names.

        Args:
            program: on the CPU; takes its inputs, and gives its outputs, by name.
            inputs: of their dtypes and shapes.
            outputs: their names, in order.
            settings: of the builder.

        Raises:
            ExportError: if the graph is refused, or memory runs out.
        """


class TorchTensorRT:
    """See `Compiler`. It has not run on a GPU yet."""

    def __init__(self) -> None:
        """Import the library.

        Raises:
            ExportError: if it, TensorRT or the GPU is missing, in one line.
        """
        if importlib.util.find_spec(NAME) is None:
            raise ExportError(f"{NAME} is not installed; {_HOW}")
        # Importing it without a GPU fails somewhere within.
        if not torch.cuda.is_available():
            raise ExportError(
                f"{NAME} needs an NVIDIA GPU that PyTorch can use (torch.cuda.is_available() is "
                "false); run this on the kind of GPU that the engine is for"
            )
        self._library = _import()
        tensorrt = importlib.import_module("tensorrt")  # as it has arranged it
        self.version = str(self._library.__version__)
        self.library = f"tensorrt {tensorrt.__version__}"
        self.gpu = torch.cuda.get_device_name()
        self.compute_capability = torch.cuda.get_device_capability()
        _let_bytes_out(tensorrt)
        # It logs the whole graph beside what it raises.
        logging.getLogger(f"{NAME}.dynamo._compiler").setLevel(logging.CRITICAL)

    def compile(
        self,
        program: ExportedProgram,
        inputs: Mapping[str, Tensor],
        outputs: Sequence[str],
        settings: BuilderSettings,
    ) -> bytes:
        """See `Compiler.compile`."""
        try:
            engine = self._library.dynamo.convert_exported_program_to_serialized_trt_engine(
                program,
                arg_inputs=(),
                kwarg_inputs=dict(inputs),
                kwarg_input_binding_names={name: name for name in inputs},
                output_binding_names={name: name for name in outputs},
                device=torch.device("cuda", torch.cuda.current_device()),
                # With it, fp32 would be rounded to 10 bits of mantissa and still be called so.
                disable_tf32=True,
                hardware_compatible=settings.hardware_compatible,
                workspace_size=settings.workspace_mib * 2**20,
                optimization_level=settings.optimization_level,
            )
        except Exception as error:  # its exceptions share no other base
            raise ExportError(
                f"{NAME} {self.version} cannot compile the graph: {_cause(error)}; the robot "
                "builds its engine from the artifact's graph.onnx instead"
            ) from error
        return bytes(engine)


def _import() -> Any:
    # It prints what it misses before it raises.
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            library = importlib.import_module(NAME)
        except Exception as error:  # a plain one, where TensorRT's libraries are missing
            raise ExportError(f"{NAME} cannot be imported ({_line(error)}); {_HOW}") from error
    if library.tensorrt_package_name != "tensorrt":
        raise ExportError(
            f"{NAME} is here for {library.tensorrt_package_name}, whose engines a robot does not "
            f"run; {_HOW}"
        )
    if not hasattr(library, "dynamo"):
        raise ExportError(f"{NAME} {library.__version__} compiles no exported programs; {_HOW}")
    return library


def _let_bytes_out(tensorrt: Any) -> None:
    """Teach it to convert to bytes, which TensorRT does for outputs."""
    conversion = importlib.import_module(f"{NAME}.dynamo.conversion")

    def convert(context: Any, _target: Any, arguments: Any, _keywords: Any, name: str) -> Any:
        layer = context.net.add_cast(arguments[0], tensorrt.uint8)
        layer.name = name
        return layer.get_output(0)

    conversion.dynamo_tensorrt_converter(
        torch.ops.aten._to_copy.default,  # noqa: SLF001 (its name)
        capability_validator=lambda node, _settings: node.kwargs.get("dtype") is torch.uint8,
        priority=conversion.ConverterPriority.HIGH,
    )(convert)


def _cause(error: BaseException) -> str:
    """What it was in the first place, and at which node: it wraps that in a print of the graph."""
    while error.__cause__ is not None:
        error = error.__cause__
    return _line(error).partition(" Original traceback")[0]


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
