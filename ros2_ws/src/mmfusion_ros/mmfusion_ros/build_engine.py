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

from mmfusion_ros.core.artifact import open_artifact
from mmfusion_ros.core.engines.options import EngineOptions
from mmfusion_ros.core.errors import MmfusionError
from mmfusion_ros.engine_options import add_precision

_INTERRUPTED = 130  # as shells have it
_STEPS = 1000  # of the bar


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="build_engine: %(message)s")
    try:
        _run(options)
    except (MmfusionError, OSError) as error:
        print(f"build_engine: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED
    return 0


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
    from tqdm import tqdm  # noqa: PLC0415
    from tqdm.contrib.logging import logging_redirect_tqdm  # noqa: PLC0415

    from mmfusion_ros.core.engines.tensorrt import open_tensorrt  # noqa: PLC0415

    wanted = EngineOptions(
        backend="tensorrt",
        precision=options.precision,
        cache=options.engine_cache,
        samples=options.engine_samples,
        hardware_compatible=options.hardware_compatible,
    )
    layout = "{l_bar}{bar}| {elapsed}<{remaining}"
    with logging_redirect_tqdm(), tqdm(total=_STEPS, bar_format=layout, leave=False) as bar:

        def progress(phase: str, share: float) -> None:
            bar.set_description(phase, refresh=False)
            step = round(share * _STEPS)
            if step < bar.n:  # another kind of work begins
                bar.reset()
            bar.update(step - bar.n)

        with open_tensorrt(artifact, wanted, progress) as engine:
            scan = engine.selective_scan
    print(f"{engine.path} runs {artifact.name} in {engine.precision}, selective scan as {scan}")


if __name__ == "__main__":
    sys.exit(main())
