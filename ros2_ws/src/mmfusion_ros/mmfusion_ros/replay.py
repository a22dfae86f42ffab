"""Run a recorded bag through the fusion pipeline: ``ros2 run mmfusion_ros replay``.

Reads the bag itself, steps the pipeline of the node set by set, and writes into a folder:

- ``result/``: an MCAP bag for Foxglove, RViz and ``ros2 bag`` with the fused picture, registered
  thermal, saliency mask, overlay, detections in 2D and 3D and the status, as far as the artifact
  gives them, beside the RGB picture as it was recorded; ``fused/camera_info`` and ``markers`` of
  the node are not in it;
- ``metrics.json``: fusion metrics beside two simple baselines, saliency and detection metrics
  where there is ground truth, synchroniser and damage counts;
- ``latency.json``: how long each stage took;
- ``report.html`` and ``pictures/``: the same for people.

``result/`` and ``metrics.json`` are the same byte for byte when the same bag, artifact, rig and
options are run again on the same machine with the same backend and number of threads. The other
files hold measured durations and are not.

What these messages hold is what the node would have published, except for the status, which has no
durations here. Where an image has no stamp, the node takes the time at which it arrives, and this
the time at which it was recorded.

Ground truth finds its frames like this. Where the names of the files (in a COCO file, those of its
images), without folder and suffix, are all stamps of RGB images in nanoseconds, each belongs to the
images of its stamp, and not every image needs one. Where none of them is, the k-th name belongs to
the k-th RGB message of the bag, whether or not that is run, and there must be as many names as
messages; digits in names count as numbers, so 2 comes before 10. Some names that are stamps beside
others that are not are an error.
"""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmfusion_ros.core.artifact import Artifact, open_artifact
from mmfusion_ros.core.bag_reader import Bag, open_bag, rgb_camera_info, rgb_stamps
from mmfusion_ros.core.detections_3d import Intrinsics
from mmfusion_ros.core.engines import BACKENDS, open_engine
from mmfusion_ros.core.errors import MmfusionError, RigError
from mmfusion_ros.core.frames import Modality
from mmfusion_ros.core.ground_truth import GroundTruth, load_ground_truth
from mmfusion_ros.core.rig import Camera, Rig, load_rig
from mmfusion_ros.core.stepper import Step
from mmfusion_ros.core.synchronizer import SynchronizerConfig
from mmfusion_ros.evaluation import CHANNELS, library
from mmfusion_ros.evaluation_truth import check_measurable
from mmfusion_ros.output_folder import OutputFolder
from mmfusion_ros.parameters import Settings
from mmfusion_ros.replay_documents import latency_document, metrics_document, write_json
from mmfusion_ros.replay_session import (
    Outcome,
    Plan,
    automatic_metrics_stride,
    check_bag,
    engine_facts,
    expected_sets,
    replay,
)
from mmfusion_ros.report import write_report

