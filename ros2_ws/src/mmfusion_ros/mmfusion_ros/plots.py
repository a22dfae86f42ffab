"""The plots of the report, as SVG that takes on the colour of the text around it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

_INK = "#010203"  # stands for the colour of the text; no other line has it
_COLOURS = ("#c2410c", "#2563eb", "#0d9488", "#a855f7", "#ca8a04")


def latency_plot(stages: Mapping[str, Sequence[float]], numbers: Sequence[int]) -> Any:
    """Milliseconds of each stage over the number of the set, stacked."""
    figure, axes = _figure()
    series = [[1e3 * value for value in values] for values in stages.values()]
    axes.stackplot(
        numbers, *series, labels=list(stages), colors=_COLOURS[: len(series)], alpha=0.75
    )
    axes.set_ylabel("ms")
    return _finish(figure, axes)


def quality_plot(name: str, series: Mapping[str, Sequence[tuple[int, float]]]) -> Any:
    """One metric over the number of the set, a line for each method."""
    figure, axes = _figure()
    for (method, points), colour in zip(series.items(), _COLOURS, strict=False):
        numbers, values = zip(*points, strict=True) if points else ((), ())
        axes.plot(numbers, values, label=method, color=colour, marker="o", markersize=3)
    axes.set_ylabel(name)
    return _finish(figure, axes)


def as_svg(figure: Any) -> str:
    """A figure as the text of an SVG element."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :].replace(_INK, "currentColor")


def as_png(figure: Any) -> bytes:
    """A figure as a PNG file on white."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, facecolor="white")
    return buffer.getvalue()


def _figure() -> tuple[Any, Any]:
    # The object interface draws without a window system and without global state.
    from matplotlib.figure import Figure  # noqa: PLC0415 (slow to import)

    figure = Figure(figsize=(10, 2.8), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel("frame set", color=_INK)
    axes.yaxis.label.set_color(_INK)
    axes.tick_params(colors=_INK)
    axes.grid(alpha=0.2, color=_INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_INK)
    return figure, axes


def _finish(figure: Any, axes: Any) -> Any:
    axes.margins(x=0.01)
    axes.set_ylim(bottom=0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, labelcolor=_INK, loc="lower left", bbox_to_anchor=(0, 1), ncols=5)
    return figure
