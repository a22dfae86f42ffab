"""The tables of the report that tell how results agree with ground truth."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def saliency_table(section: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Rows for all pictures and each modality set; None where nothing was compared."""
    if section is None or not section["overall"]["pictures"]:
        return None
    rows = {"all": section["overall"], **section["modalities"]}
    metrics = [name for name in section["overall"] if name != "pictures"]
    return {
        "metrics": metrics,
        "rows": [
            {
                "name": name,
                "pictures": row["pictures"],
                "cells": [shown(row[metric]) for metric in metrics],
            }
            for name, row in rows.items()
        ],
    }


def detection_tables(section: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A table for all pictures and each modality set; None where nothing was compared."""
    if section is None or not section["overall"]["pictures"]:
        return None
    parts = {"all": section["overall"], **section["modalities"]}
    return {
        "ignored": ", ".join(section["ignored_categories"]),
        "tables": [
            {"name": name, "pictures": part["pictures"], "rows": _rows(part)}
            for name, part in parts.items()
        ],
    }


def shown(value: float | None) -> str:
    """A figure for people."""
    if value is None or not math.isfinite(value):
        return "–"  # noqa: RUF001 (an en dash stands for nothing)
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _rows(part: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = [("mean", "mAP", part), *((name, "AP", row) for name, row in part["classes"].items())]
    return [
        {
            "name": name,
            "truths": row["truths"],
            "cells": [shown(row[f"{prefix}{level}"]) for level in ("50_95", "50", "75")],
        }
        for name, prefix, row in rows
    ]
