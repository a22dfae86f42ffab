"""Two artifacts on the same frames, side by side: compare.json and compare.html."""

from __future__ import annotations

import base64
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
from numpy.typing import NDArray

from mmfusion_ros.core.artifact import open_artifact
from mmfusion_ros.core.errors import ArtifactError
from mmfusion_ros.evaluation import RANKED_BY
from mmfusion_ros.fleet import Result
from mmfusion_ros.replay_documents import SCHEMA_VERSION, write_json
from mmfusion_ros.replay_job import Done, prepare
from mmfusion_ros.replay_plan import Comparison
from mmfusion_ros.report_truth import shown
from mmfusion_ros.result_pictures import FUSED, OVERLAY, RGB, read_pictures

_EVENLY_SPACED = 4
_LOWER_IS_BETTER = frozenset({"MAE"})
_WIDTH = 440  # of one picture
_JPEG_QUALITY = 88


@dataclass(frozen=True)
class _Pair:
    """A comparison whose jobs both gave something."""

    comparison: Comparison
    first: Done
    second: Done


def check(comparisons: Sequence[Comparison]) -> None:
    """Find out before anything is run that two artifacts cannot be compared.

    With several bags, one that does not fit is left to its replay, which fails alone.

    Raises:
        MmfusionError: if the two are one and the same, or do not both fit the only bag.
    """
    for comparison in comparisons[:1]:
        jobs = (comparison.first, comparison.second)
        first, second = (open_artifact(job.artifact) for job in jobs)
        if first.digest == second.digest:
            raise ArtifactError(
                f"--compare {jobs[1].artifact} and --artifact {jobs[0].artifact} are one and the "
                f"same artifact ({first.name}, graph {first.digest[:12]}); expected two"
            )
        if len(comparisons) == 1:
            for job in jobs:
                prepare(job)


def write_comparisons(
    comparisons: Sequence[Comparison], results: Sequence[Result], command: str
) -> list[str]:
    """Write the documents of all comparisons whose replays both gave something.

    Returns:
        Lines for the user.
    """
    done = {result.job.out: result.done for result in results if result.done is not None}
    lines = []
    for comparison in comparisons:
        first, second = done.get(comparison.first.out), done.get(comparison.second.out)
        if first is None or second is None:
            lines.append(f"{comparison.folder}: not compared, as one of the two replays failed")
            continue
        pair = _Pair(comparison, first, second)
        document = comparison_document(pair.first, pair.second)
        write_json(comparison.folder / "compare.json", document)
        _write_page(pair, document, command)
        lines += [*_told(document), f"see {comparison.folder / 'compare.html'}"]
    return lines


def comparison_document(first: Done, second: Done) -> dict[str, Any]:
    """What compare.json holds; all of it but ``latency`` stays the same from run to run.

    Differences are those of the second artifact minus the first one.
    """
    both = (first.metrics, second.metrics)
    frames = [{frame["set"]: frame for frame in metrics["frames"]} for metrics in both]
    common = sorted(frames[0].keys() & frames[1].keys())
    kinds: dict[str, list[int]] = {}
    for number in common:
        modalities = [part[number]["modalities"] for part in frames]
        if modalities[0] == modalities[1]:
            kinds.setdefault(modalities[0], []).append(number)
    return {
        "schema_version": SCHEMA_VERSION,
        "bag": first.metrics["bag"]["name"],
        "artifacts": [metrics["artifact"] for metrics in both],
        "sets": [metrics["sets"] for metrics in both],
        "modalities": {
            name: {"measured": len(numbers), "metrics": _paired(frames, numbers)}
            for name, numbers in kinds.items()
        },
        "saliency": _overall("saliency", both),
        "detection": _overall("detection", both),
        "latency": _latency(first.latency, second.latency),
    }


def _paired(frames: Sequence[Mapping[int, Any]], numbers: Sequence[int]) -> dict[str, Any]:
    """Each metric of the fused pictures on the same frames."""
    told = {}
    for name in frames[0][numbers[0]]["fused"]:
        pairs = [tuple(part[number]["fused"].get(name) for part in frames) for number in numbers]
        known = [(a, b) for a, b in pairs if _is_finite(a) and _is_finite(b)]
        if known:
            told[name] = _paired_line(known)
    return told


