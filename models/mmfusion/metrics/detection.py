"""Detections against boxes, by faster-coco-eval: average precision as COCO defines it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfusion.metrics.pictures import MetricError

_MOST_DETECTIONS = 100  # of one picture that count


@dataclass(frozen=True, eq=False)
class JudgedBoxes:
    """Detections in one picture, and what there was to detect. Boxes are x y x y in pixels.

    Attributes:
        boxes: float (n, 4).
        scores: float (n,).
        classes: int (n,).
        truth_boxes: float (m, 4).
        truth_classes: int (m,).
        crowd: bool (m,), regions in which detections count neither for nor against.
        labelled: classes that were looked for in this picture; all others are left out of it.
    """

    boxes: NDArray[np.floating[Any]]
    scores: NDArray[np.floating[Any]]
    classes: NDArray[np.integer[Any]]
    truth_boxes: NDArray[np.floating[Any]]
    truth_classes: NDArray[np.integer[Any]]
    crowd: NDArray[np.bool_]
    labelled: frozenset[int]

    def __post_init__(self) -> None:
        for boxes, others in (
            (self.boxes, (self.scores, self.classes)),
            (self.truth_boxes, (self.truth_classes, self.crowd)),
        ):
            if boxes.ndim != 2 or boxes.shape[1] != 4:
                raise MetricError(f"boxes have shape {boxes.shape}, expected (n, 4)")
            if any(array.shape != (len(boxes),) for array in others):
                raise MetricError(
                    f"{len(boxes)} boxes go with arrays of shape "
                    f"{' and '.join(str(array.shape) for array in others)}, expected one "
                    "number for each box"
                )


@dataclass(frozen=True)
class AveragePrecision:
    """Average precision, 0..1; None where there was nothing to detect.

    Attributes:
        ap: mean over IoU 0.50 to 0.95 in steps of 0.05 ("mAP50:95" over classes).
        ap50, ap75: at one IoU.
        truths: how many objects there were to detect, crowds not counted.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    truths: int


@dataclass(frozen=True)
class DetectionFigures:
    """Figures of a set of pictures: the mean over the classes that occur, and each class."""

    mean: AveragePrecision
    classes: dict[str, AveragePrecision]


def detection_library() -> Any:
    """The package that measures.

    Raises:
        MetricError: if it is not installed.
    """
    try:
        import faster_coco_eval  # noqa: PLC0415 (optional)
    except ImportError as error:
        raise MetricError(
            f"measuring detections needs faster-coco-eval ({error}); pip install 'mmfusion[eval]'"
        ) from error
    return faster_coco_eval


def average_precision(
    pictures: Sequence[JudgedBoxes], class_names: Sequence[str]
) -> DetectionFigures:
    """Measure a set of pictures.

    At most 100 detections of each class in a picture count, objects of all sizes do.

    Args:
        pictures: all of the set.
        class_names: index = class.

    Raises:
        MetricError: if there are no pictures, or the package that measures is not installed.
    """
    if not pictures:
        raise MetricError("no pictures to measure detections in; expected at least one")
    library = detection_library()
    described = {
        "images": [{"id": number} for number in range(1, len(pictures) + 1)],
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(class_names)],
    }
    truths, detections = _annotations(pictures)
    evaluation = library.COCOeval_faster(
        library.COCO({**described, "annotations": truths}),
        library.COCO({**described, "annotations": detections}),
        "bbox",
        print_function=lambda *_: None,
    )
    evaluation.params.maxDets = [_MOST_DETECTIONS]
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
    evaluation.evaluate()
    evaluation.accumulate()
    # IoU, recall, class; -1 where there was nothing to detect.
    precision = np.asarray(evaluation.eval["precision"])[..., 0, 0]
    counts = np.zeros(len(class_names), int)
    for truth in truths:
        counts[truth["category_id"] - 1] += not truth["iscrowd"]
    classes = {
        name: _figures(precision[..., [kind]], int(counts[kind]))
        for kind, name in enumerate(class_names)
    }
    return DetectionFigures(_figures(precision, int(counts.sum())), classes)


def _annotations(pictures: Sequence[JudgedBoxes]) -> tuple[list[Any], list[Any]]:
    truths: list[Any] = []
    detections: list[Any] = []
    for number, picture in enumerate(pictures, 1):
        for place in _looked_for(picture.truth_classes, picture.labelled):
            entry = _annotation(
                number, picture.truth_boxes[place], int(picture.truth_classes[place])
            )
            truths.append({**entry, "id": len(truths) + 1, "iscrowd": int(picture.crowd[place])})
        for place in _looked_for(picture.classes, picture.labelled):
            entry = _annotation(number, picture.boxes[place], int(picture.classes[place]))
            score = float(picture.scores[place])
            detections.append({**entry, "id": len(detections) + 1, "iscrowd": 0, "score": score})
    return truths, detections


def _looked_for(classes: NDArray[np.integer[Any]], labelled: frozenset[int]) -> list[int]:
    return [place for place, kind in enumerate(classes.tolist()) if kind in labelled]


def _annotation(number: int, box: NDArray[np.floating[Any]], kind: int) -> dict[str, Any]:
    left, top, right, bottom = box.astype(np.float64).tolist()
    width, height = right - left, bottom - top
    return {
        "image_id": number,
        "category_id": kind + 1,
        "bbox": [left, top, width, height],
        "area": width * height,
    }


def _figures(precision: NDArray[np.float64], truths: int) -> AveragePrecision:
    """Means over what is defined; IoU 0.50 is the first and 0.75 the sixth along the first axis."""

    def mean(part: NDArray[np.float64]) -> float | None:
        defined = part[part > -1]
        return float(defined.mean()) if defined.size else None

    return AveragePrecision(mean(precision), mean(precision[0]), mean(precision[5]), truths)
