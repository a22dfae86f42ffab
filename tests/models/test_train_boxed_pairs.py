"""Pairs with boxes: VOC files as data sets publish them, and lists that do not fit."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")

from mmfusion.efficientmfd.config import M3FD_CLASSES
from mmfusion.errors import DataError
from mmfusion.train.boxed_pairs import load_boxed_pairs
from mmfusion.train.voc import read_voc

pytestmark = pytest.mark.torch

SIZE = "<size><width>64</width><height>48</height><depth>3</depth></size>"
BOMB = '<!DOCTYPE a [<!ENTITY l "ha"><!ENTITY m "&l;&l;&l;">]>'


def thing(name, *corners, more=""):
    box = "".join(
        f"<{key}>{value}</{key}>"
        for key, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=False)
    )
    return f"<object><name>{name}</name>{more}<bndbox>{box}</bndbox></object>"


def voc(*objects, size=SIZE):
    return f"<annotation><filename>x</filename>{size}{''.join(objects)}</annotation>"


def write_images(infrared, visible, *stems, thermal=(48, 64)):
    for folder, shape in ((infrared, thermal), (visible, (48, 64, 3))):
        folder.mkdir(parents=True, exist_ok=True)
        for stem in stems:
            cv2.imwrite(str(folder / f"{stem}.png"), np.full(shape, 90, np.uint8))


@pytest.fixture
def m3fd(tmp_path):
    """Three pairs in the layout of M3FD."""
    folder = tmp_path / "M3FD"
    write_images(folder / "Ir", folder / "Vis", "00000", "00001", "00002")
    notes = folder / "Annotation"
    notes.mkdir()
    people = thing("Person", 11, 6, 20, 45)
    hard = thing("Car", 1, 1, 64, 48, more="<difficult>1</difficult><pose/>")
    (notes / "00000.xml").write_text(voc(people, thing("Dog", 1, 1, 5, 5), hard))
    (notes / "00001.xml").write_text(voc())
    (notes / "00002.xml").write_text(voc(thing("people", "1", "2.5", "30", "40"), size=""))
    return folder


def complaint(*folders):
    with pytest.raises(DataError) as caught:
        load_boxed_pairs(folders, M3FD_CLASSES)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_voc_files_are_read(m3fd):
    first, second, third = load_boxed_pairs([m3fd], M3FD_CLASSES)
    assert [pair.name for pair in (first, second, third)] == ["00000", "00001", "00002"]
    assert first.boxes.tolist() == [[10, 5, 20, 45]]  # counted from one, both corners included
    assert first.labels.tolist() == [0]
    assert (second.boxes.shape, second.labels.shape) == ((0, 4), (0,))
    assert third.boxes.tolist() == [[0, 1.5, 30, 40]]
    for pair in (first, second, third):
        # Car too: it is labelled, though this one is hard to see.
        assert [M3FD_CLASSES[i] for i in np.flatnonzero(pair.labelled)] == ["People", "Car"]
    assert (first.boxes.dtype, first.labels.dtype) == (np.float32, np.int64)
    assert (first.visible.shape, first.infrared.shape) == ((48, 64, 3), (48, 64))


def test_the_layout_of_llvip_is_read(tmp_path):
    for split, stem in (("train", "010001"), ("test", "190001")):
        write_images(tmp_path / "infrared" / split, tmp_path / "visible" / split, stem)
        (tmp_path / "Annotations").mkdir(exist_ok=True)
        (tmp_path / "Annotations" / f"{stem}.xml").write_text(voc(thing("person", 1, 1, 9, 9)))
    pairs = load_boxed_pairs([tmp_path / "train"], M3FD_CLASSES)
    assert [pair.name for pair in pairs] == ["010001"]
    assert np.flatnonzero(pairs[0].labelled).tolist() == [0]


def test_a_coco_file_comes_before_voc_files(m3fd):
    content = {
        "images": [{"id": 1, "file_name": "00001.png", "width": 64, "height": 48}],
        "annotations": [{"image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4]}],
        "categories": [{"id": 3, "name": "bus"}],
    }
    (m3fd / "boxes.json").write_text(json.dumps(content))
    (pair,) = load_boxed_pairs([m3fd], M3FD_CLASSES)
    assert pair.boxes.tolist() == [[1, 2, 4, 6]]
    content["images"][0]["width"] = 65
    (m3fd / "boxes.json").write_text(json.dumps(content))
    told = f"{m3fd}/Vis/00001.png is (48, 64), but its boxes are of an image of (48, 65); expected"
    assert told in complaint(m3fd)


def test_all_that_is_wrong_is_told_at_once(m3fd, tmp_path):
    (m3fd / "Annotation" / "00001.xml").unlink()
    (m3fd / "Annotation" / "00002.xml").write_text("<annotation>")
    (m3fd / "Annotation" / "00000.xml").write_text(voc(size=SIZE.replace("64", "128")))
    (m3fd / "Vis" / "00002.png").write_bytes(b"text")
    other = tmp_path / "other"
    write_images(other / "ir", other / "vi", "a", "b", thermal=(24, 32))
    (other / "Annotations").mkdir()
    for stem in "ab":
        (other / "Annotations" / f"{stem}.xml").write_text(voc())
    listless = tmp_path / "listless"
    write_images(listless / "ir", listless / "vi", "a")
    told = complaint(m3fd, other, listless)
    for part in (
        f"{m3fd}: 1 images have no XML file: 00001",
        f"{m3fd}/Annotation/00002.xml is not readable XML: no element found",
        f"{m3fd}/Vis/00000.png is (48, 64), but its boxes are of an image of (48, 128)",
        f"{other}/vi/a.png is (48, 64), its infrared (24, 32); {other}/vi/b.png is",
        "a registered pair has one size, unless infrared has 16 bits",
        f"{listless} has no boxes: expected boxes.json or annotations/instances_*.json in it, or",
        "a subfolder named annotation or annotations or labels_xml of XML files",
    ):
        assert part in told
    (m3fd / "Annotation" / "00002.xml").write_text(voc())
    assert f"{m3fd}/Vis/00002.png is not a readable image" in complaint(m3fd)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("text", "is not readable XML: syntax error"),
        ("", "is not readable XML: no element found"),
        (BOMB + voc(thing("&m;", 1, 1, 2, 2)), "has a DOCTYPE; expected plain XML without one"),
        (voc(thing("&m;", 1, 1, 2, 2)), "is not readable XML: undefined entity"),
        ("<html/>", ": the root is html; expected annotation"),
        (voc(thing(" ", 1, 1, 2, 2)), ", object 1, name: nothing there; expected the name of a"),
        (voc("<object/>"), ", object 1, name: nothing there"),
        (voc("<object><name>a</name></object>"), ", object 1, bndbox/xmin: nothing there; exp"),
        (voc(thing("a", 1, 1, 2)), ", object 1, bndbox/ymax: nothing there; expected a number"),
        (voc(thing("a", 1, 1, 2, 2), thing("b", 1, "x", 2, 2)), ", object 2, bndbox/ymin: x; exp"),
        (voc(thing("a", 1, 1, "nan", 2)), ", object 1, bndbox/xmax: nan; expected a number"),
        (voc(thing("a", 5, 1, 2, 2)), ", object 1, bndbox: 5, 1, 2, 2; expected xmin, ymin"),
        (voc(thing("a", 1, 1, 2, 2, more="<difficult>no</difficult>")), "object 1, difficult: no"),
        (voc(size="<size><width>4</width></size>"), ", size/height: nothing there; expected a n"),
    ],
)
def test_wrong_voc_files_are_named(tmp_path, text, told):
    path = tmp_path / "a.xml"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_voc(path)
    assert str(caught.value).startswith(str(path))
    assert told in str(caught.value)


def test_what_is_not_needed_is_left_alone(tmp_path):
    path = tmp_path / "a.xml"
    part = "<part><name>head</name></part><difficult>0</difficult>"
    no_size = "<size><width>0</width><height>0</height></size>"
    path.write_text('<?xml version="1.0"?>' + voc(thing("a", 1, 1, 2, 2, more=part), size=no_size))
    size, objects = read_voc(path)
    assert size is None
    assert objects == [("a", (0, 0, 2, 2), False)]
    with pytest.raises(DataError, match=r"b\.xml is not readable XML: .*No such file"):
        read_voc(tmp_path / "b.xml")