def _paired_line(pairs: Sequence[tuple[float, float]]) -> dict[str, Any]:
    differences = [b - a for a, b in pairs]
    return {
        "pairs": len(pairs),
        "first": statistics.fmean(a for a, _ in pairs),
        "second": statistics.fmean(b for _, b in pairs),
        "difference": statistics.fmean(differences),
        "first_wins": sum(difference < 0 for difference in differences),
        "second_wins": sum(difference > 0 for difference in differences),
        "ties": sum(difference == 0 for difference in differences),
    }


def _overall(section: str, both: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Figures of agreement with ground truth, which are about all pictures together."""
    parts = [(metrics[section] or {}).get("overall", {}) for metrics in both]
    if not all(part.get("pictures") for part in parts):
        return None
    told: dict[str, Any] = {"pictures": [part["pictures"] for part in parts]}
    for name, value in parts[0].items():
        other = parts[1].get(name)
        if name not in {"pictures", "truths"} and _is_finite(value) and _is_finite(other):
            told[name] = {"first": value, "second": other, "difference": other - value}
    return told


def _latency(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any] | None:
    """How much longer the second takes for the same sets; medians, as machines are busy."""
    totals = [dict(zip(part["numbers"], part["totals"], strict=True)) for part in (first, second)]
    common = totals[0].keys() & totals[1].keys()
    if not common:
        return None
    ratios = [totals[1][n] / totals[0][n] for n in common if totals[0][n] > 0]
    return {
        "sets": len(common),
        "first_p50_ms": statistics.median(totals[0][number] for number in common),
        "second_p50_ms": statistics.median(totals[1][number] for number in common),
        "ratio_p50": statistics.median(ratios) if ratios else None,
    }


def _told(document: Mapping[str, Any]) -> list[str]:
    first, second = (artifact["name"] for artifact in document["artifacts"])
    lines = [f"{second} against {first}:"]
    for name, part in document["modalities"].items():
        lines.append(f"  {name}, {part['measured']} sets measured")
        lines += [
            f"    {metric:<6} {shown(line['second'])} against {shown(line['first'])}, difference "
            f"{line['difference']:+.4f}, better in {line['second_wins']}, worse in "
            f"{line['first_wins']}"
            for metric, line in part["metrics"].items()
        ]
    for section in ("saliency", "detection"):
        for metric, line in (document[section] or {}).items():
            if metric != "pictures":
                lines.append(
                    f"    {section} {metric:<10} {shown(line['second'])} against "
                    f"{shown(line['first'])}, difference {line['difference']:+.4f}"
                )
    latency = document["latency"]
    if latency and latency["ratio_p50"] is not None:
        lines.append(f"  time per set: {latency['ratio_p50']:.2f} of that of {first}")
    return lines


def _write_page(pair: _Pair, document: Mapping[str, Any], command: str) -> None:
    folders = [job.out for job in (pair.comparison.first, pair.comparison.second)]
    names = [artifact["name"] for artifact in document["artifacts"]]
    reported = pair.comparison.first.options.report
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mmfusion_ros"), autoescape=True, trim_blocks=True
    )
    page = environment.get_template("compare.html.j2").render(
        title=f"{names[1]} against {names[0]}, on {document['bag']}",
        names=names,
        reports=[f"{folder.name}/report.html" if reported else "" for folder in folders],
        cards=_cards(document),
        command=command,
        tables=_tables(document),
        truths=_truth_tables(document),
        columns=_columns(pair),
        pictures=_pictures(pair, folders) if reported else [],
        latency=document["latency"],
    )
    (pair.comparison.folder / "compare.html").write_text(page, encoding="utf-8")


def _cards(document: Mapping[str, Any]) -> list[dict[str, str]]:
    cards = []
    latency = document["latency"]
    if latency and latency["ratio_p50"] is not None:
        cards.append((f"{latency['ratio_p50']:.2f} x", "time per set, second against first"))
    for name, part in document["modalities"].items():
        line = part["metrics"].get(RANKED_BY)
        if line:
            cards.append(
                (f"{line['difference']:+.3f}", f"{RANKED_BY} with {name}, mean difference")
            )
            wins = f"{line['second_wins']} : {line['first_wins']}"
            cards.append((wins, f"sets with {name} that the second : the first does better"))
    return [{"value": value, "meaning": meaning} for value, meaning in cards]


def _tables(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "measured": part["measured"],
            "rows": [
                {
                    "metric": metric,
                    "cells": [
                        shown(line["first"]),
                        shown(line["second"]),
                        f"{line['difference']:+.4f}",
                        str(line["first_wins"]),
                        str(line["second_wins"]),
                        str(line["ties"]),
                    ],
                }
                for metric, line in part["metrics"].items()
            ],
        }
        for name, part in document["modalities"].items()
    ]


def _truth_tables(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": section,
            "pictures": min(document[section]["pictures"]),
            "rows": [
                {
                    "metric": metric,
                    "lower": metric in _LOWER_IS_BETTER,
                    "cells": [
                        shown(line["first"]),
                        shown(line["second"]),
                        f"{line['difference']:+.4f}",
                    ],
                }
                for metric, line in document[section].items()
                if metric != "pictures"
            ],
        }
        for section in ("saliency", "detection")
        if document[section]
    ]


def _columns(pair: _Pair) -> list[str]:
    names = [done.metrics["artifact"]["name"] for done in (pair.first, pair.second)]
    return ["colour", *names]


def _pictures(pair: _Pair, folders: Sequence[Path]) -> list[dict[str, str]]:
    chosen = _chosen(pair)
    stamps = {stamp for _, stamp in chosen}
    ours, theirs = (read_pictures(folder / "result", stamps) for folder in folders)
    pictures = []
    for caption, stamp in chosen:
        for topic, what in ((FUSED, "fused"), (OVERLAY, "what was found")):
            row = [ours.get((RGB, stamp)), ours.get((topic, stamp)), theirs.get((topic, stamp))]
            if row[1] is None and row[2] is None:
                continue
            pictures.append({"caption": f"{caption}, {what}", "source": _strip(row)})
    return pictures


def _chosen(pair: _Pair) -> list[tuple[str, int]]:
    """Where each is most ahead, where they are nearest to the median, and some along the way."""
    frames = [{f["set"]: f for f in done.metrics["frames"]} for done in (pair.first, pair.second)]
    common = sorted(frames[0].keys() & frames[1].keys())
    differences = {}
    for number in common:
        values = [part[number]["fused"].get(RANKED_BY) for part in frames]
        if all(map(_is_finite, values)):
            differences[number] = values[1] - values[0]
    chosen: dict[int, str] = {}
    if differences:
        ranked = sorted(differences, key=lambda number: (differences[number], number))
        told = [("Median", ranked[len(ranked) // 2])]
        if differences[ranked[0]] < 0:
            told.insert(0, ("First most ahead", ranked[0]))
        if differences[ranked[-1]] > 0:
            told.insert(0, ("Second most ahead", ranked[-1]))
        for what, number in told:
            difference = f"{RANKED_BY} {differences[number]:+.3f}"
            chosen.setdefault(number, f"{what}: set {number}, {difference}")
    count = min(_EVENLY_SPACED, len(common))
    for place in np.linspace(0, len(common) - 1, count).round().astype(int) if count else ():
        chosen.setdefault(common[place], f"Along the way: set {common[place]}")
    return [(caption, frames[0][number]["stamp_ns"]) for number, caption in chosen.items()]


def _strip(row: Sequence[NDArray[np.uint8] | None]) -> str:
    height, width = next(picture.shape[:2] for picture in row if picture is not None)
    size = (min(_WIDTH, width), round(height * min(_WIDTH, width) / width))
    shown_row = [
        np.full((size[1], size[0], 3), 128, np.uint8)
        if picture is None
        else cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        for picture in row
    ]
    strip = np.concatenate(shown_row, axis=1)[..., ::-1]
    file = cv2.imencode(".jpg", strip, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()
    return f"data:image/jpeg;base64,{base64.b64encode(file).decode()}"


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
