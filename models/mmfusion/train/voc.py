"""Boxes as PASCAL VOC writes them: one XML file per image."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser

from mmfusion.errors import DataError

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class VocObject(NamedTuple):
    """One object.

    Attributes:
        name: of its class.
        box: corners in pixels, where the first pixel reaches from 0 to 1.
        difficult: whether it is marked as hardly recognisable.
    """

    name: str
    box: tuple[float, float, float, float]
    difficult: bool


class VocImage(NamedTuple):
    """What a file says.

    Attributes:
        size: (height, width) of its image in pixels; None if the file does not say.
        objects: in the image.
    """

    size: tuple[int, int] | None
    objects: list[VocObject]


def read_voc(path: Path) -> VocImage:
    """Read an annotation file.

    The file counts pixels from one, and includes both corners.

    Raises:
        DataError: if the file is unreadable, or an element is missing or unusable, naming it.
    """
    root = _parse(path)
    if root.tag != "annotation":
        raise DataError(f"{path}: the root is {root.tag}; expected annotation, as VOC has it")
    size = None
    if root.find("size") is not None:
        height, width = (_number(path, root, "", f"size/{side}") for side in ("height", "width"))
        # Some tools write zeros if they have not seen the image.
        size = (int(height), int(width)) if height and width else None
    objects = []
    for index, element in enumerate(root.findall("object")):
        where = f"object {index + 1}, "
        name = (element.findtext("name") or "").strip()
        if not name:
            raise DataError(f"{path}, {where}name: nothing there; expected the name of a class")
        x1, y1, x2, y2 = (_number(path, element, where, f"bndbox/{c}") for c in _CORNERS)
        if x1 > x2 or y1 > y2:
            raise DataError(
                f"{path}, {where}bndbox: {x1:g}, {y1:g}, {x2:g}, {y2:g}; expected xmin, ymin, "
                "xmax, ymax with the least first"
            )
        difficult = element.find("difficult") is not None and bool(
            _number(path, element, where, "difficult")
        )
        objects.append(VocObject(name, (x1 - 1, y1 - 1, x2, y2), difficult))
    return VocImage(size, objects)


class _WithoutEntities(TreeBuilder):
    """Refuses document types: entities can make a small file fill the memory."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise _DoctypeError(name, pubid, system)


class _DoctypeError(Exception):
    pass


def _parse(path: Path) -> Element:
    parser = XMLParser(target=_WithoutEntities())  # noqa: S314
    try:
        parser.feed(path.read_bytes())
        root: Element = parser.close()
    except _DoctypeError as error:
        raise DataError(f"{path} has a DOCTYPE; expected plain XML without one") from error
    except (OSError, ParseError, ValueError) as error:
        raise DataError(f"{path} is not readable XML: {error}") from error
    return root


def _number(path: Path, element: Element, where: str, name: str) -> float:
    text = (element.findtext(name) or "").strip()
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{path}, {where}{name}: {text or 'nothing there'}; expected a number")
    return value
