"""One replay as a piece of work: told by values alone, so that any process can do it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmfusion_ros.core.artifact import Artifact, open_artifact
from mmfusion_ros.core.bag_reader import Bag, camera_info_beside, open_bag, rgb_stamps
from mmfusion_ros.core.camera_info import CameraInfo, camera_info_of
from mmfusion_ros.core.detections_3d import Intrinsics
from mmfusion_ros.core.engines import Engine, EngineOptions, open_engine, open_fallback
from mmfusion_ros.core.engines import Progress as OpeningProgress
from mmfusion_ros.core.errors import EngineError, RigError
from mmfusion_ros.core.frames import Modality
from mmfusion_ros.core.ground_truth import GroundTruth, load_ground_truth
from mmfusion_ros.core.rig import Camera, Rig, load_rig
from mmfusion_ros.core.stepper import Step
from mmfusion_ros.core.synchronizer import SynchronizerConfig
from mmfusion_ros.core.time_range import TimeRange
from mmfusion_ros.evaluation import library
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

Progress = Callable[[Iterable[Step], int], Iterable[Step]]


@dataclass(frozen=True)
class ReplayOptions:
    """What the user asks for, whatever the bag; see the options of the command line."""

    rig: Path | None = None
    engine: EngineOptions = field(default_factory=EngineOptions)
    topics: Mapping[Modality, str] = field(default_factory=dict)
    without: frozenset[Modality] = frozenset()
    time_range: TimeRange = field(default_factory=TimeRange)
    stride: int = 1
    max_frames: int | None = None
    metrics_stride: int | None = None
    metrics_threads: int = 1
    channel: str = "luma"
    window_ms: float = Settings.window_ms
    max_wait_ms: float = Settings.max_wait_ms
    frozen_after_ms: float = Settings.frozen_after_ms
    min_score: float = Settings.min_score
    class_map: Mapping[str, str] = field(default_factory=dict)
    report: bool = True


@dataclass(frozen=True)
class Job:
    """One bag through one artifact.

    Attributes:
        name: for people; that of the folder where there are several.
        bag, artifact, out: paths.
        options: how.
        masks, boxes: ground truth of this bag; None for none.
        engine_threads: what the engine gets where the options leave it open.
        command: as the user typed it, for the report.
    """

    name: str
    bag: Path
    artifact: Path
    out: Path
    options: ReplayOptions
    masks: Path | None = None
    boxes: Path | None = None
    engine_threads: int = 0
    command: str = ""


@dataclass(frozen=True)
class Done:
    """What came of a job that ran.

    Attributes:
        metrics, latency: what metrics.json and latency.json hold.
        notes: what the user should know, a line each.
        interrupted: whether it ended early because the user wanted so.
    """

    metrics: Mapping[str, Any]
    latency: Mapping[str, Any]
    notes: tuple[str, ...]
    interrupted: bool


@dataclass(frozen=True, eq=False)
class Prepared:
    """A job of which it is known that it can run."""

    job: Job
    artifact: Artifact
    rig: Rig
    config: SynchronizerConfig
    bag: Bag
    folder: OutputFolder
    plan: Plan
    camera_info: CameraInfo | None
    intrinsics: Intrinsics | None
    notes: tuple[str, ...]


def prepare(job: Job) -> Prepared:
    """Find out all that can be wrong before anything is run or written.

    Raises:
        MmfusionError: if something is.
    """
    options = job.options
    artifact = open_artifact(job.artifact)
    rig = rig_for(options.rig, artifact)
    config = _synchronizer_config(options, rig)
    bag = open_bag(job.bag, options.topics, options.without)
    bag, range_notes = options.time_range.applied(bag)
    check_bag(bag, artifact, config)
    folder = OutputFolder(job.out)
    folder.check(bag.path)
    truth, truth_notes = _ground_truth(job, bag, artifact)
    plan = _plan(options, bag, truth)
    if plan.metrics_stride:
        library()  # better now than after the first run
    notes = (*_guesses(bag), *range_notes, *truth_notes)
    told = camera_info_beside(bag, Modality.RGB)
    return Prepared(
        job=job,
        artifact=artifact,
        rig=rig,
        config=config,
        bag=bag,
        folder=folder,
        plan=plan,
        camera_info=_camera_info(options, told, artifact, rig),
        intrinsics=_intrinsics(options, told, artifact, rig),
        notes=notes,
    )


def run(
    prepared: Prepared, progress: Progress, opening_progress: OpeningProgress | None = None
) -> Done:
    """Do a job and write its folder.

    Args:
        prepared: by `prepare`.
        progress: wraps the steps, of which it is told how many are expected.
        opening_progress: called before, while an engine is built; what it raises comes out.

    Raises:
        MmfusionError, OSError: if it cannot be done.
    """
    job, bag, artifact, plan = prepared.job, prepared.bag, prepared.artifact, prepared.plan
    options, folder = job.options, prepared.folder
    total = expected_sets(bag, plan.stride, plan.max_sets)
    threads = options.engine.threads or job.engine_threads
    wanted = replace(options.engine, threads=threads)

    def replayed_by(engine: Engine) -> tuple[Mapping[str, Any], Outcome]:
        folder.clear()
        facts = engine_facts(engine, options.engine.threads)
        outcome = replay(
            bag,
            artifact,
            engine,
            rig=prepared.rig,
            config=prepared.config,
            plan=plan,
            result=folder.result,
            camera_info=prepared.camera_info,
            intrinsics=prepared.intrinsics,
            progress=lambda steps: progress(steps, total),
        )
        return facts, outcome

    try:
        with open_engine(artifact, replace(wanted, fallback=""), opening_progress) as engine:
            facts, outcome = replayed_by(engine)
    except EngineError as error:
        if not wanted.fallback:
            raise
        # From the beginning, also where it failed on the way: a replay is of one engine.
        with open_fallback(artifact, wanted, str(error)) as engine:
            facts, outcome = replayed_by(engine)
    metrics = metrics_document(
        bag,
        artifact,
        engine=facts,
        rig_name=prepared.rig.name,
        config=prepared.config,
        plan=plan,
        outcome=outcome,
    )
    latency = latency_document(outcome, plan)
    write_json(folder.metrics, metrics)
    write_json(folder.latency, latency)
    if options.report:
        write_report(
            folder.path, metrics, latency, artifact=artifact, outcome=outcome, command=job.command
        )
    notes = (*prepared.notes, *_notes(outcome, latency, folder))
    return Done(metrics, latency, notes, outcome.interrupted)


def _guesses(bag: Bag) -> list[str]:
    """Which topics were found, where anything but their names told what they are."""
    return [
        f"{modality} is {bag.topics[modality].name}: {reason}"
        for modality, reason in bag.guesses.items()
    ]


def _ground_truth(job: Job, bag: Bag, artifact: Artifact) -> tuple[GroundTruth, list[str]]:
    masks, boxes = job.masks, job.boxes
    if masks is None and boxes is None:
        return GroundTruth(), []
    check_measurable(artifact, masks=masks is not None, boxes=boxes is not None)
    stamps = rgb_stamps(bag)
    truth = load_ground_truth(
        masks,
        boxes,
        stamps=stamps,
        size=artifact.image_size(Modality.RGB),
        classes=artifact.classes,
        class_map=job.options.class_map,
    )
    notes = []
    for known, what in ((truth.masks, "masks"), (truth.boxes, "pictures with boxes")):
        if known is not None:
            covered = sum(stamp in known for stamp in stamps)
            notes.append(
                f"{len(known)} ground-truth {what} cover {covered} of the bag's "
                f"{len(stamps)} RGB messages"
            )
    if truth.unknown_categories:
        listed = ", ".join(truth.unknown_categories)
        notes.append(
            f"ground-truth categories that the artifact has no class for: {listed}; "
            f"its classes are {', '.join(artifact.classes)}; --class-map says which is which"
        )
    return truth, notes


def _camera_info(
    options: ReplayOptions, told: CameraInfo | None, artifact: Artifact, rig: Rig
) -> CameraInfo | None:
    """As the node publishes it: the camera's own, else that of the rig, if there is one."""
    if told is not None and (told.height, told.width) == artifact.image_size(Modality.RGB):
        return told
    return None if options.rig is None else camera_info_of(rig.cameras[Modality.RGB])


