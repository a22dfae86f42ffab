"""Tell whether this machine and set-up carry camera images: ``ros2 run mmfusion_ros doctor``.

Works without an artifact, a rig file and ROS too; what needs them is then left out, and said so.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmfusion_ros import argument_types
from mmfusion_ros.checks.finding import Level
from mmfusion_ros.checks.report import as_json, as_text
from mmfusion_ros.checks.subject import Setup
from mmfusion_ros.checks.table import CHECKS, run
from mmfusion_ros.core.frames import Modality
from mmfusion_ros.engine_options import add_engine, engine_options_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        Exit status: 0 if nothing is wrong, 1 with errors (and, with --strict, with warnings).
    """
    options = _parser().parse_args(arguments)
    try:
        findings = run(CHECKS, _setup(options))
    except KeyboardInterrupt:
        return 130
    worst = max(finding.level.severity for finding in findings)
    failed = worst >= (Level.WARNING if options.strict else Level.ERROR).severity
    sys.stdout.write(as_json(findings, failed=failed) if options.json else as_text(findings))
    return int(failed)


def _setup(options: argparse.Namespace) -> Setup:
    return Setup(
        artifact=options.artifact,
        rig=options.rig,
        engine=engine_options_of(options),
        rate=options.rate,
        size=options.size,
        seconds=options.seconds,
        streams=options.streams,
        quick=options.quick,
        node=options.node,
        topics={
            modality: topic
            for modality in Modality
            if (topic := getattr(options, f"{modality}_topic"))
        },
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="doctor",
        description="Tell whether this machine and set-up carry camera images, and what to change.",
        epilog="Exit status: 0 if nothing is wrong, 1 with errors. As health check of a container: "
        "doctor --quick --node /fusion_node",
    )
    parser.add_argument("--artifact", type=Path, help="folder of 'mmfusion export'")
    parser.add_argument("--rig", type=Path, help="rig file of the cameras")
    add_engine(parser)
    parser.add_argument(
        "--rate",
        type=argument_types.positive,
        default=30.0,
        help="frames per second of the cameras (default 30)",
    )
    parser.add_argument(
        "--size",
        type=argument_types.size,
        metavar="WIDTHxHEIGHT",
        help="of all cameras; default: as the artifact or the rig has it, else 640x480",
    )
    parser.add_argument(
        "--seconds",
        type=argument_types.positive,
        default=2.0,
        help="how long to measure each kind of stream, and live topics (default 2)",
    )
    parser.add_argument(
        "--no-streams",
        dest="streams",
        action="store_false",
        help="send no images between two processes",
    )
    parser.add_argument(
        "--node",
        default="",
        metavar="NAME",
        help="running node to ask, e.g. /fusion_node; default: any that is found",
    )
    for modality in Modality:
        parser.add_argument(
            f"--{modality}-topic",
            default="",
            help=f"live {modality} images to look at; default: as the node has it",
        )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a few seconds: no streams, no timing of the engine; of a live graph only the "
        "diagnostics of --node",
    )
    parser.add_argument("--strict", action="store_true", help="fail on warnings too")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    return parser


if __name__ == "__main__":
    sys.exit(main())
