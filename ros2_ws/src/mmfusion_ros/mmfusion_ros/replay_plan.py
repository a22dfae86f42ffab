"""Which jobs a command line asks for: every bag with every artifact, and where each one goes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmfusion_ros.core.errors import GroundTruthError, MmfusionError
from mmfusion_ros.replay_job import Job, ReplayOptions

# Files that lie beside the folders of the bags or artifacts.
_TAKEN = frozenset({"summary.json", "summary.html", "compare.json", "compare.html"})


@dataclass(frozen=True)
class Comparison:
    """Two jobs to set side by side, and the folder for that."""

    first: Job
    second: Job
    folder: Path


@dataclass(frozen=True)
class ReplayPlan:
    """All there is to do.

    Attributes:
        jobs: in the order in which they are told of.
        comparisons: of these jobs.
        notes: what the user should know before.
    """

    jobs: tuple[Job, ...]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]


def plan_replay(
    bags: Sequence[Path],
    artifacts: Sequence[Path],
    out: Path,
    options: ReplayOptions,
    *,
    masks: Path | None = None,
    boxes: Path | None = None,
    command: str = "",
) -> ReplayPlan:
    """Lay out the work.

    One bag goes into ``out`` itself, of several each into a folder of its name; of two artifacts,
    each into a folder of its name below that.

    Raises:
        MmfusionError: if a file is where a folder must go, or ground truth is not where it
            belongs.
    """
    if out.exists() and not out.is_dir():
        raise MmfusionError(f"--out {out} is a file; expected a folder")
    names = distinct_names(_stem(bag) for bag in bags)
    truths, notes = _truths(names, masks, boxes)
    several = len(bags) > 1
    kinds = distinct_names(artifact.resolve().name for artifact in artifacts)
    jobs, comparisons = [], []
    for bag, name, (mask, box) in zip(bags, names, truths, strict=True):
        folder = out / name if several else out
        group = [
            Job(
                name="/".join([name] * several + [kind] * (len(kinds) > 1)) or name,
                bag=bag,
                artifact=artifact,
                out=folder / kind if len(kinds) > 1 else folder,
                options=options,
                masks=mask,
                boxes=box,
                command=command,
            )
            for artifact, kind in zip(artifacts, kinds, strict=True)
        ]
        jobs += group
        if len(group) == 2:
            comparisons.append(Comparison(group[0], group[1], folder))
    return ReplayPlan(tuple(jobs), tuple(comparisons), tuple(notes))


def distinct_names(names: Iterable[str]) -> list[str]:
    """Names for folders side by side: one that occurs again gets a number."""
    taken = set(_TAKEN)
    distinct = []
    for name in names:
        number, candidate = 1, name
        while candidate.casefold() in taken:  # as some file systems see it
            number += 1
            candidate = f"{name}_{number}"
        taken.add(candidate.casefold())
        distinct.append(candidate)
    return distinct


def _stem(bag: Path) -> str:
    path = bag.resolve()  # for "."
    return path.name if path.is_dir() else path.stem


def _truths(
    names: Sequence[str], masks: Path | None, boxes: Path | None
) -> tuple[list[tuple[Path | None, Path | None]], list[str]]:
    """Masks and boxes of each bag."""
    notes: list[str] = []
    if len(names) == 1:
        return [(masks, boxes)], notes
    found = [
        _by_name("--ground-truth-masks", masks, names, "", notes),
        _by_name("--ground-truth-boxes", boxes, names, ".json", notes),
    ]
    return list(zip(*found, strict=True)), notes


def _by_name(
    option: str, folder: Path | None, names: Sequence[str], suffix: str, notes: list[str]
) -> list[Path | None]:
    if folder is None:
        return [None] * len(names)
    paths = [folder / f"{name}{suffix}" for name in names]
    missing = [path.name for path in paths if not path.exists()]
    if len(missing) == len(names):
        what = "a subfolder of masks" if not suffix else "a COCO file"
        raise GroundTruthError(
            f"{option} {folder}: with several bags, {what} is expected there for each: "
            f"{', '.join(missing)}"
        )
    if missing:
        notes.append(f"{option}: no {', '.join(missing)} in {folder}; not measured by it")
    return [path if path.exists() else None for path in paths]
