"""What can be said on the command line of ``replay``."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmfusion_ros import argument_types
from mmfusion_ros.camera_options import add_cameras, left_out_of, topics_of
from mmfusion_ros.core.time_range import Moment, TimeRange
from mmfusion_ros.engine_options import add_engine, engine_options_of
from mmfusion_ros.evaluation import CHANNELS
from mmfusion_ros.parameters import Settings
from mmfusion_ros.replay_job import ReplayOptions

_BELONGS = (
    "all named after stamps of RGB images in nanoseconds, or else one for each RGB message of the "
    "bag, in the order of the names, digits in them taken as numbers"
)
_MOMENT = (
    "seconds from the bag's start; from 100000000 on, seconds since the epoch; or ISO 8601 like "
    "2025-06-01T12:30:00Z (UTC without a zone). Log times count"
)


def parser() -> argparse.ArgumentParser:
    """All options."""
    defaults = Settings()
    told = argparse.ArgumentParser(
        prog="replay",
        description="Fuse recorded bags offline, with metrics and a report.",
    )
    told.add_argument(
        "bag", type=Path, nargs="+", help="bag folder, or a .mcap, .db3 or .bag file; several"
    )
    told.add_argument("--artifact", type=Path, required=True, help="folder of 'mmfusion export'")
    told.add_argument(
        "--out",
        type=Path,
        required=True,
        help="folder for the results; with several bags, each gets one of its name in it",
    )
    told.add_argument(
        "--compare",
        type=Path,
        metavar="ARTIFACT",
        help="also run this one on the same frames and set the two side by side",
    )
    told.add_argument("--rig", type=Path, help="rig file of the cameras")
    _add_engine(told)
    _add_frames(told, defaults)
    _add_measuring(told)
    _add_fleet(told)
    told.add_argument(
        "--no-report", dest="report", action="store_false", help="no report.html, no pictures"
    )
    return told


def replay_options(parsed: argparse.Namespace) -> ReplayOptions:
    """The options that hold for every bag."""
    return ReplayOptions(
        rig=parsed.rig,
        engine=engine_options_of(parsed, parsed.threads),
        topics=topics_of(parsed),
        without=left_out_of(parsed),
        time_range=TimeRange(parsed.start, parsed.end),
        stride=parsed.stride,
        max_frames=parsed.max_frames,
        metrics_stride=parsed.metrics_stride,
        metrics_threads=parsed.metrics_threads,
        channel=parsed.channel,
        window_ms=parsed.window_ms,
        max_wait_ms=parsed.max_wait_ms,
        frozen_after_ms=parsed.frozen_after_ms,
        min_score=parsed.min_score,
        class_map=parsed.class_map,
        report=parsed.report,
    )


def _add_engine(told: argparse.ArgumentParser) -> None:
    add_engine(told)
    told.add_argument(
        "--threads",
        type=argument_types.whole,
        default=0,
        help="CPU threads of each engine; 0 for half of the cores, shared out among --jobs",
    )


def _add_frames(told: argparse.ArgumentParser, defaults: Settings) -> None:
    add_cameras(told)
    told.add_argument("--start", type=_moment, help=f"from here on: {_MOMENT}")
    told.add_argument("--end", type=_moment, help="up to before here, given like --start")
    told.add_argument(
        "--stride", type=argument_types.count, default=1, help="run every Nth frame set"
    )
    told.add_argument("--max-frames", type=argument_types.count, help="stop after this many runs")
    for name in ("window_ms", "max_wait_ms", "frozen_after_ms"):
        told.add_argument(
            f"--{name.replace('_', '-')}",
            type=argument_types.number,
            default=getattr(defaults, name),
            help="as the node's parameter (default: %(default)s)",
        )
    told.add_argument(
        "--min-score",
        type=argument_types.share,
        default=defaults.min_score,
        help="leave out detections that score less; the metrics take all",
    )


def _add_measuring(told: argparse.ArgumentParser) -> None:
    told.add_argument(
        "--metrics-stride",
        type=argument_types.whole,
        help="measure every Nth set that is run; 0 for none (default: about 100 in all)",
    )
    told.add_argument(
        "--metrics-threads", type=argument_types.count, default=1, help="sets measured at a time"
    )
    told.add_argument("--channel", choices=CHANNELS, default="luma", help="what is measured")
    told.add_argument(
        "--ground-truth-masks",
        type=Path,
        metavar="FOLDER",
        help=f"PNG masks, above 128 on what is salient, to measure saliency by; {_BELONGS}. With "
        "several bags, a subfolder for each, named like its folder of results",
    )
    told.add_argument(
        "--ground-truth-boxes",
        type=Path,
        metavar="FILE",
        help="COCO JSON to measure detections by, its categories named like the artifact's "
        f"classes, in any case; {_BELONGS}. With several bags, a folder with NAME.json for each",
    )
    told.add_argument(
        "--class-map",
        type=_class_map,
        default={},
        metavar="CATEGORY=CLASS,...",
        help="which class of the artifact a category of the ground truth is, where names differ",
    )


def _add_fleet(told: argparse.ArgumentParser) -> None:
    where = told.add_mutually_exclusive_group()
    where.add_argument(
        "--jobs",
        type=argument_types.count,
        default=1,
        help="bags replayed at a time, each in a process",
    )
    where.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="replay on the workers of this Dask scheduler, like tcp://host:8786; bags, artifact, "
        "rig, ground truth and --out must have the same paths there",
    )


def _moment(text: str) -> Moment:
    try:
        return Moment.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _class_map(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    named = {category.strip(): kind.strip() for category, _, kind in pairs}
    if not named or not all(named.values()) or not all(named) or len(named) != len(pairs):
        raise argparse.ArgumentTypeError(
            f'{text!r} is no map; expected one like "person=People,auto=Car"'
        )
    return named
