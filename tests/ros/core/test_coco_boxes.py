"""A COCO file says what it says, as far as the artifact has words for it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmfusion_ros.core.coco_boxes import read_coco
from mmfusion_ros.core.errors import GroundTruthError

CLASSES = ("Person", "car", "lamp")


def content() -> dict[str, Any]:
    return {
        "info": {"anything": 1},
        "images": [
            {"id": 7, "file_name": "a.jpg", "width": 64, "height": 48},
            {"id": 9, "file_name": "b.jpg", "labelled_classes": ["People", "CAR", "dog"]},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 2, "bbox": [1, 2, 10, 20], "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 5, "bbox": [3.5, 4, 5, 6], "iscrowd": 1},
            {"id": 3, "image_id": 7, "category_id": 6, "bbox": [0, 0, 9, 9]},
        ],
        "categories": [
            {"id": 2, "name": "Car"},
            {"id": 5, "name": "PERSON"},
            {"id": 6, "name": "dog"},
            {"id": 8, "name": "Bicycle"},
        ],
    }


def write(path: Path, change: Callable[[dict[str, Any]], object] | None = None) -> Path:
    document = content()
    if change is not None:
        change(document)
    path.write_text(json.dumps(document))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(GroundTruthError) as caught:
        read_coco(path, CLASSES)
    return str(caught.value)


def test_boxes_by_image(tmp_path):
    coco = read_coco(write(tmp_path / "boxes.json"), CLASSES)
    assert list(coco.images) == ["a.jpg", "b.jpg"]
    first, second = coco.images.values()
    np.testing.assert_array_equal(first.boxes, [[1, 2, 11, 22], [3.5, 4, 8.5, 10]])
    assert first.boxes.dtype == np.float32
    assert first.classes.tolist() == [1, 0]
    assert first.crowd.tolist() == [False, True]
    assert first.size == (48, 64)
    assert second.boxes.shape == (0, 4)
    assert second.size is None


def test_classes_that_were_looked_for(tmp_path):
    first, second = read_coco(write(tmp_path / "boxes.json"), CLASSES).images.values()
    assert first.labelled == {0, 1}  # the file knows no lamps
    assert second.labelled == {1}  # "People" is another name


def test_names_without_a_class_are_listed_once(tmp_path):
    assert read_coco(write(tmp_path / "boxes.json"), CLASSES).unknown == (
        "Bicycle",
        "People",
        "dog",
    )


class TestClassMap:
    def test_other_names_are_met(self, tmp_path):
        coco = read_coco(write(tmp_path / "boxes.json"), CLASSES, {"DOG": "lamp"})
        first, _ = coco.images.values()
        assert first.classes.tolist() == [1, 0, 2]
        assert coco.unknown == ("Bicycle", "People")

    def test_it_goes_before_a_name_that_fits(self, tmp_path):
        coco = read_coco(write(tmp_path / "boxes.json"), CLASSES, {"car": "lamp"})
        assert next(iter(coco.images.values())).classes.tolist() == [2, 0]

    def test_labelled_classes_may_be_named_either_way(self, tmp_path):
        """A category and the class that it is mapped to are one thing."""

        def change(document: dict[str, Any]) -> None:
            document["images"][0]["labelled_classes"] = ["car", "Person", "lamp"]

        path = write(tmp_path / "boxes.json", change)
        with pytest.raises(GroundTruthError, match="'dog' is annotated, but not among"):
            read_coco(path, CLASSES)
        coco = read_coco(path, CLASSES, {"dog": "lamp", "people": "person"})
        first, second = coco.images.values()
        assert first.labelled == {0, 1, 2}
        assert second.labelled == {0, 1, 2}  # "People", "CAR" and "dog"
        assert coco.unknown == ("Bicycle",)

    @pytest.mark.parametrize(
        ("class_map", "message"),
        [
            ({"cat": "car"}, "names cat, which .* its categories are Car, PERSON, dog, Bicycle"),
            ({"dog": "wolf"}, "names wolf, which is no class of the artifact; expected one of Per"),
        ],
    )
    def test_names_of_nothing(self, tmp_path, class_map, message):
        with pytest.raises(GroundTruthError, match=message):
            read_coco(write(tmp_path / "boxes.json"), CLASSES, class_map)


def test_the_recorded_file(shared_dir):
    path = shared_dir / "data/ir_visible_detection/annotations/instances_val.json"
    coco = read_coco(path, ("people", "car"))
    assert len(coco.images) == 15
    assert coco.unknown == ("Bicycle", "Bus", "Dog", "Lamp", "Motorcycle", "Truck")
    people = [(image.classes == 0) & ~image.crowd for image in coco.images.values()]
    assert sum(found.sum() for found in people) == 51
    only_people = [image for image in coco.images.values() if image.labelled == {0}]
    assert only_people


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda d: d.pop("images"), "$: 'images' is a required property"),
        (lambda d: d["images"][0].pop("file_name"), "$.images[0]: 'file_name' is a required"),
        (lambda d: d["annotations"][0].update(bbox=[1, 2, 3]), "$.annotations[0].bbox: [1, 2, 3]"),
        (lambda d: d["annotations"][0].update(iscrowd=2), "$.annotations[0].iscrowd: 2 is not"),
        (lambda d: d["annotations"][1].update(image_id=1), "$.annotations[1].image_id: 1 is the"),
        (lambda d: d["annotations"][2].update(category_id=1), "$.annotations[2].category_id: 1 "),
        (lambda d: d["images"][1].update(file_name="a.jpg"), "two images have one file_name"),
        (lambda d: d["images"][1].update(id=7), "$.images[1].id: 7 is used twice; correct"),
        (lambda d: d["categories"][3].update(id=5), "$.categories[3].id: 5 is used twice"),
        (
            lambda d: d["images"][0].update(labelled_classes=["Car", "Persn", "dog"]),
            "$.annotations[1].category_id: 'PERSON' is annotated, but not among labelled_classes",
        ),
        *(
            (
                lambda d, x=x: d["annotations"][1].update(bbox=x),
                f"$.annotations[1].bbox: {x} has a number that is not finite",
            )
            for x in (
                [math.nan, 1, 2, 3],
                [1, 2, math.inf, 3],
                [1, 2, 3, math.nan],
                [1, 1e39, 2, 3],
                [3e38, 1, 3e38, 2],
            )
        ),
        *(
            (
                lambda d, x=x: d["annotations"][2].update(bbox=x),
                f"$.annotations[2].bbox: {x} (x, y, width, height) must have a width and height",
            )
            for x in ([1, 2, 0, 3], [1, 2, 3, -4])
        ),
    ],
)
def test_faults_are_named_with_their_place(tmp_path, change, named):
    message = refusal(write(tmp_path / "boxes.json", change))
    assert str(tmp_path / "boxes.json") in message
    assert named in message


def test_files_that_are_no_coco(tmp_path):
    assert "no readable ground-truth file at" in refusal(tmp_path / "no.json")
    (tmp_path / "text.json").write_text("boxes")
    assert "is not valid JSON" in refusal(tmp_path / "text.json")
    (tmp_path / "list.json").write_text("[]")
    assert "list.json, $: [] is not of type 'object'" in refusal(tmp_path / "list.json")


def test_no_class_in_common(tmp_path):
    path = write(tmp_path / "boxes.json")
    with pytest.raises(GroundTruthError, match="its categories are Car, PERSON, dog, Bicycle, the"):
        read_coco(path, ("tree",))