_INTERRUPTED = 130  # as shells have it
_BELONGS = (
    "all named after stamps of RGB images in nanoseconds, or else one for each RGB message of the "
    "bag, in the order of the names, digits in them taken as numbers"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        outcome = _run(options, shlex.join(["python", "-m", "mmfusion_ros.replay", *words]))
    except MmfusionError as error:
        print(f"replay: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"replay: {error}; results go to {options.out}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED
    return _INTERRUPTED if outcome.interrupted else 0


def _run(options: argparse.Namespace, command: str) -> Outcome:
    artifact = open_artifact(options.artifact)
    rig = _rig(options.rig, artifact)
    config = _synchronizer_config(options, rig)
    bag = open_bag(options.bag, _topics(options), frozenset(map(Modality, options.without)))
    check_bag(bag, artifact, config)
    folder = OutputFolder(options.out)
    folder.check(bag.path)
    plan = _plan(options, bag, _ground_truth(options, bag, artifact))
    if plan.metrics_stride:
        library()  # better now than after the first run
    with open_engine(artifact, options.backend, options.threads) as engine:
        folder.clear()
        facts = engine_facts(engine, options.threads)
        total = expected_sets(bag, plan.stride, plan.max_sets)
        outcome = replay(
            bag,
            artifact,
            engine,
            rig=rig,
            config=config,
            plan=plan,
            result=folder.result,
            intrinsics=_intrinsics(options, bag, artifact, rig),
            progress=_progress(total),
        )
    metrics = metrics_document(
        bag,
        artifact,
        engine=facts,
        rig_name=rig.name,
        config=config,
        plan=plan,
        outcome=outcome,
    )
    latency = latency_document(outcome, plan)
    write_json(folder.metrics, metrics)
    write_json(folder.latency, latency)
    if options.report:
        write_report(
            folder.path,
            metrics,
            latency,
            artifact=artifact,
            outcome=outcome,
            command=command,
        )
    _say(outcome, latency, folder, plan.truth)
    return outcome


def _ground_truth(options: argparse.Namespace, bag: Bag, artifact: Artifact) -> GroundTruth:
    masks, boxes = options.ground_truth_masks, options.ground_truth_boxes
    if masks is None and boxes is None:
        return GroundTruth()
    check_measurable(artifact, masks=masks is not None, boxes=boxes is not None)
    stamps = rgb_stamps(bag)
    truth = load_ground_truth(
        masks,
        boxes,
        stamps=stamps,
        size=artifact.image_size(Modality.RGB),
        classes=artifact.classes,
    )
    for known, what in ((truth.masks, "masks"), (truth.boxes, "pictures with boxes")):
        if known is not None:
            covered = sum(stamp in known for stamp in stamps)
            print(
                f"replay: {len(known)} ground-truth {what} cover {covered} of the bag's "
                f"{len(stamps)} RGB messages"
            )
    return truth


def _intrinsics(
    options: argparse.Namespace, bag: Bag, artifact: Artifact, rig: Rig
) -> Intrinsics | None:
    """As the node takes them: from the camera, else from the rig, if there is one."""
    if "box_depth" not in artifact.outputs:
        return None
    info = rgb_camera_info(bag)
    told = None if info is None else Intrinsics.told_by(info, artifact.image_size(Modality.RGB))
    if told is None and options.rig is not None:
        return Intrinsics.of(rig.cameras[Modality.RGB])
    return told


def _plan(options: argparse.Namespace, bag: Bag, truth: GroundTruth) -> Plan:
    metrics_stride = options.metrics_stride
    if metrics_stride is None:
        metrics_stride = automatic_metrics_stride(bag, options.stride, options.max_frames)
    return Plan(
        stride=options.stride,
        metrics_stride=metrics_stride,
        max_sets=options.max_frames,
        channel=options.channel,
        panels=options.report,
        measuring_threads=options.metrics_threads,
        min_score=options.min_score,
        truth=truth,
    )


def _rig(path: Path | None, artifact: Artifact) -> Rig:
    if path is not None:
        return load_rig(path)
    if artifact.rig_packing:
        raise RigError(f"artifact {artifact.name} needs to know the cameras; pass --rig")
    return Rig("none", "counts", {m: _plain_camera(m, artifact) for m in Modality}, None)


def _plain_camera(modality: Modality, artifact: Artifact) -> Camera:
    """A camera nothing is known of: stamps without offset, a focal length that nobody reads."""
    height, width = artifact.image_size(modality) if modality.value in artifact.inputs else (1, 1)
    matrix = (1.0, 0.0, width / 2, 0.0, 1.0, height / 2, 0.0, 0.0, 1.0)
    return Camera(width, height, matrix, (), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0), 0)


def _synchronizer_config(options: argparse.Namespace, rig: Rig) -> SynchronizerConfig:
    # The node's parameters, so that offline and live have the same defaults.
    settings = Settings(
        window_ms=options.window_ms,
        max_wait_ms=options.max_wait_ms,
        frozen_after_ms=options.frozen_after_ms,
    )
    return settings.synchronizer_config(rig)


def _topics(options: argparse.Namespace) -> dict[Modality, str]:
    given = {modality: getattr(options, f"{modality}_topic") for modality in Modality}
    return {modality: topic for modality, topic in given.items() if topic is not None}


def _progress(total: int) -> Any:
    def show(steps: Iterable[Step]) -> Iterable[Step]:
        # disable=None: no bar where nobody watches.
        bar: Iterable[Step] = tqdm(steps, total=total, unit="set", disable=None)
        return bar

    return show


def _say(
    outcome: Outcome, latency: dict[str, Any], folder: OutputFolder, truth: GroundTruth
) -> None:
    if truth.unknown_categories:
        listed = ", ".join(truth.unknown_categories)
        print(f"replay: ground-truth categories that the artifact has no class for: {listed}")
    reading = outcome.reading
    for modality, count in reading.restamped.items():
        print(f"replay: {count} {modality} images had no stamp; their log time was taken")
    for reason, count in {**reading.skipped, **outcome.problems}.items():
        print(f"replay: {count} not used: {reason}")
    if reading.error:
        print(f"replay: {reading.error}")
    if outcome.interrupted:
        print("replay: interrupted; what was done is complete")
    sets = ", ".join(f"{count} {name}" for name, count in outcome.sets.items())
    speed = f"{latency['sets_per_s']:.2f} sets/s"
    print(f"replay: {len(outcome.numbers)} frame sets ({sets}), {speed}; see {folder.path}")


def _parser() -> argparse.ArgumentParser:
    defaults = Settings()
    parser = argparse.ArgumentParser(
        prog="replay",
        description="Fuse a recorded bag offline, with metrics and a report.",
    )
    parser.add_argument("bag", type=Path, help="bag folder, or a .mcap, .db3 or .bag file")
    parser.add_argument("--artifact", type=Path, required=True, help="folder of 'mmfusion export'")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--rig", type=Path, help="rig file of the cameras")
    parser.add_argument("--backend", choices=BACKENDS, default=defaults.backend)
    parser.add_argument(
        "--threads", type=int, default=0, help="CPU threads of the engine; 0 for one per core"
    )
    for modality in Modality:
        parser.add_argument(f"--{modality}-topic", help=f"topic of the {modality} images")
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        choices=[Modality.DEPTH.value, Modality.THERMAL.value],
        help="do without this camera; may be given twice",
    )
    parser.add_argument("--stride", type=_positive, default=1, help="run every Nth frame set")
    parser.add_argument("--max-frames", type=_positive, help="stop after this many runs")
    parser.add_argument(
        "--metrics-stride",
        type=_whole,
        help="measure every Nth set that is run; 0 for none (default: about 100 in all)",
    )
    parser.add_argument(
        "--metrics-threads", type=_positive, default=1, help="sets measured at a time"
    )
    parser.add_argument("--channel", choices=CHANNELS, default="luma", help="to measure")
    parser.add_argument("--window-ms", type=float, default=defaults.window_ms)
    parser.add_argument("--max-wait-ms", type=float, default=defaults.max_wait_ms)
    parser.add_argument("--frozen-after-ms", type=float, default=defaults.frozen_after_ms)
    parser.add_argument(
        "--min-score",
        type=_share,
        default=defaults.min_score,
        help="leave out detections that score less; the metrics take all",
    )
    parser.add_argument(
        "--ground-truth-masks",
        type=Path,
        metavar="FOLDER",
        help=f"PNG masks, above 128 on what is salient, to measure saliency by; {_BELONGS}",
    )
    parser.add_argument(
        "--ground-truth-boxes",
        type=Path,
        metavar="FILE",
        help="COCO JSON to measure detections by, its categories named like the artifact's "
        f"classes; {_BELONGS}",
    )
    parser.add_argument(
        "--no-report", dest="report", action="store_false", help="no report.html, no pictures"
    )
    return parser


def _share(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{number:g} is not from 0 to 1")
    return number


def _whole(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{number} is negative")
    return number


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
