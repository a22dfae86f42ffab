"""Build an artifact's TensorRT engine ahead of time: ``ros2 run mmfusion_ros build_engine``.

The node finds it in the cache and starts at once. Build on the robot: an engine is of its GPU and
its version of TensorRT.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from mmfusion_ros.command import exit_code_of
from mmfusion_ros.core.artifact import open_artifact
from mmfusion_ros.core.engines.options import EngineOptions
from mmfusion_ros.engine_bar import engine_bar
from mmfusion_ros.engine_options import add_precision


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="build_engine: %(message)s")
    return exit_code_of("build_engine", lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="build_engine",
        description="Build the TensorRT engine of an artifact, or see that it is built, and try "
        "it. Needs the GPU that it is for, and takes minutes.",
    )
    parser.add_argument("artifact", type=Path, help="folder of 'mmfusion export'")
    add_precision(parser)
    parser.add_argument(
        "--hardware-compatible",
        action="store_true",
        help="let it run on other GPUs of the same compute capability, perhaps more slowly",
    )
    return parser


def _run(options: argparse.Namespace) -> None:
    artifact = open_artifact(options.artifact)
    # Heavy: only now that the arguments are good.
    from tqdm.contrib.logging import logging_redirect_tqdm  # noqa: PLC0415

    from mmfusion_ros.core.engines.tensorrt import open_tensorrt  # noqa: PLC0415

    wanted = EngineOptions(
        backend="tensorrt",
        precision=options.precision,
        cache=options.engine_cache,
        samples=options.engine_samples,
        device_id=options.device_id,
        hardware_compatible=options.hardware_compatible,
    )
    with (
        logging_redirect_tqdm(),
        engine_bar() as progress,
        open_tensorrt(artifact, wanted, progress) as engine,
    ):
        scan = engine.selective_scan
    print(f"{engine.path} runs {artifact.name} in {engine.precision}, selective scan as {scan}")


if __name__ == "__main__":
    sys.exit(main())
