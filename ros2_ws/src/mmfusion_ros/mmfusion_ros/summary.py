"""Several replays at a glance: summary.json, which never changes, summary.html, and a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from mmfusion_ros.evaluation import METHODS, RANKED_BY
from mmfusion_ros.fleet import Result
from mmfusion_ros.paths_in_text import replace_path
from mmfusion_ros.replay_documents import SCHEMA_VERSION, write_json
from mmfusion_ros.report_truth import shown

_STATES = ("failed", "not run", "interrupted", "incomplete", "complete")  # the worst first
# Figures of quality, in the order in which they decide which bag is the worst.
_FIGURES = ("mAP50_95", "S", "MAE", RANKED_BY)


def write_summary(
    out: Path, results: Sequence[Result], notes: Sequence[str], command: str
) -> dict[str, Any]:
    """Write summary.json and summary.html.

    Args:
        out: folder of all the replays.
        results: of each bag with each artifact.
        notes: what the user should know besides.
        command: as the user typed it.

    Returns:
        What summary.json holds.
    """
    out.mkdir(parents=True, exist_ok=True)
    document = summary_document(out, results)
    write_json(out / "summary.json", document)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mmfusion_ros"), autoescape=True, trim_blocks=True
    )
    rows = _rows(document, results)
    page = environment.get_template("summary.html.j2").render(
        title=f"Replay of {_bags(out, results)} bags",
        cards=_cards(document, "bags" if _bags(out, results) == len(results) else "replays"),
        notices=notes,
        command=command,
        rows=rows,
        columns=_columns(document),
    )
    (out / "summary.html").write_text(page, encoding="utf-8")
    return document


def summary_document(out: Path, results: Sequence[Result]) -> dict[str, Any]:
    """What summary.json holds: no times, and paths only below ``out``."""
    bags = [_entry(out, result) for result in results]
    states = [entry["state"] for entry in bags]
    return {
        "schema_version": SCHEMA_VERSION,
        "bags": bags,
        "states": {state: states.count(state) for state in _STATES if state in states},
        "sets": sum(entry["sets"] for entry in bags),
        "worst": [entry["name"] for entry in sorted(bags, key=_badness)],
    }


def summary_table(document: Mapping[str, Any], results: Sequence[Result]) -> str:
    """The table for the terminal, the worst bag first."""
    columns = _columns(document)
    head = ["bag", "state", "sets", "all cameras", *columns, "ms p50", "problems"]
    lines = [
        [
            *(row[key] for key in ("name", "state", "sets", "share")),
            *row["figures"],
            row["latency"],
            "; ".join(row["problems"]),
        ]
        for row in _rows(document, results)
    ]
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place in {0, 1, len(head) - 1} else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [head, *lines]
    )


def _bags(out: Path, results: Sequence[Result]) -> int:
    """How many bags there are: with two artifacts each has two results in its folder."""
    return len({result.job.out.relative_to(out).parts[0] for result in results})


def _entry(out: Path, result: Result) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": result.job.name,
        "bag": result.job.bag.name,
        "folder": result.job.out.relative_to(out).as_posix(),
        "state": _state(result),
        "error": replace_path(result.error, f"{out}/", "./") or None,
        "sets": 0,
        "all_cameras": None,
        "modalities": {},
        "figures": {},
        "problems": [],
    }
    if result.done is None:
        return entry
    metrics = result.done.metrics
    modalities = {name: part["sets"] for name, part in metrics["modalities"].items()}
    wanted = "+".join(metrics["bag"]["topics"])
    sets = metrics["sets"]
    return entry | {
        "artifact": metrics["artifact"],
        "sets": sets,
        "all_cameras": modalities.get(wanted, 0) / sets if sets else None,
        "modalities": modalities,
        "figures": _figures(metrics),
        "problems": _problems(metrics),
    }


def _state(result: Result) -> str:
    if result.done is None:
        return "not run" if result.interrupted else "failed"
    if result.interrupted:
        return "interrupted"
    return "complete" if result.done.metrics["complete"] else "incomplete"


def _figures(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Means over what was measured; fusion beside the plain average of the same frames."""
    figures: dict[str, Any] = {}
    parts = [part for part in metrics["modalities"].values() if METHODS[1] in part]
    if parts:
        most = max(parts, key=lambda part: part["measured"])
        for name, line in most["fused"].items():
            figures[name] = {"fused": line["mean"], "average": most["average"][name]["mean"]}
    for section in ("saliency", "detection"):
        overall = (metrics[section] or {}).get("overall", {})
        if overall.get("pictures"):
            figures[section] = {
                name: value
                for name, value in overall.items()
                if isinstance(value, (int, float)) and not isinstance(value, bool)
            }
    return figures


