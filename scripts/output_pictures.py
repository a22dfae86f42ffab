"""Make the pictures of docs/outputs.md: what the bundled networks make of one courtyard frame.

python scripts/output_pictures.py [--frame NUMBER] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mmfusion_ros.core.artifact import Artifact, open_artifact
from mmfusion_ros.core.detections import MIN_SCORE
from mmfusion_ros.core.engines import open_engine
from mmfusion_ros.core.errors import MmfusionError
from mmfusion_ros.core.frames import Companion, Frame, FrameSet, Modality, SourceImage
from mmfusion_ros.core.overlay import draw_overlay
from mmfusion_ros.core.pipeline import Pipeline
from mmfusion_ros.core.playback import Picture, open_playback
from mmfusion_ros.core.results import Results
from mmfusion_ros.core.rig import load_rig
from mmfusion_ros.evaluation import rgb_picture, thermal_picture

ROOT = Path(__file__).resolve().parent.parent
COURTYARD = ROOT / "data" / "courtyard"
ARTIFACT = ROOT / "artifacts" / "rgbdt_full_640x480"
FRAMES = 40
WIDTH = 400  # of a picture in the documentation


def run_until(number: int, artifact: Artifact) -> Results:
    """What an artifact makes of a frame, after those before it as on a robot."""
    sizes = {modality: artifact.image_size(modality) for modality in artifact.encodings}
    playback = open_playback(COURTYARD, sizes=sizes, frames=number + 1)
    taken: dict[Modality, list[Frame]] = {modality: [] for modality in Modality}
    for picture in playback.pictures():
        taken[picture.modality].append(frame_of(picture))
    sets = zip(*(taken[modality] for modality in Modality), strict=True)
    with open_engine(artifact) as engine:
        pipeline = Pipeline(
            artifact, engine, load_rig(ROOT / "calibration" / "demo.yaml"), MIN_SCORE
        )
        for rgb, depth, thermal in tqdm(sets, total=number + 1, unit="frame"):
            companions = (Companion(frame, None, 0) for frame in (depth, thermal))
            results = pipeline.run(FrameSet(rgb, *companions))
        # The engine's arrays last as long as it does.
        picture = results.fused.copy()
    if len(results.present) != len(Modality):
        raise MmfusionError(f"frame {number} lacks a camera: {results.problems}")
    return Results(**{**vars(results), "fused": picture})


def frame_of(picture: Picture) -> Frame:
    """A picture as a camera's frame."""
    height, width = picture.pixels.shape[:2]
    image = SourceImage(
        picture.pixels.tobytes(), height, width, picture.encoding, picture.pixels[0].nbytes
    )
    return Frame(picture.modality, picture.due_ns, f"{picture.modality}_optical_frame", image)


def main() -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(description="Make the pictures of docs/outputs.md.")
    parser.add_argument(
        "--frame",
        type=int,
        choices=range(FRAMES),
        default=6,
        metavar="NUMBER",
        help=f"of data/courtyard, below {FRAMES} (default 6)",
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    options = parser.parse_args()
    try:
        artifact = open_artifact(ARTIFACT)
        results = run_until(options.frame, artifact)
    except MmfusionError as error:
        print(f"output_pictures: {error}", file=sys.stderr)
        return 1
    pictures = {
        "rgb": rgb_picture(results),
        "registered_thermal": thermal_picture(results),
        "fused": results.fused,
        "saliency": results.saliency,
        "overlay": draw_overlay(
            results.fused, results.saliency, results.detections, artifact.classes
        ),
        "detections": draw_overlay(results.fused, None, results.detections, artifact.classes),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        if picture is not None:
            write(options.out / f"output_{name}.png", picture)
    return 0


def write(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write a grey or r g b picture, small enough for a page."""
    size = (WIDTH, round(picture.shape[0] * WIDTH / picture.shape[1]))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    if small.ndim == 3:
        small = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
    if not cv2.imwrite(str(path), small, [cv2.IMWRITE_PNG_COMPRESSION, 9]):
        raise MmfusionError(f"{path} cannot be written")
    print(f"{path}: {path.stat().st_size // 1024} kB")


if __name__ == "__main__":
    sys.exit(main())
