"""Render a made-up scene into a folder: ``python -m mmfusion.synthetic OUT``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from mmfusion.errors import DataError
from mmfusion.synthetic.camera import aligned_rig, offset_rig
from mmfusion.synthetic.courtyard import SCENES, make_scene
from mmfusion.synthetic.light import ILLUMINATIONS
from mmfusion.synthetic.recording import write_sequence
from mmfusion.synthetic.sequences import render_sequence


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m mmfusion.synthetic", description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="new or empty folder")
    parser.add_argument("--scene", choices=SCENES, default="courtyard")
    parser.add_argument("--light", choices=tuple(ILLUMINATIONS), default="dusk")
    parser.add_argument("--smoke", action="store_true", help="a cloud of smoke in the courtyard")
    parser.add_argument(
        "--rig",
        choices=("aligned", "offset"),
        default="aligned",
        help="cameras that share one centre, or some centimetres apart (default: aligned)",
    )
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--rate", type=float, default=10.0, help="frames per second")
    parser.add_argument("--seed", type=int, default=0, help="of the sensor noise")
    options = parser.parse_args(arguments)
    if options.frames < 1 or options.rate <= 0.0:
        parser.error("--frames and --rate must be positive")

    rig = aligned_rig() if options.rig == "aligned" else offset_rig()
    scene = make_scene(options.scene, options.light, smoke=options.smoke)
    times = (number / options.rate for number in range(options.frames))
    frames = render_sequence(scene, rig, times, options.seed)
    try:
        count = write_sequence(
            options.out, rig, tqdm(frames, total=options.frames, unit="frame", desc=options.scene)
        )
    except DataError as error:
        parser.exit(1, f"error: {error}\n")
    sys.stdout.write(f"{count} frames written to {options.out}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
