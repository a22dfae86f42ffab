"""The command line of the camera player."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mmfusion_ros import argument_types
from mmfusion_ros.core.errors import MmfusionError
from mmfusion_ros.core.faults import FORM, Fault, describe_kinds, parse_fault
from mmfusion_ros.core.frames import Modality
from mmfusion_ros.core.sent_image import ENCODINGS
from mmfusion_ros.core.transports import COLOUR_TRANSPORTS, TRANSPORTS

DEFAULT_CLOCK_HZ = 40.0

_FAULTS = f"""\
faults, as --fault {FORM}, times in seconds from the first RGB picture:
{describe_kinds()}
CAMERA is rgb, depth, thermal or all. For example:
  --fault thermal:freeze=1.5@4 --fault depth:drop=0.2@5-10 --fault all:jump_s=-3@8
"""


def player_parser() -> argparse.ArgumentParser:
    """What ``camera_player`` understands."""
    parser = argparse.ArgumentParser(
        prog="camera_player",
        description="Play images or a bag as cameras; ROS arguments come after --ros-args.",
        epilog=_FAULTS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "source",
        type=Path,
        help="a bag, or a folder that holds rgb (or visible, vi) and, if there are, depth and "
        "thermal (or infrared, ir); files are matched by stem; stamps.csv and cameras.yaml are "
        "used if they are there",
    )
    _add_what_is_played(parser)
    _add_how_it_is_sent(parser)
    parser.add_argument(
        "--fault",
        type=_fault,
        action="append",
        default=[],
        metavar=FORM.partition("[")[0] + "[@...]",
        help="do this to the pictures of a camera, see below; may be given again",
    )
    parser.add_argument(
        "--seed", type=argument_types.whole, default=0, help="of the faults' chance (default: 0)"
    )
    parser.add_argument(
        "--listeners",
        type=argument_types.count,
        default=1,
        help="begin when the images have this many subscribers (default: 1)",
    )
    parser.add_argument(
        "--wait",
        type=argument_types.positive,
        default=30.0,
        metavar="SECONDS",
        help="how long to wait for a subscriber to the RGB images (default: 30)",
    )
    return parser


def _add_what_is_played(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rate",
        type=argument_types.positive,
        help="RGB pictures per second; a bag is slowed down or sped up for it; default: as "
        "recorded, else 30",
    )
    parser.add_argument(
        "--frames", type=argument_types.count, help="play at most this many RGB pictures"
    )
    parser.add_argument(
        "--without",
        choices=("depth", "thermal"),
        action="append",
        default=[],
        help="leave this camera out; may be given twice",
    )
    parser.add_argument(
        "--loop",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="begin again at the end; stamps go on, so it looks like one long recording, but "
        "with --clock time goes back",
    )
    parser.add_argument(
        "--clock",
        type=argument_types.positive,
        nargs="?",
        const=DEFAULT_CLOCK_HZ,
        metavar="HZ",
        help="stamp the pictures as they were recorded and publish the recording's time on /clock "
        f"so often (default: {DEFAULT_CLOCK_HZ:g}), for nodes with use_sim_time",
    )


def _add_how_it_is_sent(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--size", type=argument_types.size, metavar="WIDTHxHEIGHT", help="resize all images to this"
    )
    for camera in ("depth", "thermal"):
        parser.add_argument(
            f"--{camera}-size",
            type=argument_types.size,
            metavar="WIDTHxHEIGHT",
            help=f"resize {camera} images to this instead",
        )
    transports = {
        camera: TRANSPORTS if camera is Modality.DEPTH else COLOUR_TRANSPORTS for camera in Modality
    }
    for name, choices, meaning in (
        ("transport", transports, "send a camera's images so, on the topic of image_transport"),
        ("encoding", ENCODINGS, "send a camera's images in another encoding"),
    ):
        parser.add_argument(
            f"--{name}",
            type=_for_camera(choices),
            action="append",
            default=[],
            metavar=f"CAMERA={name.upper()}",
            help=f"{meaning}: {_list(choices)}",
        )
    parser.add_argument(
        "--row-padding",
        type=argument_types.whole,
        default=0,
        metavar="BYTES",
        help="bytes behind each row of raw images (default: 0)",
    )
    parser.add_argument(
        "--reliability",
        choices=("reliable", "best_effort"),
        default="reliable",
        help="what the publishers offer (default: reliable); for one topic alone pass -p "
        "qos_overrides./rgb/image.publisher.reliability:=best_effort to ROS",
    )


def _list(choices: Mapping[Modality, Sequence[str]]) -> str:
    return "; ".join(f"{camera}={'|'.join(names)}" for camera, names in choices.items())


def _for_camera(
    choices: Mapping[Modality, Sequence[str]],
) -> Callable[[str], tuple[Modality, str]]:
    def parse(text: str) -> tuple[Modality, str]:
        name, _, value = text.partition("=")
        camera = next((camera for camera in choices if camera.value == name), None)
        if camera is None or value not in choices[camera]:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {_list(choices)}")
        return camera, value

    return parse


def _fault(text: str) -> Fault:
    try:
        return parse_fault(text)
    except MmfusionError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
