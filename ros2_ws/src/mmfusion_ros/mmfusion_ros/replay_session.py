"""One replay: bag in, results out, with reading, engine, measuring and writing side by side."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmfusion_ros import topics
from mmfusion_ros.core.artifact import Artifact
from mmfusion_ros.core.background import Background, prefetch
from mmfusion_ros.core.bag_reader import Bag, ReadingReport, read_bag
from mmfusion_ros.core.bag_writer import ResultTopics, ResultWriter, types_written
from mmfusion_ros.core.camera_info import CameraInfo
from mmfusion_ros.core.detections_3d import Intrinsics
from mmfusion_ros.core.engines import Engine
from mmfusion_ros.core.errors import ArtifactError, BagError, ImageError
from mmfusion_ros.core.frames import Frame, Modality
from mmfusion_ros.core.ground_truth import GroundTruth
from mmfusion_ros.core.images import to_encoding
from mmfusion_ros.core.pipeline import Pipeline
from mmfusion_ros.core.results import Results
from mmfusion_ros.core.rig import Rig
from mmfusion_ros.core.stepper import Step, Stepper
from mmfusion_ros.core.synchronizer import SynchronizerConfig, SynchronizerStatistics
from mmfusion_ros.evaluation import Measured, label, measure
from mmfusion_ros.evaluation_truth import Judged, is_known, judge
from mmfusion_ros.message_definitions import typestore_for
from mmfusion_ros.panels import panel

if TYPE_CHECKING:
    from collections.abc import Callable

READ_AHEAD = 12  # frames, so about four sets
RESULT_TOPICS = ResultTopics(*(topic.name.removeprefix("~") for topic in topics.PER_FRAME))
_MEASURED_AIM = 100  # frame sets, where the user does not say


@dataclass(frozen=True)
class Plan:
    """What to do with each frame set.

    Attributes:
        stride: run every so manieth set.
        metrics_stride: measure every so manieth set that is run; 0 for none.
        max_sets: stop after so many runs; None for the whole bag.
        channel: of the pictures to measure.
        panels: keep pictures of the measured sets for the report.
        measuring_threads: how many measure at a time.
        min_score: detections that score less are neither written nor shown.
        truth: to compare every set with that is run and that it knows. Detections of any score
            take part in that.
    """

    stride: int
    metrics_stride: int
    max_sets: int | None
    channel: str
    panels: bool
    measuring_threads: int
    min_score: float = 0.0
    truth: GroundTruth = field(default_factory=GroundTruth)


@dataclass
class Outcome:
    """What a replay gave, also one that ended early.

    Attributes:
        reading: what was wrong with the bag.
        sets: how many sets were run, by modality set.
        problems: images that could not be used, by reason.
        numbers: of the sets run.
        stages: duration of each stage in seconds, a list in the order of the sets.
        measured: figures of the sets that were measured.
        judged: the sets that there is ground truth for, beside it.
        statistics: of the synchroniser; None before the end.
        interrupted: whether the user ended it.
        wall_s: how long it took.
    """

    reading: ReadingReport = field(default_factory=ReadingReport)
    sets: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    numbers: list[int] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=dict)
    measured: list[Measured] = field(default_factory=list)
    judged: list[Judged] = field(default_factory=list)
    statistics: SynchronizerStatistics | None = None
    interrupted: bool = False
    wall_s: float = 0.0

    def note(self, step: Step) -> None:
        """Count one step."""
        self.numbers.append(step.number)
        self.sets[label(step.results.present)] += 1
        self.problems.update(step.results.problems.values())
        for stage, seconds in step.results.stages.items():
            self.stages.setdefault(stage, []).append(seconds)


def automatic_metrics_stride(bag: Bag, stride: int, max_sets: int | None) -> int:
    """The stride that measures about a hundred sets, spread over the bag."""
    runs = expected_sets(bag, stride, max_sets)
    return max(1, math.ceil(runs / _MEASURED_AIM))


def expected_sets(bag: Bag, stride: int, max_sets: int | None) -> int:
    """About how many sets will be run if all is well with the bag."""
    share = 1.0
    if bag.range_ns is not None and bag.duration_ns:
        start, end = bag.range_ns
        inside = min(end, bag.start_ns + bag.duration_ns) - max(start, bag.start_ns)
        share = min(1.0, max(0.0, inside / bag.duration_ns))
    runs = math.ceil(bag.topics[Modality.RGB].count * share / stride)
    return runs if max_sets is None else min(runs, max_sets)


def check_bag(bag: Bag, artifact: Artifact, config: SynchronizerConfig) -> None:
    """Find out before anything is run that a bag does not fit.

    Raises:
        ArtifactError: if a camera has another size than the artifact takes.
        BagError: if the stamps of two cameras are from different times.
    """
    for modality, first in bag.first.items():
        if modality.value in artifact.inputs:
            _check_size(first, artifact)
    rgb = bag.first.get(Modality.RGB)
    offsets = {Modality.DEPTH: config.depth, Modality.THERMAL: config.thermal}
    for modality, timing in offsets.items():
        frame = bag.first.get(modality)
        if rgb is None or frame is None:
            continue
        apart = abs(frame.stamp_ns - timing.offset_ns - rgb.stamp_ns)
        if apart > bag.duration_ns + timing.window_ns:
            raise BagError(
                f"the stamps of {modality} and rgb never meet: the first ones are "
                f"{apart / 1e9:.3f} s apart, the bag is {bag.duration_ns / 1e9:.3f} s long; "
                "correct the driver's clock, set time_offset_ms in the rig file or pass "
                f"--without {modality}"
            )


def _check_size(frame: Frame, artifact: Artifact) -> None:
    modality = frame.modality
    try:
        size = to_encoding(frame.image, artifact.encodings[modality]).shape[:2]
    except ImageError:
        return  # it may be the only damaged one
    expected = artifact.image_size(modality)
    if size != expected:
        raise ArtifactError(
            f"{modality} images are {size[1]}x{size[0]} pixels, but artifact {artifact.name} was "
            f"exported for {expected[1]}x{expected[0]}; export it for this camera"
        )


def replay(
    bag: Bag,
    artifact: Artifact,
    engine: Engine,
    *,
    rig: Rig,
    config: SynchronizerConfig,
    plan: Plan,
    result: Path | None,
    camera_info: CameraInfo | None = None,
    intrinsics: Intrinsics | None = None,
    progress: Callable[[Iterable[Step]], Iterable[Step]],
) -> Outcome:
    """Run a bag through the pipeline.

    Ctrl-C ends it early; what was done until then is kept and complete.

    Args:
        bag: to read.
        artifact: the engine's.
        engine: open.
        rig: the cameras.
        config: of the synchroniser.
        plan: what to do with the sets.
        result: folder of the bag to write; None for none.
        camera_info: of the fused picture; None if not known: none is then written.
        intrinsics: of the RGB camera; None if not known: nothing is then placed in space.
        progress: wraps the steps to show how far it is.

    Raises:
        MmfusionError: if the engine fails, the bag cannot be opened any more or no RGB image
            in it can be used.
    """
    outcome = Outcome()
    started = time.perf_counter()
    # Whether a candidate is kept depends on better ones only, so others may be cut off later.
    min_score = plan.min_score if plan.truth.boxes is None else 0.0
    stepper = Stepper(Pipeline(artifact, engine, rig, min_score), config, plan.stride)
    writer = None
    if result is not None:
        store = typestore_for(*types_written(artifact))
        writer = ResultWriter(
            result,
            store,
            artifact,
            engine,
            RESULT_TOPICS,
            camera_info=camera_info,
            intrinsics=intrinsics,
        )
    recorded = prefetch(read_bag(bag), READ_AHEAD)
    frames = outcome.reading.frames(recorded)
    measuring: Background[Measured] = Background("measure", plan.measuring_threads)
    judging: Background[Judged] = Background("judge", plan.measuring_threads)
    writing: Background[None] = Background("write")
    try:
        with measuring, judging, writing:
            try:
                for step in progress(stepper.run(frames)):
                    outcome.note(step)
                    shown = dataclasses.replace(step, results=_shown(step.results, plan))
                    if writer is not None:
                        writing.submit(writer.write, shown.results, step.log_time_ns)
                    if is_known(step, plan.truth):
                        judging.submit(judge, step, plan.truth)
                    if (
                        plan.metrics_stride
                        and (len(outcome.numbers) - 1) % plan.metrics_stride == 0
                    ):
                        measuring.submit(_measure, shown, plan, artifact)
                    if len(outcome.numbers) == plan.max_sets:
                        break
            except KeyboardInterrupt:
                outcome.interrupted = True
            writing.results()
            outcome.measured = measuring.results()
            outcome.judged = judging.results()
    finally:
        recorded.close()
        if writer is not None:
            writer.close()
    outcome.statistics = stepper.statistics()
    outcome.wall_s = time.perf_counter() - started
    _check_use(outcome)
    return outcome


def _shown(results: Results, plan: Plan) -> Results:
    """What the node would publish of the results."""
    if results.detections is None:
        return results
    return dataclasses.replace(results, detections=results.detections.above(plan.min_score))


def _measure(step: Step, plan: Plan, artifact: Artifact) -> Measured:
    strip = panel(step.results, plan.truth, artifact.classes) if plan.panels else None
    return measure(step, plan.channel, strip)


def _check_use(outcome: Outcome) -> None:
    if outcome.interrupted or any("rgb" in name for name in outcome.sets):
        return
    reasons = {**outcome.reading.skipped, **outcome.problems}
    listed = "; ".join(f"{count} x {reason}" for reason, count in reasons.items())
    detail = listed or outcome.reading.error or "its topic holds none"
    raise BagError(f"no RGB image of the bag could be used: {detail}")


def engine_facts(engine: Engine, threads: int) -> Mapping[str, Any]:
    """What ran the graph, for the report."""
    return {
        "backend": engine.backend,
        "precision": engine.precision,
        "threads": threads,
        "stands_in": engine.stands_in,
        "gate": None if engine.gate is None else engine.gate.document(),
    }
