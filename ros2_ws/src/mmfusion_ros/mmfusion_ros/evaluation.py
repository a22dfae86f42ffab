"""How good were the fused pictures, beside the two simplest ways of fusing the same frames?"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mmfusion_ros.core.errors import MmfusionError
from mmfusion_ros.core.frames import Modality
from mmfusion_ros.core.images import to_encoding
from mmfusion_ros.core.results import Results
from mmfusion_ros.core.stepper import Step

CHANNELS = ("luma", "value")  # functions of mmfusion.metrics
METHODS = ("fused", "average", "maximum")
ALONE = ("EN", "SD", "SF", "AG")  # need nothing but the picture itself
RANKED_BY = "Q_ABF"

Picture = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Measured:
    """The figures of one frame set.

    Attributes:
        number: of the set.
        stamp_ns: of the RGB frame.
        modalities: which took part, like "rgb+thermal".
        values: metric to value, by method.
        panel: the pictures of the set side by side, a PNG file; None if not wanted.
    """

    number: int
    stamp_ns: int
    modalities: str
    values: dict[str, dict[str, float]]
    panel: bytes | None


def label(present: frozenset[Modality]) -> str:
    """Name of a set of modalities, like "rgb+thermal"."""
    return "+".join(m.value for m in Modality if m in present) or "none"


def library() -> Any:
    """The package of the metrics, which a robot need not have.

    Raises:
        MmfusionError: if it is not installed.
    """
    try:
        from mmfusion import metrics  # noqa: PLC0415 (optional)
    except ImportError as error:
        raise MmfusionError(
            f"measuring needs mmfusion.metrics ({error}); install the mmfusion package, which "
            "needs no PyTorch for this, or pass --metrics-stride 0"
        ) from error
    return metrics


def measure(step: Step, channel: str, panel: bytes | None) -> Measured:
    """Measure one step.

    Args:
        step: of the replay.
        channel: of the RGB and the fused picture to measure, one of CHANNELS.
        panel: to keep with the figures, for the report.
    """
    results = step.results
    metrics = library()
    grey = getattr(metrics, channel)
    rgb = rgb_picture(results)
    thermal = thermal_picture(results)
    fused = grey(results.fused)
    if rgb is None or thermal is None:
        values = {"fused": metrics.fusion_metrics(fused, fused, fused, ALONE)}
    else:
        visible = grey(rgb)
        names = _measurable(metrics, fused.shape)
        pictures = {
            "fused": fused,
            "average": metrics.average_fusion(thermal, visible),
            "maximum": metrics.maximum_fusion(thermal, visible),
        }
        values = {
            method: metrics.fusion_metrics(picture, thermal, visible, names)
            for method, picture in pictures.items()
        }
    return Measured(
        number=step.number,
        stamp_ns=results.frames.stamp_ns,
        modalities=label(results.present),
        values=values,
        panel=panel,
    )


def rgb_picture(results: Results) -> Picture | None:
    """The RGB picture as uint8 (H, W, 3); None if it took no part."""
    if Modality.RGB not in results.present:
        return None
    return np.asarray(to_encoding(results.frames.rgb.image, "rgb8"), np.uint8)


def thermal_picture(results: Results) -> Picture | None:
    """Thermal in grey levels on the RGB picture; None if it took no part.

    The artifact's registered thermal where it puts that out. Else the counts, with the display
    range of the results, merely scaled to the size of the RGB picture.
    """
    frame = results.frames.thermal.frame
    if Modality.THERMAL not in results.present or frame is None:
        return None
    if results.registered_thermal is not None:
        return results.registered_thermal
    wide = frame.image.encoding not in {"mono8", "8UC1"}
    if wide:
        pairs = to_encoding(frame.image, "mono16")
        counts = pairs.reshape(-1).view("<u2").reshape(pairs.shape[:2]).astype(np.float32)
        low, high = results.thermal_range
        scaled = (counts - low) * (255.0 / max(high - low, 1.0))
        grey = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    else:
        grey = to_encoding(frame.image, "mono8")[..., 0]
    height, width = results.fused.shape[:2]
    return np.asarray(cv2.resize(grey, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def summarise(measured: Sequence[Measured]) -> dict[str, Any]:
    """Aggregate by modality set and method, the sets in order of first appearance."""
    sets = dict.fromkeys(entry.modalities for entry in measured)
    return {name: _summary([m for m in measured if m.modalities == name]) for name in sets}


def _summary(measured: list[Measured]) -> dict[str, Any]:
    aggregate = library().aggregate
    methods = {
        method: aggregate(m.values[method] for m in measured if method in m.values)
        for method in METHODS
    }
    return {
        "measured": len(measured),
        **{
            method: {name: dataclasses.asdict(line) for name, line in lines.items()}
            for method, lines in methods.items()
            if lines
        },
    }


def _measurable(metrics: Any, shape: tuple[int, ...]) -> tuple[str, ...]:
    """The metrics that pictures of a size allow."""
    needed = {"VIF": metrics.windows.VIF_MIN_SIDE, "SSIM": metrics.windows.SSIM_WINDOW}
    return tuple(name for name in metrics.FUSION_METRICS if min(shape) >= needed.get(name, 2))
