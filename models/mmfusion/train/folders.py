"""Folders of images as data sets publish them: subfolders by kind of picture, files by stem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mmfusion.train.faults import Faults, listed

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}


def find_subfolder(folder: Path, names: Sequence[str]) -> Path | None:
    """The first of some subfolders that exists, whatever its case."""
    found = {path.name.lower(): path for path in _subfolders(folder)}
    return next((found[name.lower()] for name in names if name.lower() in found), None)


def find_images(
    folder: Path, kind: str, names: Sequence[str], faults: Faults
) -> dict[str, Path] | None:
    """The images of one kind in a data set, by file stem.

    They are in a subfolder of one of the names, or in its only subfolder (MSRS has
    ``Visible/train/MSRS``). A data set may have its splits inside (LLVIP has ``visible/train``
    and ``visible/test``): for the folder ``LLVIP/train``, which does not exist, images are those
    of ``LLVIP/visible/train``.

    Args:
        folder: of the data set, or of its split.
        kind: what messages call it.
        names: of the subfolder, whatever their case; the first that exists is taken.
        faults: is told if there is no such subfolder, if it holds folders alone, or if two images
            share a stem.

    Returns:
        None if there is no such subfolder.
    """
    home = find_subfolder(folder, names)
    if home is None and not folder.exists():
        whole = find_subfolder(folder.parent, names)
        home = whole and find_subfolder(whole, [folder.name])
    if home is None:
        faults.add(
            f"{folder} has no {kind} images: expected a subfolder named {listed(names, ' or ')}"
        )
        return None
    files = files_by_stem(home, faults)
    inside = _subfolders(home)
    if files or not inside:
        return files
    if len(inside) == 1:
        return find_images(home, kind, [inside[0].name], faults)
    splits = (str(folder / path.name) for path in inside)
    faults.add(
        f"{home} holds no images but {len(inside)} folders; pass {listed(splits, ' or ')} to "
        "read one of them"
    )
    return None


def match_stems(
    folder: Path, kinds: Mapping[str, Mapping[str, Path]], lacking: str, faults: Faults
) -> list[str]:
    """Stems that every kind of picture has, sorted.

    Args:
        folder: that messages name.
        kinds: images by stem, by what messages call their kind.
        lacking: what messages say about the others.
        faults: is told of the others, and if there are no images at all.
    """
    stems = sorted(set().union(*kinds.values()))
    lacks = {kind: [stem for stem in stems if stem not in files] for kind, files in kinds.items()}
    lacks = {kind: missing for kind, missing in lacks.items() if missing}
    unpaired = sorted(set().union(*lacks.values()))
    if not stems:
        faults.add(f"{folder} holds no images")
    if unpaired:
        told = "; ".join(f"no {kind}: {listed(missing)}" for kind, missing in lacks.items())
        if len(lacks) == 1:
            told = f"no {next(iter(lacks))}"
        faults.add(f"{folder}: {len(unpaired)} {lacking}: {listed(unpaired)} ({told})")
    return sorted(set(stems) - set(unpaired))


def files_by_stem(folder: Path, faults: Faults) -> dict[str, Path]:
    """The images of a folder by file stem.

    Args:
        folder: to look in.
        faults: is told if two share a stem.
    """
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in _SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in files:
            faults.add(
                f"{folder} holds both {files[path.stem].name} and {path.name}; expected one image "
                f"named {path.stem}"
            )
        files[path.stem] = path
    return files


def _subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
