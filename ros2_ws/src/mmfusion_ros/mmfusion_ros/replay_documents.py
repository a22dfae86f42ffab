"""What a replay puts on record: metrics.json, which never changes, and latency.json, which does."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmfusion_ros.core.artifact import Artifact
from mmfusion_ros.core.bag_reader import Bag
from mmfusion_ros.core.frames import Modality
from mmfusion_ros.core.synchronizer import SynchronizerConfig, SynchronizerStatistics
from mmfusion_ros.evaluation import Measured, summarise
from mmfusion_ros.evaluation_truth import detection_section, saliency_section
from mmfusion_ros.replay_session import Outcome, Plan

SCHEMA_VERSION = 1


def metrics_document(
    bag: Bag,
    artifact: Artifact,
    *,
    engine: Mapping[str, Any],
    rig_name: str,
    config: SynchronizerConfig,
    plan: Plan,
    outcome: Outcome,
) -> dict[str, Any]:
    """Everything that the bag, the artifact and the settings determine: no times, no paths."""
    quality = summarise(outcome.measured)
    reading = outcome.reading
    return {
        "schema_version": SCHEMA_VERSION,
        "bag": {
            "name": bag.path.name,
            "topics": {
                str(modality): {"name": t.name, "type": t.msgtype, "messages": t.count}
                for modality, t in bag.topics.items()
            },
            "problem": reading.error,
            "unreadable_messages": dict(sorted(reading.skipped.items())),
            "stamps_from_log_time": {str(m): n for m, n in sorted(reading.restamped.items())},
        },
        "artifact": {"name": artifact.name, "sha256": artifact.digest},
        "engine": dict(engine),
        "rig": rig_name,
        "settings": {
            **_range(bag),
            "stride": plan.stride,
            "metrics_stride": plan.metrics_stride,
            "max_frames": plan.max_sets,
            "channel": plan.channel,
            "window_ms": config.depth.window_ns / 1e6,
            "max_wait_ms": config.max_wait_ns / 1e6,
            "frozen_after_ms": config.frozen_after_ns / 1e6,
            "min_score": plan.min_score,
        },
        "complete": not outcome.interrupted and reading.error is None,
        "sets": len(outcome.numbers),
        "modalities": {
            name: {"sets": count, **quality.get(name, {"measured": 0})}
            for name, count in outcome.sets.items()
        },
        "saliency": saliency_section(outcome.judged, plan.truth),
        "detection": detection_section(outcome.judged, plan.truth, artifact.classes),
        "synchronizer": _synchronizer(outcome.statistics),
        "damaged_images": dict(sorted(outcome.problems.items())),
        "frames": [_frame(entry) for entry in outcome.measured],
    }


def latency_document(outcome: Outcome, plan: Plan) -> dict[str, Any]:
    """Durations in milliseconds by stage, the total of each set by its number, and the speed.

    Measuring beside the engine slows it where cores are scarce, hence its stride is noted.
    """
    stages = dict(outcome.stages)
    if stages:
        stages["total"] = [sum(parts) for parts in zip(*outcome.stages.values(), strict=True)]
    sets = len(outcome.numbers)
    return {
        "schema_version": SCHEMA_VERSION,
        "unit": "milliseconds",
        "sets": sets,
        "metrics_stride": plan.metrics_stride,
        "stages": {name: _percentiles(seconds) for name, seconds in stages.items()},
        "numbers": list(outcome.numbers),
        "totals": [1e3 * seconds for seconds in stages.get("total", ())],
        "wall_s": outcome.wall_s,
        "sets_per_s": sets / outcome.wall_s if outcome.wall_s else 0.0,
    }


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a document as strict JSON: what is not a number is null."""
    text = json.dumps(_strict(document), indent=1, allow_nan=False, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def _range(bag: Bag) -> dict[str, float | None]:
    """The part of the bag that is read, in seconds from its start; null for no limit."""
    start, end = (
        (None, None) if bag.range_ns is None else [(t - bag.start_ns) / 1e9 for t in bag.range_ns]
    )
    return {"start_s": start, "end_s": end}


def _percentiles(seconds: Sequence[float]) -> dict[str, float]:
    milliseconds = 1e3 * np.asarray(seconds)
    p50, p95, p99 = (float(value) for value in np.percentile(milliseconds, (50, 95, 99)))
    return {"p50": p50, "p95": p95, "p99": p99, "mean": float(milliseconds.mean())}


def _synchronizer(statistics: SynchronizerStatistics | None) -> dict[str, Any]:
    if statistics is None:
        return {}
    return {
        "received": {str(m): statistics.received[m] for m in Modality},
        "emitted": statistics.emitted,
        "time_jumps": statistics.time_jumps,
        "dropped": {str(m): _counts(statistics.dropped[m]) for m in Modality},
        "absences": {str(m): _counts(counts) for m, counts in statistics.absences.items()},
    }


def _counts(counts: Mapping[Any, int]) -> dict[str, int]:
    return {str(reason): count for reason, count in counts.items() if count}


def _frame(entry: Measured) -> dict[str, Any]:
    return {
        "set": entry.number,
        "stamp_ns": entry.stamp_ns,
        "modalities": entry.modalities,
        **entry.values,
    }


def _strict(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _strict(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