def _problems(metrics: Mapping[str, Any]) -> list[str]:
    bag = metrics["bag"]
    counted = {**bag["unreadable_messages"], **metrics["damaged_images"]}
    return [
        *([bag["problem"]] if bag["problem"] else []),
        *(f"{count} x {reason}" for reason, count in counted.items()),
        *(
            f"{count} {modality} images without stamp"
            for modality, count in bag["stamps_from_log_time"].items()
        ),
    ]


def _badness(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    """Sorts the worst first: by state, by ground truth, by quality, by completeness."""
    flat = _flat(entry)
    goodness = [
        -flat[name] if name == "MAE" and name in flat else flat.get(name, math.inf)
        for name in _FIGURES
    ]
    finite = [value if value is not None and not math.isnan(value) else -1.0 for value in goodness]
    share = entry["all_cameras"]
    return (_STATES.index(entry["state"]), *finite, 0.0 if share is None else share, entry["name"])


def _flat(entry: Mapping[str, Any]) -> dict[str, float]:
    """The figures that are shown, by the names of their columns."""
    figures = entry["figures"]
    flat: dict[str, float] = {
        name: figures[name]["fused"] for name in (RANKED_BY, "VIF") if name in figures
    }
    if RANKED_BY in figures:
        flat[f"{RANKED_BY} of average"] = figures[RANKED_BY]["average"]
    saliency = figures.get("saliency", {})
    flat |= {name: saliency[name] for name in ("S", "MAE", "F_max") if name in saliency}
    detection = figures.get("detection", {})
    return flat | {name: detection[name] for name in ("mAP50_95", "mAP50") if name in detection}


def _columns(document: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(name for entry in document["bags"] for name in _flat(entry)))


def _rows(document: Mapping[str, Any], results: Sequence[Result]) -> list[dict[str, Any]]:
    columns = _columns(document)
    pairs = sorted(zip(document["bags"], results, strict=True), key=lambda pair: _badness(pair[0]))
    rows = []
    for entry, result in pairs:
        flat, done = _flat(entry), result.done
        total = {} if done is None else done.latency["stages"].get("total", {})
        share = entry["all_cameras"]
        reported = done is not None and result.job.options.report
        rows.append(
            {
                "name": entry["name"],
                "state": entry["state"],
                "bad": entry["state"] != "complete",
                "sets": str(entry["sets"]),
                "share": "" if share is None else f"{100 * share:.0f} %",
                "figures": [shown(flat[name]) if name in flat else "" for name in columns],
                "latency": f"{total['p50']:.1f}" if total else "",
                "problems": [*([entry["error"]] if entry["error"] else []), *entry["problems"]],
                "link": f"{entry['folder']}/report.html" if reported else "",
            }
        )
    return rows


def _cards(document: Mapping[str, Any], what: str) -> list[dict[str, str]]:
    cards = [(str(document["sets"]), "frame sets fused")]
    cards += [(str(count), f"{what} {state}") for state, count in document["states"].items()]
    return [{"value": value, "meaning": meaning} for value, meaning in cards]
