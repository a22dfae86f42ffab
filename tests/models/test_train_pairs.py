"""Folders of infrared-visible pairs: published layouts, reading on access, and what is wrong."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")

from mmfusion.errors import DataError
from mmfusion.train import image_files
from mmfusion.train.faults import Faults, listed
from mmfusion.train.image_files import read_headers, read_image
from mmfusion.train.lazy import LazySequence
from mmfusion.train.pairs import find_pairs, load_pairs

pytestmark = pytest.mark.torch


def write(folder: Path, *names: str, size=(12, 16), value=0, dtype=np.uint8) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    ramp = np.arange(size[0] * size[1], dtype=dtype).reshape(size) + dtype(value)
    for name in names:
        cv2.imwrite(str(folder / name), ramp)
    return folder


def complaint(*folders: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_pairs(folders)
    return str(caught.value)


@pytest.mark.parametrize(
    ("infrared", "visible", "asked"),
    [
        ("Ir", "Vis", "."),  # M3FD
        ("train/ir", "train/vi", "train"),  # MSRS
        ("Infrared/train/MSRS", "Visible/train/MSRS", "train"),
        ("Infrared/train/MSRS", "Visible/train/MSRS", "."),
        ("infrared/train", "visible/train", "train"),  # LLVIP
        ("cropinfrared", "crop_LR_visible", "."),  # RoadScene
        ("IR", "VIS", "."),  # TNO
        ("inf", "vis", "."),
        ("thermal", "rgb", "."),
    ],
)
def test_published_layouts_are_found(tmp_path, infrared, visible, asked):
    write(tmp_path / infrared, "b.png", "a.PNG")
    write(tmp_path / visible, "a.jpg", "b.bmp")
    assert find_pairs(tmp_path / asked) == [
        ("a", tmp_path / infrared / "a.PNG", tmp_path / visible / "a.jpg"),
        ("b", tmp_path / infrared / "b.png", tmp_path / visible / "b.bmp"),
    ]


def test_splits_inside_are_asked_for_by_name(tmp_path):
    for split in ("test", "train"):
        write(tmp_path / "infrared" / split, f"{split}.png")
        write(tmp_path / "visible" / split, f"{split}.png")
    assert [stem for stem, *_ in find_pairs(tmp_path / "train")] == ["train"]
    told = f"holds no images but 2 folders; pass {tmp_path}/test or {tmp_path}/train to read one"
    with pytest.raises(DataError, match=f"{tmp_path}/visible {told}"):
        find_pairs(tmp_path)


def test_raw_pictures_of_roadscene_are_left_alone(tmp_path):
    for name in ("cropinfrared", "crop_LR_visible", "infrared", "visible"):
        write(tmp_path / name, "FLIR_00006.jpg")
    (_, infrared, visible), *rest = find_pairs(tmp_path)
    assert (infrared.parent.name, visible.parent.name) == ("cropinfrared", "crop_LR_visible")
    assert not rest


def test_stems_may_name_their_side(tmp_path):
    write(tmp_path / "ir", "IR1.png", "IR_2.png")
    write(tmp_path / "vis", "VIS1.png", "VIS_2.png")
    assert [(stem, v.name) for stem, _, v in find_pairs(tmp_path)] == [
        ("1", "VIS1.png"),
        ("2", "VIS_2.png"),
    ]
    write(tmp_path / "vis", "other.png")
    with pytest.raises(DataError, match=r"5 images have no partner .*: IR1, IR_2, VIS1, VIS_2, ot"):
        find_pairs(tmp_path)


def test_all_that_is_wrong_is_told_at_once(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    write(first / "ir", "a.png", "b.png", "c.png", "e.png")
    write(first / "vi", "a.png", "b.png", "d.png", "e.png")
    write(first / "ir", "a.png", size=(10, 16))
    (first / "vi" / "b.png").write_bytes(b"text")
    write(second / "ir", "a.png", "b.png")
    write(second / "vi", "a.png", size=(9, 9))
    write(second / "vi", "b.png", "c.png")
    told = complaint(first, second, tmp_path / "gone")
    unpaired = "have no partner in the other subfolder"
    sizes = "infrared is (10, 16), visible (12, 16)", "infrared is (12, 16), visible (9, 9)"
    for part in (
        f"{first}: 2 images {unpaired}: c, d (no infrared: d; no visible: c)",
        f"{second}: 1 images {unpaired}: c (no infrared)",
        f"{tmp_path}/gone has no infrared images: expected a subfolder named ir or infrared",
        f"{first}/vi/b.png is not a readable image; expected a whole PNG or JPEG file",
        f"pair a in {first}: {sizes[0]}; pair a in {second}: {sizes[1]}; a registered pair has",
    ):
        assert part in told
    assert "pair e" not in told
    assert "\n" not in told


def test_of_many_faults_ten_are_told(tmp_path):
    names = [f"{index:02}.png" for index in range(23)]
    write(tmp_path / "ir", *names)
    write(tmp_path / "vi", *names, size=(5, 5))
    told = complaint(tmp_path)
    assert told.count("infrared is") == 10
    assert "; and 13 more; a registered pair has one size" in told
    assert listed("abcdefghijkl") == "a, b, c, d, e, f, g, h, i, j, and 2 more"


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("kind", ["png", "jpg", "bmp", "tif"])
def test_broken_downloads_are_found_before_training(tmp_path, kind):
    write(tmp_path / "ir", f"a.{kind}", size=(200, 200))
    write(tmp_path / "vi", f"a.{kind}", size=(200, 200))
    assert len(load_pairs([tmp_path])) == 1
    path = tmp_path / "vi" / f"a.{kind}"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert f"{path} is not a readable image" in complaint(tmp_path)


def test_bytes_after_the_end_are_no_fault(tmp_path, monkeypatch):
    path = write(tmp_path, "a.png") / "a.png"
    path.write_bytes(path.read_bytes() + b"\0" * 10000)  # so many that it has to be decoded
    faults = Faults()
    assert read_headers([path], faults)[path].size == (12, 16)
    faults.complain()
    # A whole file is not decoded for the look at it.
    whole = write(tmp_path, "b.png") / "b.png"
    monkeypatch.setattr(image_files.Image.Image, "load", lambda self: pytest.fail("decoded"))
    assert read_headers([whole], faults)[whole].size == (12, 16)


def test_damage_inside_is_named_when_it_is_met(tmp_path):
    write(tmp_path / "ir", "a.png", size=(64, 64))
    write(tmp_path / "vi", "a.png", size=(64, 64))
    path = tmp_path / "vi" / "a.png"
    content = bytearray(path.read_bytes())
    content[50:-20] = bytes(len(content) - 70)
    path.write_bytes(content)
    pairs = load_pairs([tmp_path])
    with pytest.raises(DataError, match=r"vi/a.png is not a readable image"):
        pairs[0]


def test_images_are_not_turned(tmp_path):
    from PIL import Image

    image = Image.fromarray(np.zeros((10, 20), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # a camera held upright
    image.save(tmp_path / "a.jpg", exif=exif)
    headers = read_headers([tmp_path / "a.jpg"], Faults())
    assert headers[tmp_path / "a.jpg"] == ((10, 20), False)
    for mode in (cv2.IMREAD_COLOR, cv2.IMREAD_GRAYSCALE, cv2.IMREAD_UNCHANGED):
        assert read_image(tmp_path / "a.jpg", mode).shape[:2] == (10, 20)


def test_sixteen_bit_infrared_fills_eight_bits(tmp_path):
    write(tmp_path / "ir", "a.png", size=(20, 20), value=18000, dtype=np.uint16)
    write(tmp_path / "vi", "a.png", size=(20, 20))
    infrared = load_pairs([tmp_path])[0].infrared
    assert infrared.dtype == np.uint8
    assert (infrared.min(), infrared.max()) == (0, 255)


def test_pairs_are_read_when_they_are_used(tmp_path):
    names = [f"{index}.png" for index in range(4)]
    write(tmp_path / "ir", *names)
    write(tmp_path / "vi", *names, value=3)
    pairs = load_pairs([tmp_path])
    part = pairs[1:3]
    assert isinstance(part, LazySequence)
    assert [pair.name for pair in part] == ["1", "2"]
    assert pairs[-1].name == "3"
    with pytest.raises(IndexError):
        pairs[4]
    write(tmp_path / "ir", "0.png", value=9)
    assert pairs[0].infrared[0, 0] == 9
    assert pairs[0].visible[0, 0] == 3
    copy = pickle.loads(pickle.dumps(pairs))  # for workers that are not forked
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda index: copy[index % 4].name, range(40)))
    assert found == [str(index % 4) for index in range(40)]
