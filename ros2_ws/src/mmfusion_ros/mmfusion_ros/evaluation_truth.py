"""How well do saliency and detections agree with ground truth?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmfusion_ros.core.artifact import Artifact
from mmfusion_ros.core.errors import GroundTruthError, MmfusionError
from mmfusion_ros.core.frames import Modality
from mmfusion_ros.core.ground_truth import GroundTruth, read_mask
from mmfusion_ros.core.stepper import Step
from mmfusion_ros.evaluation import label, library

if TYPE_CHECKING:
    from mmfusion.metrics import AveragePrecision, JudgedBoxes, SaliencyFigures


@dataclass(frozen=True, eq=False)
class Judged:
    """One frame set beside its ground truth.

    Attributes:
        modalities: which took part, like "rgb+thermal".
        saliency: figures of the map; None without a mask for it.
        boxes: detections and what there was to detect; None if that is not known.
    """

    modalities: str
    saliency: SaliencyFigures | None
    boxes: JudgedBoxes | None


def check_measurable(artifact: Artifact, *, masks: bool, boxes: bool) -> None:
    """Find out before anything is run that ground truth cannot be used.

    Args:
        artifact: that is to be measured.
        masks: whether there are masks to compare with.
        boxes: whether there are boxes.

    Raises:
        GroundTruthError: if the artifact does not put out what it is about.
        MmfusionError: if a package that measures is not installed.
    """
    needs = (
        (masks, "saliency", "saliency", "--ground-truth-masks", "saliency_library"),
        (boxes, "boxes", "detections", "--ground-truth-boxes", "detection_library"),
    )
    for given, output, meaning, option, package in needs:
        if not given:
            continue
        if output not in artifact.outputs:
            raise GroundTruthError(
                f"artifact {artifact.name} gives no {meaning} to compare; replay without {option} "
                "or with another artifact"
            )
        metrics = library()
        try:
            getattr(metrics, package)()
        except metrics.MetricError as error:
            raise MmfusionError(f"{error}, or replay without {option}") from error


def judge(step: Step, truth: GroundTruth) -> Judged:
    """Compare one step with its ground truth; call it for steps that `is_known`."""
    metrics, results = library(), step.results
    stamp = results.frames.stamp_ns
    saliency = boxes = None
    if results.saliency is not None and truth.masks is not None and stamp in truth.masks:
        saliency = metrics.compare_saliency(results.saliency, read_mask(truth.masks[stamp]))
    if results.detections is not None and truth.boxes is not None and stamp in truth.boxes:
        wanted, found = truth.boxes[stamp], results.detections
        boxes = metrics.JudgedBoxes(
            boxes=found.boxes,
            scores=found.scores,
            classes=found.classes,
            truth_boxes=wanted.boxes,
            truth_classes=wanted.classes,
            crowd=wanted.crowd,
            labelled=wanted.labelled,
        )
    return Judged(label(results.present), saliency, boxes)


def is_known(step: Step, truth: GroundTruth) -> bool:
    """Whether there is ground truth for a step, and a picture to compare it with."""
    return Modality.RGB in step.results.present and step.results.frames.stamp_ns in truth


def saliency_section(judged: Sequence[Judged], truth: GroundTruth) -> dict[str, Any] | None:
    """Saliency for metrics.json: all pictures, and by modality set; None without masks."""
    if truth.masks is None:
        return None

    def figures(part: Sequence[Judged]) -> dict[str, Any]:
        known = [entry.saliency for entry in part if entry.saliency is not None]
        values = library().summarise_saliency(known) if known else {}
        return {"pictures": len(known), **values}

    return _sections([entry for entry in judged if entry.saliency is not None], figures)


def detection_section(
    judged: Sequence[Judged], truth: GroundTruth, classes: Sequence[str]
) -> dict[str, Any] | None:
    """Detection for metrics.json: all pictures, and by modality set; None without boxes."""
    if truth.boxes is None:
        return None

    def figures(part: Sequence[Judged]) -> dict[str, Any]:
        known = [entry.boxes for entry in part if entry.boxes is not None]
        if not known:
            return {"pictures": 0}
        figures = library().average_precision(known, classes)
        return {
            "pictures": len(known),
            **_precision(figures.mean, "mAP"),
            "classes": {name: _precision(entry, "AP") for name, entry in figures.classes.items()},
        }

    sections = _sections([entry for entry in judged if entry.boxes is not None], figures)
    return {"ignored_categories": list(truth.unknown_categories), **sections}


def _sections(
    judged: Sequence[Judged], figures: Callable[[Sequence[Judged]], dict[str, Any]]
) -> dict[str, Any]:
    names = dict.fromkeys(entry.modalities for entry in judged)
    parts = {name: [entry for entry in judged if entry.modalities == name] for name in names}
    return {
        "overall": figures(judged),
        "modalities": {name: figures(part) for name, part in parts.items()},
    }


def _precision(entry: AveragePrecision, prefix: str) -> dict[str, Any]:
    values = dataclasses.asdict(entry)
    names = {"ap": f"{prefix}50_95", "ap50": f"{prefix}50", "ap75": f"{prefix}75"}
    return {names.get(key, key): value for key, value in values.items()}
