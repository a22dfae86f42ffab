"""The report of a replay: one HTML file that needs nothing beside it, and its pictures as PNG."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
from markupsafe import Markup

from mmfusion_ros import plots
from mmfusion_ros.core.artifact import Artifact
from mmfusion_ros.evaluation import METHODS, RANKED_BY, Measured
from mmfusion_ros.panels import columns
from mmfusion_ros.replay_session import Outcome
from mmfusion_ros.report_truth import detection_tables, saliency_table, shown

PICTURES = "pictures"

_EVENLY_SPACED = 4
_JPEG_QUALITY = 88
_METHOD_NAMES = {"fused": "fused (this artifact)", "average": "average", "maximum": "maximum"}
_LIMITS = (
    (
        "The metrics of fusion compare the fused picture with what went in. They know no ground "
        "truth: a picture that people or detectors use better can score lower."
    ),
    (
        "Where thermal was registered by scaling alone, parallax between the cameras lowers the "
        "metrics of every method alike."
    ),
    (
        "Latency is that of this machine while reading, measuring and writing ran beside the "
        "engine; on the robot, transport and publishing come on top. Replay with "
        "--metrics-stride 0 for figures free of the measuring."
    ),
)


@dataclass(frozen=True)
class Chosen:
    """A measured set whose picture is shown."""

    title: str
    entry: Measured


def write_report(
    folder: Path,
    metrics: Mapping[str, Any],
    latency: Mapping[str, Any],
    *,
    artifact: Artifact,
    outcome: Outcome,
    command: str,
) -> None:
    """Write report.html and the pictures.

    Args:
        folder: of the replay's results.
        metrics: what metrics.json holds.
        latency: what latency.json holds.
        artifact: what was run.
        outcome: of the replay, for its pictures and plots.
        command: as the user typed it.
    """
    figures = _figures(outcome)
    chosen = choose(outcome.measured)
    _write_pictures(folder / PICTURES, chosen, figures)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mmfusion_ros"), autoescape=True, trim_blocks=True
    )
    page = environment.get_template("report.html.j2").render(
        title=f"{metrics['artifact']['name']} on {metrics['bag']['name']}",
        subtitle=_subtitle(metrics),
        cards=_cards(metrics, latency),
        notices=_notices(metrics, outcome),
        command=command,
        columns=columns(tuple(artifact.outputs)),
        pictures=[_picture(item) for item in chosen if item.entry.panel],
        quality=_quality(metrics["modalities"]),
        channel=metrics["settings"]["channel"],
        measured_share=_share(metrics["settings"]["metrics_stride"]),
        saliency=saliency_table(metrics["saliency"]),
        detection=detection_tables(metrics["detection"]),
        latency=_latency_rows(latency),
        cameras=_cameras(metrics),
        matching=_matching(metrics),
        artifact=_artifact_rows(artifact),
        limits=_LIMITS,
        # Made here from numbers; nothing in it comes from the bag.
        **{name: Markup(plots.as_svg(figure)) for name, figure in figures.items()},  # noqa: S704
    )
    (folder / "report.html").write_text(page, encoding="utf-8")


def choose(measured: Sequence[Measured]) -> list[Chosen]:
    """Best, median and worst set, and some evenly spaced ones; no set twice."""
    score = {m.number: m.values["fused"].get(RANKED_BY, math.nan) for m in measured}
    ranked = sorted(
        (m for m in measured if math.isfinite(score[m.number])), key=lambda m: -score[m.number]
    )
    chosen: dict[int, Chosen] = {}
    if ranked:
        places = {"Best": 0, "Worst": len(ranked) - 1, "Median": (len(ranked) - 1) // 2}
        for title, place in places.items():
            entry = ranked[place]
            chosen.setdefault(entry.number, Chosen(title, entry))
    count = min(_EVENLY_SPACED, len(measured))
    for place in np.linspace(0, len(measured) - 1, count).round().astype(int) if count else ():
        entry = measured[place]
        chosen.setdefault(entry.number, Chosen("Along the way", entry))
    order = ["Best", "Median", "Worst", "Along the way"]
    return sorted(chosen.values(), key=lambda item: (order.index(item.title), item.entry.number))


def _figures(outcome: Outcome) -> dict[str, Any]:
    figures = {}
    if outcome.numbers:
        figures["latency_plot"] = plots.latency_plot(outcome.stages, outcome.numbers)
    lines: dict[str, list[tuple[int, float]]] = {}
    for entry in outcome.measured:
        for method in METHODS:
            if RANKED_BY in entry.values.get(method, {}):
                lines.setdefault(method, []).append((entry.number, entry.values[method][RANKED_BY]))
    if lines:
        figures["quality_plot"] = plots.quality_plot(RANKED_BY, lines)
    return figures


def _write_pictures(folder: Path, chosen: Sequence[Chosen], figures: Mapping[str, Any]) -> None:
    folder.mkdir(exist_ok=True)
    for item in chosen:
        if item.entry.panel and item.title != "Along the way":
            (folder / f"{item.title.lower()}.png").write_bytes(item.entry.panel)
    for name, figure in figures.items():
        (folder / f"{name}.png").write_bytes(plots.as_png(figure))


def _picture(item: Chosen) -> dict[str, str]:
    entry = item.entry
    assert entry.panel is not None  # noqa: S101 (the caller has looked)
    pixels: Any = cv2.imdecode(np.frombuffer(entry.panel, np.uint8), cv2.IMREAD_COLOR)
    file = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()
    score = entry.values["fused"].get(RANKED_BY)
    ranked = "" if score is None else f", {RANKED_BY} {shown(score)}"
    return {
        "caption": f"{item.title}: set {entry.number}, {entry.modalities}{ranked}",
        "source": f"data:image/jpeg;base64,{base64.b64encode(file).decode()}",
    }


def _subtitle(metrics: Mapping[str, Any]) -> str:
    engine = metrics["engine"]
    threads = f"{engine['threads']} threads" if engine["threads"] else "half of the cores"
    stands_in = f" {engine['stands_in']}" if engine["stands_in"] else ""
    return (
        f"{engine['backend']}, {engine['precision']}{stands_in}, {threads}; rig: {metrics['rig']}"
    )


def _cards(metrics: Mapping[str, Any], latency: Mapping[str, Any]) -> list[dict[str, str]]:
    cards = [
        (str(metrics["sets"]), "frame sets fused"),
        (f"{latency['sets_per_s']:.1f}", "frame sets a second, all in all"),
    ]
    total = latency["stages"].get("total")
    if total:
        cards.append((f"{total['p50']:.0f} ms", f"per set (p95 {total['p95']:.0f} ms)"))
    complete = metrics["modalities"].get("rgb+depth+thermal", {}).get("sets", 0)
    if metrics["sets"]:
        cards.append((f"{100 * complete / metrics['sets']:.0f} %", "of sets had all cameras"))
    measured = [entry for entry in metrics["modalities"].values() if "average" in entry]
    if measured:
        most = max(measured, key=lambda entry: entry["measured"])
        ours, simple = (most[m].get(RANKED_BY, {}).get("mean") for m in ("fused", "average"))
        cards.append((shown(ours), f"{RANKED_BY} (plain average {shown(simple)})"))
    return [{"value": value, "meaning": meaning} for value, meaning in cards]


def _notices(metrics: Mapping[str, Any], outcome: Outcome) -> list[str]:
    notices = []
    if outcome.interrupted:
        notices.append("Interrupted: this is about the part of the bag that was run until then.")
    bag = metrics["bag"]
    if bag["problem"]:
        notices.append(f"The bag: {bag['problem']}.")
    for modality, count in bag["stamps_from_log_time"].items():
        notices.append(f"{count} {modality} images had no stamp; their log time stands for it.")
    for reason, count in {**bag["unreadable_messages"], **metrics["damaged_images"]}.items():
        notices.append(f"{count} not used: {reason}.")
    return notices


def _quality(modalities: Mapping[str, Any]) -> list[dict[str, Any]]:
    sets = []
    for name, entry in modalities.items():
        methods = [method for method in METHODS if method in entry]
        rows = [
            {
                "method": _METHOD_NAMES[method],
                "ours": method == "fused",
                "cells": [
                    {"mean": shown(line["mean"]), "median": shown(line["p50"])}
                    for line in entry[method].values()
                ],
            }
            for method in methods
        ]
        sets.append(
            {
                "name": name,
                "sets": entry["sets"],
                "measured": entry["measured"],
                "metrics": list(entry[methods[0]]) if methods else [],
                "rows": rows,
                "alone": methods == ["fused"],
            }
        )
    return sets if any(entry["rows"] for entry in sets) else []


def _latency_rows(latency: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "stage": stage,
            "total": stage == "total",
            **{name: f"{value:.2f}" for name, value in figures.items()},
        }
        for stage, figures in latency["stages"].items()
    ]


def _cameras(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    synchronizer = metrics["synchronizer"]
    rows = []
    for name, topic in metrics["bag"]["topics"].items():
        used = sum(
            entry["sets"] for key, entry in metrics["modalities"].items() if name in key.split("+")
        )
        rows.append(
            {
                "name": name,
                "topic": topic["name"],
                "received": synchronizer["received"][name],
                "used": used,
                "drops": _listed(synchronizer["dropped"][name]),
                "absences": _listed(synchronizer["absences"].get(name, {})),
            }
        )
    return rows


def _matching(metrics: Mapping[str, Any]) -> str:
    settings, synchronizer = metrics["settings"], metrics["synchronizer"]
    jumps = synchronizer["time_jumps"]
    times = "once" if jumps == 1 else f"{jumps} times"
    return (
        f"Frames within {settings['window_ms']:g} ms of an RGB frame match it; a set waits at most "
        f"{settings['max_wait_ms']:g} ms. Sets handed out: {synchronizer['emitted']}; "
        f"{_share(settings['stride'])} was run. Time was set back {times}."
    )


def _share(stride: int) -> str:
    return "every set" if stride == 1 else f"one set in {stride}"


def _artifact_rows(artifact: Artifact) -> list[tuple[str, str]]:
    manifest = artifact.manifest
    rows = [
        ("name", artifact.name),
        ("graph SHA-256", artifact.digest),
        ("registration", manifest["registration"]),
        ("made with", ", ".join(f"{k} {v}" for k, v in manifest["tools"].items())),
    ]
    for model in manifest["models"]:
        role = model["role"]
        rows += [
            (f"{role} model", model["name"]),
            (f"{role}: settings", ", ".join(f"{k} {v}" for k, v in model["settings"].items())),
            (f"{role}: checkpoint SHA-256", model["checkpoint_sha256"]),
            (f"{role}: training data", model["training_data"]),
            (f"{role}: recipe", model["recipe"]),
            (f"{role}: terms", model["terms"]),
        ]
    for entry in manifest["quality"]:
        figures = ", ".join(f"{name} {shown(value)}" for name, value in entry["metrics"].items())
        rows.append((f"stated for {'+'.join(entry['modalities'])}", f"{figures} ({entry['data']})"))
    return rows


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in counts.items()) or "none"
