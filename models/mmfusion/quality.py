"""What an evaluation leaves behind: all figures, and those that a manifest states."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmfusion.train.degradation import MODALITIES, Degradation

Figures = dict[str, dict[str, float]]

BOTH = "rgb+thermal"
# What is seen of a pair, and the certain fault that leaves it so.
SEEN_OF_PAIRS = {
    BOTH: Degradation(),
    "rgb": Degradation(drop_thermal=1.0),
    "thermal": Degradation(drop_rgb=1.0),
}


def quality_entries(
    figures: Mapping[str, Mapping[str, float]], metrics: Sequence[str], unread: str, data: str
) -> list[dict[str, Any]]:
    """Entries of a manifest's ``quality``.

    Args:
        figures: by what the network sees, such as "rgb+thermal", and metric.
        metrics: that are stated, rounded to 3 digits; what is not finite is left out.
        unread: the modality that the network does not read. Figures are the same with it, so
            each makes two entries.
        data: that was measured on, in words.
    """
    entries = []
    for seen, values in figures.items():
        present = set(seen.split("+"))
        stated = {name: round(values[name], 3) for name in metrics if math.isfinite(values[name])}
        for modalities, remark in ((present, ""), (present | {unread}, f"; {unread} is not read")):
            entries.append(
                {
                    "modalities": [name for name in MODALITIES if name in modalities],
                    "data": data + remark,
                    "metrics": dict(stated),
                }
            )
    return entries


def describe_data(count: int, unit: str, folders: Sequence[Path]) -> str:
    """Such as "45 pairs of RoadScene and TNO"."""
    names = list(dict.fromkeys(folder.resolve().name for folder in folders))
    listed = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    return f"{count} {unit}{'' if count == 1 else 's'} of {listed}"


def write_evaluation(out: Path, record: Mapping[str, Any]) -> None:
    """Write a JSON file; figures that are not finite become null, which JSON has."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(_finite(record), indent=2, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
