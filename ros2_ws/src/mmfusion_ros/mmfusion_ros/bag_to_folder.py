"""Write the pictures of a recorded bag into a folder: ``ros2 run mmfusion_ros bag_to_folder``.

Frames are matched as by the node. Files are named after the RGB stamps in nanoseconds, so masks of
these names are ground truth for a replay of the same bag.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from mmfusion_ros import argument_types
from mmfusion_ros.camera_options import add_cameras, left_out_of, topics_of
from mmfusion_ros.command import exit_code_of
from mmfusion_ros.core.bag_reader import (
    ReadingReport,
    camera_info_beside,
    open_bag,
)
from mmfusion_ros.core.bag_sets import frame_sets
from mmfusion_ros.core.errors import BagError
from mmfusion_ros.core.frames import Modality
from mmfusion_ros.core.scene_folder import write_scenes
from mmfusion_ros.core.synchronizer import SensorTiming


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = _parser().parse_args(arguments)
    return exit_code_of("bag_to_folder", lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bag_to_folder",
        description="Write the pictures of a bag into rgb, depth and thermal, files of one moment "
        "with one name: the stamp of the RGB picture. All get the size of the RGB picture; nothing "
        "is registered.",
    )
    parser.add_argument("bag", type=Path, help="bag folder, or a .mcap, .db3 or .bag file")
    parser.add_argument("--out", type=Path, required=True, help="new or empty folder")
    add_cameras(parser)
    parser.add_argument(
        "--stride", type=argument_types.count, default=1, help="take every Nth RGB picture"
    )
    parser.add_argument(
        "--window-ms",
        type=argument_types.number,
        default=SensorTiming.window_ns / 1e6,
        help="pictures stamped at most this far apart belong together (default: %(default)s)",
    )
    return parser


def _run(options: argparse.Namespace) -> None:
    bag = open_bag(options.bag, topics_of(options), left_out_of(options))
    infos = {modality: camera_info_beside(bag, modality) for modality in bag.topics}
    cameras = {m: info for m, info in infos.items() if info and info.width and info.height}
    report = ReadingReport()
    timing = SensorTiming(window_ns=round(options.window_ms * 1e6))
    sets = islice(frame_sets(bag, report, timing, timing), 0, None, options.stride)
    total = -(-bag.topics[Modality.RGB].count // options.stride)
    outcomes = Counter(
        tqdm(
            write_scenes(sets, options.out, bag.topics, cameras),
            total=total,
            unit="set",
            dynamic_ncols=True,
        )
    )
    written = outcomes.pop(None, 0)
    for reason, count in sorted({**report.skipped, **outcomes}.items(), key=str):
        print(f"bag_to_folder: left out {count}: {reason}", file=sys.stderr)
    if report.restamped:
        count = sum(report.restamped.values())
        print(f"bag_to_folder: {count} pictures had no stamp: log times instead", file=sys.stderr)
    if report.error:
        print(f"bag_to_folder: {report.error}", file=sys.stderr)
    if not written:
        raise BagError(
            f"no set of {', '.join(bag.topics)} in {bag.path} could be written; see what was left "
            "out, --without for cameras that are not needed, and --window-ms for those whose "
            "pictures are further apart"
        )
    for modality, info in cameras.items():
        if info.beyond_plain:
            told = f"{modality} camera: {' and '.join(info.beyond_plain)}"
            print(f"bag_to_folder: left out of cameras.yaml: {told}", file=sys.stderr)
    print(f"{written} sets of {', '.join(bag.topics)} written to {options.out}")


if __name__ == "__main__":
    sys.exit(main())
