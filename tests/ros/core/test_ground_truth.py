"""Each mask and each set of boxes belongs to the frame it was made for, or to none."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmfusion_ros.core.errors import GroundTruthError
from mmfusion_ros.core.ground_truth import GroundTruth, associate, load_ground_truth, read_mask

SIZE = (48, 64)
STAMPS = [1_000, 2_000, 3_000]


def masks(folder: Path, *names: str, size=SIZE) -> Path:
    folder.mkdir()
    for value, name in enumerate(names):
        cv2.imwrite(str(folder / f"{name}.png"), np.full(size, 200 + value, np.uint8))
    return folder


def boxes(path: Path, *names: str, size=SIZE) -> Path:
    images = [
        {"id": number, "file_name": name, "height": size[0], "width": size[1]}
        for number, name in enumerate(names)
    ]
    document = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "person"}]}
    path.write_text(json.dumps(document))
    return path


def load(mask_folder: Path | None, box_file: Path | None, stamps=STAMPS) -> GroundTruth:
    return load_ground_truth(
        mask_folder, box_file, stamps=stamps, size=SIZE, classes=("person", "car")
    )


class TestAssociation:
    def test_by_stamp(self):
        truths = {"3000": "c", "01000": "a"}
        assert associate(truths, STAMPS, "masks") == {1_000: "a", 3_000: "c"}

    def test_by_stamp_though_stamps_repeat(self):
        assert associate({"1000": "a"}, [1_000, 2_000, 1_000], "masks") == {1_000: "a"}

    @pytest.mark.parametrize(
        "names",
        [("000000", "000001", "000002"), ("a", "b", "c"), ("7", "8", "9"), ("²", "³", "¼")],
    )
    def test_by_order(self, names):
        truths = {name: name for name in reversed(names)}
        expected = dict(zip(STAMPS, sorted(names), strict=True))
        assert associate(truths, STAMPS, "masks") == expected

    @pytest.mark.parametrize("prefix", ["", "frame_", "3x"])
    def test_numbers_in_names_are_numbers(self, prefix):
        stamps = [1_000 * (place + 1) for place in range(12)]
        truths = {f"{prefix}{place}": place for place in (10, 2, 1, 11, 0, *range(3, 10))}
        assert list(associate(truths, stamps, "masks").values()) == list(range(12))

    def test_mixed_names_have_an_order(self):
        names = ["1", "01", "a1b2", "a1b10", "a2", "b", "9" * 5000]
        stamps = [10**9 + place for place in range(len(names))]
        found = associate({name: name for name in names}, stamps, "masks")
        assert [*found.values()] == ["01", "1", "9" * 5000, "a1b2", "a1b10", "a2", "b"]

    @pytest.mark.parametrize("names", [("1000", "2000", "7777"), ("1000", "x", "3000")])
    def test_names_that_are_stamps_only_in_part(self, names):
        with pytest.raises(GroundTruthError) as caught:
            associate(dict.fromkeys(names, 0), STAMPS, "gt: masks")
        stranger = "x" if "x" in names else "7777"
        assert str(caught.value).startswith(
            f"gt: masks: 2 of 3 names are stamps of RGB images of the bag, but {stranger!r} is not"
        )

    def test_one_stamp_in_two_ways(self):
        with pytest.raises(GroundTruthError, match="'1000' and '01000' are the same stamp"):
            associate({"1000": 1, "01000": 2}, STAMPS, "masks")

    def test_a_message_that_is_no_image_has_its_place_in_the_order(self):
        truths = {"a": "a", "b": "b", "c": "c"}
        assert associate(truths, [1_000, None, 3_000], "masks") == {1_000: "a", 3_000: "c"}

    @pytest.mark.parametrize("names", [("a", "b"), ("a", "b", "c", "d"), ()])
    def test_by_order_there_must_be_one_for_each(self, names):
        with pytest.raises(GroundTruthError) as caught:
            associate(dict.fromkeys(names, 0), STAMPS, "gt: masks")
        message = str(caught.value)
        assert message.startswith(f"gt: masks: {len(names)}, but the bag has 3 RGB messages")
        assert "name each after the stamp of its RGB image in nanoseconds" in message

    def test_by_order_stamps_must_not_repeat(self):
        with pytest.raises(GroundTruthError, match="stamps of the bag's RGB images repeat"):
            associate({"a": 1, "b": 2}, [5, 5], "masks")


def test_masks_and_boxes_find_their_frames(tmp_path):
    truth = load(
        masks(tmp_path / "gt", "b", "a", "c"), boxes(tmp_path / "boxes.json", "x/2000.jpg")
    )
    assert {stamp: path.name for stamp, path in truth.masks.items()} == {
        1_000: "a.png",
        2_000: "b.png",
        3_000: "c.png",
    }
    assert list(truth.boxes) == [2_000]
    np.testing.assert_array_equal(read_mask(truth.masks[1_000]), np.full(SIZE, 201, np.uint8))
    assert 2_000 in truth
    assert 2_001 not in truth


def test_nothing_given():
    truth = load(None, None)
    assert truth == GroundTruth()
    assert 1_000 not in truth


def test_masks_of_another_size_are_named(tmp_path):
    folder = masks(tmp_path / "gt", "a", "b", "c")
    cv2.imwrite(str(folder / "b.png"), np.zeros((24, 32), np.uint8))
    with pytest.raises(GroundTruthError, match=r"b\.png is 32x24, but the RGB pictures are 64x48"):
        load(folder, None)


def test_boxes_for_pictures_of_another_size_are_named(tmp_path):
    path = boxes(tmp_path / "boxes.json", "a.jpg", size=(24, 32))
    with pytest.raises(GroundTruthError, match=r"boxes\.json, image a\.jpg is 32x24, but the RGB"):
        load(None, path, stamps=[1])


def test_what_is_no_folder_of_masks(tmp_path):
    with pytest.raises(GroundTruthError, match="no is no folder"):
        load(tmp_path / "no", None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(GroundTruthError, match=r"holds no \.png files"):
        load(tmp_path / "empty", None)
    folder = masks(tmp_path / "gt", "a", "b")
    (folder / "c.png").write_bytes(b"\xff\xd8 a JPEG by another name")
    with pytest.raises(GroundTruthError, match=r"c\.png is no PNG file"):
        load(folder, None)


def test_a_mask_that_is_damaged_behind_its_head(tmp_path):
    folder = masks(tmp_path / "gt", "a", "b", "c")
    whole = (folder / "a.png").read_bytes()
    (folder / "a.png").write_bytes(whole[:30])
    truth = load(folder, None)
    with pytest.raises(GroundTruthError, match=r"a\.png cannot be decoded"):
        read_mask(truth.masks[1_000])


@pytest.mark.parametrize("value", [1, 128])
def test_a_mask_in_which_nothing_counts_as_salient(tmp_path, value):
    path = tmp_path / "a.png"
    pixels = np.zeros(SIZE, np.uint8)
    cv2.imwrite(str(path), pixels)
    assert not read_mask(path).any()  # nothing is salient, which is an answer
    pixels[0, 0] = value
    cv2.imwrite(str(path), pixels)
    with pytest.raises(
        GroundTruthError, match=rf"a\.png: .*value is {value}, .*expected 0 and 255"
    ):
        read_mask(path)
    pixels[1, 1] = 129
    cv2.imwrite(str(path), pixels)
    np.testing.assert_array_equal(read_mask(path), pixels)


def test_images_that_differ_in_suffix_only(tmp_path):
    path = boxes(tmp_path / "boxes.json", "a.jpg", "a.png")
    with pytest.raises(GroundTruthError, match="differ in folder or suffix only"):
        load(None, path)


def test_categories_nobody_knows_are_passed_on(tmp_path):
    path = boxes(tmp_path / "boxes.json", "1000.jpg")
    document = json.loads(path.read_text())
    document["categories"].append({"id": 2, "name": "tree"})
    path.write_text(json.dumps(document))
    assert load(None, path).unknown_categories == ("tree",)