def _intrinsics(
    options: ReplayOptions, told: CameraInfo | None, artifact: Artifact, rig: Rig
) -> Intrinsics | None:
    """As the node takes them: from the camera, else from the rig, if there is one."""
    size = artifact.image_size(Modality.RGB)
    known = None if told is None else Intrinsics.told_by(told, size)
    if known is None and options.rig is not None:
        return Intrinsics.of(rig.cameras[Modality.RGB])
    return known


def _plan(options: ReplayOptions, bag: Bag, truth: GroundTruth) -> Plan:
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


def rig_for(path: Path | None, artifact: Artifact) -> Rig:
    """The rig of a file; without one, one that nothing is known of, if the artifact can do so.

    Raises:
        RigError: if the file is wrong, or the artifact needs one.
    """
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


def _synchronizer_config(options: ReplayOptions, rig: Rig) -> SynchronizerConfig:
    # The node's parameters, so that offline and live have the same defaults.
    settings = Settings(
        window_ms=options.window_ms,
        max_wait_ms=options.max_wait_ms,
        frozen_after_ms=options.frozen_after_ms,
    )
    return settings.synchronizer_config(rig)


def _notes(outcome: Outcome, latency: Mapping[str, Any], folder: OutputFolder) -> list[str]:
    reading = outcome.reading
    notes = [
        f"{count} {modality} images had no stamp; their log time was taken"
        for modality, count in reading.restamped.items()
    ]
    notes += [
        f"{count} not used: {reason}"
        for reason, count in {**reading.skipped, **outcome.problems}.items()
    ]
    if reading.error:
        notes.append(reading.error)
    if outcome.interrupted:
        notes.append("interrupted; what was done is complete")
    sets = ", ".join(f"{count} {name}" for name, count in outcome.sets.items())
    speed = f"{latency['sets_per_s']:.2f} sets/s"
    notes.append(f"{len(outcome.numbers)} frame sets ({sets}), {speed}; see {folder.path}")
    return notes
