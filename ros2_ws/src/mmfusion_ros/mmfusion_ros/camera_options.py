"""Which cameras of a bag a command takes, and from which topics."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from mmfusion_ros.core.frames import Modality


def add_cameras(parser: argparse.ArgumentParser) -> None:
    """Add ``--rgb-topic``, ``--depth-topic``, ``--thermal-topic`` and ``--without``."""
    for modality in Modality:
        parser.add_argument(f"--{modality}-topic", help=f"topic of the {modality} images")
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        choices=[Modality.DEPTH.value, Modality.THERMAL.value],
        help="do without this camera; may be given twice",
    )


def topics_of(parsed: argparse.Namespace) -> Mapping[Modality, str]:
    """The topics that were named."""
    topics = {modality: getattr(parsed, f"{modality}_topic") for modality in Modality}
    return {modality: topic for modality, topic in topics.items() if topic is not None}


def left_out_of(parsed: argparse.Namespace) -> frozenset[Modality]:
    """The cameras to do without."""
    return frozenset(map(Modality, parsed.without))
