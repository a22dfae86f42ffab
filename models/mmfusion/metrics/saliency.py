"""Saliency maps against masks, by pysodmetrics: the measures that saliency papers report."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfusion.metrics.pictures import MetricError, size

Picture = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class SaliencyFigures:
    """How one map compares with its mask; see `compare_saliency`.

    Attributes:
        mae: mean absolute error, 0..1, of the stretched map. Lower is better; of all others
            higher is.
        s_measure: likeness of structure, alpha 0.5.
        weighted_f: weighted F-measure, beta squared 1.
        adaptive_f, adaptive_e: F- (beta squared 0.3) and E-measure of the map cut at twice its
            mean.
        f_curve, e_curve: float64 (256,), the same for the map cut at each grey level.
    """

    mae: float
    s_measure: float
    weighted_f: float
    adaptive_f: float
    adaptive_e: float
    f_curve: NDArray[np.float64]
    e_curve: NDArray[np.float64]


def saliency_library() -> Any:
    """The package that measures.

    Raises:
        MetricError: if it is not installed.
    """
    try:
        import py_sod_metrics  # noqa: PLC0415 (optional)
    except ImportError as error:
        raise MetricError(
            f"measuring saliency needs pysodmetrics ({error}); pip install 'mmfusion[eval]'"
        ) from error
    # It speaks of a release that the requirements rule out.
    warnings.filterwarnings("ignore", "This class will be removed", module="py_sod_metrics")
    return py_sod_metrics


def compare_saliency(saliency: Picture, truth: Picture) -> SaliencyFigures:
    """Measure one map.

    As published evaluations do, the map is first stretched to 0..1 by its own extremes, unless
    it is constant.

    Args:
        saliency: uint8 (H, W).
        truth: uint8 (H, W), above 128 on the object.

    Raises:
        MetricError: if a picture is no uint8 (H, W), their sizes differ or the package that
            measures is not installed.
    """
    _check(saliency, truth)
    library = saliency_library()
    mae, structure, weighted, f_measure, e_measure = (
        getattr(library, name)()
        for name in ("MAE", "Smeasure", "WeightedFmeasure", "Fmeasure", "Emeasure")
    )
    for measure in (mae, structure, weighted, f_measure, e_measure):
        measure.step(pred=saliency, gt=truth)
    f_results, e_results = f_measure.get_results()["fm"], e_measure.get_results()["em"]
    return SaliencyFigures(
        mae=float(mae.get_results()["mae"]),
        s_measure=float(structure.get_results()["sm"]),
        weighted_f=float(weighted.get_results()["wfm"]),
        adaptive_f=float(f_results["adp"]),
        adaptive_e=float(e_results["adp"]),
        f_curve=np.asarray(f_results["curve"], np.float64),
        e_curve=np.asarray(e_results["curve"], np.float64),
    )


def structure_and_error(saliency: Picture, truth: Picture) -> tuple[float, float]:
    """S-measure and mean absolute error of one map alone, in a tenth of the time.

    As `compare_saliency` has them, with its arguments and errors.
    """
    _check(saliency, truth)
    library = saliency_library()
    structure, mae = library.Smeasure(), library.MAE()
    for measure in (structure, mae):
        measure.step(pred=saliency, gt=truth)
    return float(structure.get_results()["sm"]), float(mae.get_results()["mae"])


def summarise_saliency(figures: Sequence[SaliencyFigures]) -> dict[str, float]:
    """The figures of a set of maps, by the names that papers use.

    Largest and mean F and E are taken over the curve that is averaged over the maps, all others
    are means of the maps' own figures.

    Raises:
        MetricError: if there are none.
    """
    if not figures:
        raise MetricError("no saliency maps to summarise; expected at least one")
    f_curve = np.mean([entry.f_curve for entry in figures], axis=0)
    e_curve = np.mean([entry.e_curve for entry in figures], axis=0)
    means = {
        name: float(np.mean([getattr(entry, name) for entry in figures]))
        for name in ("s_measure", "adaptive_f", "adaptive_e", "weighted_f", "mae")
    }
    return {
        "S": means["s_measure"],
        "F_max": float(f_curve.max()),
        "F_mean": float(f_curve.mean()),
        "F_adaptive": means["adaptive_f"],
        "E_max": float(e_curve.max()),
        "E_mean": float(e_curve.mean()),
        "E_adaptive": means["adaptive_e"],
        "F_weighted": means["weighted_f"],
        "MAE": means["mae"],
    }


def _check(saliency: Picture, truth: Picture) -> None:
    for name, picture in (("saliency", saliency), ("truth", truth)):
        if picture.dtype != np.uint8 or picture.ndim != 2:
            raise MetricError(
                f"{name} is {picture.dtype} of shape {picture.shape}, expected uint8 (H, W)"
            )
    if saliency.shape != truth.shape:
        raise MetricError(
            f"the saliency map is {size(saliency)} but its truth {size(truth)}; bring them to one "
            "size first, nothing is resized here"
        )
