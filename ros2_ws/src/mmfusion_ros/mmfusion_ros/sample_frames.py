"""Keep a few frames of a bag to compare engines on: ``ros2 run mmfusion_ros sample_frames``.

Writes what the graph gets for them, packed by the pipeline of the node, so that reduced precision
can be compared with fp32 on pictures of the cameras it is meant for.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmfusion_ros import argument_types
from mmfusion_ros.camera_options import add_cameras, left_out_of, topics_of
from mmfusion_ros.command import exit_code_of
from mmfusion_ros.core.engines import Engine, EngineOptions, open_engine
from mmfusion_ros.core.errors import BagError
from mmfusion_ros.core.frames import FrameSet, Modality
from mmfusion_ros.parameters import Settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

_Inputs = Mapping[str, "NDArray[Any]"]
_Take = Callable[[FrameSet], "_Inputs | None"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = _parser().parse_args(arguments)
    return exit_code_of("sample_frames", lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sample_frames",
        description="Write what an artifact's graph gets for a few frame sets, spread over a bag: "
        "reduced precision is compared with fp32 on them.",
    )
    parser.add_argument("bag", type=Path, help="bag folder, or a .mcap, .db3 or .bag file")
    parser.add_argument("--artifact", type=Path, required=True, help="folder of 'mmfusion export'")
    parser.add_argument("--out", type=Path, required=True, help="file to write, .npz")
    parser.add_argument("--rig", type=Path, help="rig file of the cameras")
    add_cameras(parser)
    parser.add_argument(
        "--frames",
        type=argument_types.count,
        default=8,
        help="how many frame sets to keep (default: %(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=argument_types.whole,
        default=Settings.threads,
        help="CPU threads of the engine; 0 for half of the cores",
    )
    return parser


def _run(options: argparse.Namespace) -> None:
    from tqdm import tqdm  # noqa: PLC0415 (these are slow to import, and --help is quick)

    from mmfusion_ros.core.artifact import open_artifact  # noqa: PLC0415
    from mmfusion_ros.core.bag_reader import ReadingReport, open_bag  # noqa: PLC0415
    from mmfusion_ros.core.bag_sets import frame_sets  # noqa: PLC0415
    from mmfusion_ros.core.engines.sample_frames import (  # noqa: PLC0415
        SampleFrames,
        write_sample_frames,
    )
    from mmfusion_ros.core.pipeline import Pipeline  # noqa: PLC0415
    from mmfusion_ros.replay_job import rig_for  # noqa: PLC0415
    from mmfusion_ros.replay_session import check_bag  # noqa: PLC0415

    artifact = open_artifact(options.artifact)
    rig = rig_for(options.rig, artifact)
    config = Settings().synchronizer_config(rig)
    bag = open_bag(options.bag, topics_of(options), left_out_of(options))
    check_bag(bag, artifact, config)
    cameras = {modality for modality in bag.topics if modality.value in artifact.inputs}
    report = ReadingReport()
    sets = frame_sets(bag, report, config.depth, config.thermal)
    total = bag.topics[Modality.RGB].count
    with open_engine(artifact, EngineOptions("onnxruntime", threads=options.threads)) as engine:
        recorder = _Recorder(engine)
        pipeline = Pipeline(artifact, recorder, rig)
        shown = tqdm(sets, total=total, unit="set", dynamic_ncols=True)

        def take(frames: FrameSet) -> _Inputs | None:
            if not _has_all(frames, cameras) or not pipeline.run(frames).present >= cameras:
                return None
            return recorder.inputs

        taken = list(_spread(shown, total, options.frames, take))
    if report.error:
        print(f"sample_frames: {report.error}", file=sys.stderr)
    if not taken:
        raise BagError(
            f"{options.bag} has no set in which all of {', '.join(sorted(cameras))} can be used; "
            "leave a camera out with --without, or take another bag"
        )
    write_sample_frames(options.out, artifact, SampleFrames.of(taken))
    print(f"{len(taken)} frame sets of {', '.join(sorted(cameras))} written to {options.out}")


class _Recorder(Engine):
    """Runs an engine and keeps a copy of what it got last."""

    def __init__(self, engine: Engine) -> None:
        self.backend, self.precision = engine.backend, engine.precision
        self.selective_scan = engine.selective_scan
        self.inputs: _Inputs = {}
        self._engine = engine

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """See `Engine.run`."""
        self.inputs = {name: array.copy() for name, array in inputs.items()}
        return self._engine.run(inputs)

    def close(self) -> None:
        """Nothing: whoever opened the engine closes it."""


def _spread(sets: Iterable[FrameSet], total: int, count: int, take: _Take) -> Iterator[_Inputs]:
    """What is taken of the first set that will do in each of so many equal parts of the bag."""
    part = 0
    for number, frames in enumerate(sets):
        if part >= count or number * count < part * total:
            continue
        taken = take(frames)
        if taken is not None:
            yield taken
            part = number * count // total + 1


def _has_all(frames: FrameSet, cameras: set[Modality]) -> bool:
    return all(
        modality is Modality.RGB or frames.companion(modality).frame is not None
        for modality in cameras
    )


if __name__ == "__main__":
    sys.exit(main())
