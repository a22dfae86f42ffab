"""Which engine a command takes, and how it is opened."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmfusion_ros import argument_types
from mmfusion_ros.core.engines import BACKENDS, FALLBACKS, PRECISIONS, EngineOptions
from mmfusion_ros.parameters import Settings


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Add ``--backend``, ``--precision`` and what goes with them, as the node's parameters."""
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        default=Settings.backend,
        help="as the node's parameter (default: %(default)s)",
    )
    add_precision(parser)
    parser.add_argument(
        "--engine-fallback",
        choices=[name for name in FALLBACKS if name],
        default="",
        help="takes over, in fp32, if the engine cannot be opened or misses the tolerances",
    )


def add_precision(parser: argparse.ArgumentParser) -> None:
    """Add ``--precision``, where engines and the frames that it is compared on lie, and the GPU."""
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=Settings.precision,
        help="what the engine computes in (default: %(default)s)",
    )
    parser.add_argument(
        "--engine-cache",
        type=Path,
        metavar="FOLDER",
        help="of built engines and of what was measured on them (default: mmfusion/engines in the "
        "user's cache folder)",
    )
    parser.add_argument(
        "--engine-samples",
        type=Path,
        metavar="FILE",
        help="of 'sample_frames', to compare reduced precision on",
    )
    parser.add_argument(
        "--device-id",
        type=argument_types.whole,
        default=Settings.device_id,
        metavar="NUMBER",
        help="NVIDIA GPU that TensorRT runs on, as CUDA numbers those it sees (default: "
        "%(default)s)",
    )


def engine_options_of(parsed: argparse.Namespace, threads: int = 0) -> EngineOptions:
    """What was asked for."""
    return EngineOptions(
        backend=parsed.backend,
        precision=parsed.precision,
        threads=threads,
        cache=parsed.engine_cache,
        samples=parsed.engine_samples,
        fallback=parsed.engine_fallback,
        device_id=parsed.device_id,
    )
