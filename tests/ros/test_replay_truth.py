"""Replay beside ground truth: what is compared with what, and what comes of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from artifacts import CANDIDATES, write_artifact, write_rig
from bags import PERIOD, START, camera_info, cameras, courtyard, pictures, write_bag
from replays import metrics_of, run
from rosbags.highlevel import AnyReader

pytest.importorskip("mmfusion.metrics", reason="the networks' package is not installed")
pytest.importorskip("py_sod_metrics", reason="mmfusion[eval] is not installed")
pytest.importorskip("faster_coco_eval", reason="mmfusion[eval] is not installed")

from mmfusion.metrics import compare_saliency, summarise_saliency

SIZE = (48, 64)
SETS = 6
STABLE = ("metrics.json", "result/result.mcap", "result/metadata.yaml")
FOUND = {"/saliency/mask", "/detections", "/overlay/image"}


@pytest.fixture(scope="module")
def artifact(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("artifacts") / "finder"
    return write_artifact(folder, saliency=True, detections=True)


@pytest.fixture(scope="module")
def bag(tmp_path_factory) -> Path:
    messages = cameras(SETS, no_thermal={2, 3})
    return write_bag(tmp_path_factory.mktemp("bags") / "drive", messages)


def fails(capsys, *arguments) -> str:
    assert run(*arguments) == 1
    message = capsys.readouterr().err
    assert "Traceback" not in message
    assert not arguments[2].exists()  # found out before anything was run
    return message


def warm(number: int) -> np.ndarray:
    """A mask: where the thermal picture of a set is above its median."""
    thermal = pictures(number, SIZE)["thermal"]
    return np.where(thermal > np.median(thermal), 255, 0).astype(np.uint8)


def write_masks(folder: Path, names: dict[str, int]) -> Path:
    """Masks by name, each of the set of a number."""
    folder.mkdir()
    for name, number in names.items():
        cv2.imwrite(str(folder / f"{name}.png"), warm(number))
    return folder


def write_boxes(path: Path, names: dict[str, list[int]], *, extra: tuple[str, ...] = ()) -> Path:
    """A COCO file: for each name those of the artifact's candidates that are really there."""
    annotations = []
    for image, places in enumerate(names.values()):
        for place in places:
            left, top, right, bottom = CANDIDATES["boxes"][place].tolist()
            kind = int(CANDIDATES["classes"][place]) + 1
            annotations.append(
                {
                    "image_id": image,
                    "category_id": kind,
                    "bbox": [left, top, right - left, bottom - top],
                }
            )
    kinds = ("Person", "CAR", *extra)
    document = {
        "images": [{"id": n, "file_name": f"{name}.jpg"} for n, name in enumerate(names)],
        "annotations": annotations,
        "categories": [{"id": n + 1, "name": kind} for n, kind in enumerate(kinds)],
    }
    path.write_text(json.dumps(document))
    return path


def in_order(count: int = SETS) -> dict[str, int]:
    return {f"{number:03}": number for number in range(count)}


def expected_saliency(*numbers: int) -> dict[str, float]:
    """The graph's saliency is the thermal image's low byte, black without thermal."""
    figures = []
    for number in numbers:
        shown = pictures(number, SIZE)["thermal"] & 0xFF
        saliency = np.zeros(SIZE, np.uint8) if number in {2, 3} else shown.astype(np.uint8)
        figures.append(compare_saliency(saliency, warm(number)))
    return summarise_saliency(figures)


def test_saliency_overall_and_by_modality_set(bag, artifact, tmp_path):
    masks = write_masks(tmp_path / "gt", in_order())
    assert run(bag, artifact, tmp_path / "out", "--ground-truth-masks", masks) == 0
    metrics = metrics_of(tmp_path / "out")
    saliency = metrics["saliency"]
    assert saliency["overall"].pop("pictures") == 6
    assert saliency["overall"] == pytest.approx(expected_saliency(*range(6)))
    both = saliency["modalities"]["rgb+depth+thermal"]
    assert both.pop("pictures") == 4
    assert both == pytest.approx(expected_saliency(0, 1, 4, 5))
    assert saliency["modalities"]["rgb+depth"]["pictures"] == 2
    assert metrics["detection"] is None
    # Masks of their own frames, or the figures would not be so good.
    assert both["F_max"] > 0.9


def test_detection_overall_and_by_modality_set(bag, artifact, tmp_path):
    """The first candidate is right in all pictures, the car is where there is thermal."""
    names = {f"{n:03}": [0] if n in {2, 3} else [0, 1] for n in range(SETS)}
    boxes = write_boxes(tmp_path / "boxes.json", names)
    assert run(bag, artifact, tmp_path / "out", "--ground-truth-boxes", boxes) == 0
    metrics = metrics_of(tmp_path / "out")
    assert metrics["saliency"] is None
    detection = metrics["detection"]
    assert detection["ignored_categories"] == []
    both = detection["modalities"]["rgb+depth+thermal"]
    assert (both["pictures"], both["truths"], both["mAP50_95"]) == (4, 8, pytest.approx(1.0))
    lean = detection["modalities"]["rgb+depth"]
    assert lean["classes"]["car"] == {"AP50_95": None, "AP50": None, "AP75": None, "truths": 0}
    assert lean["mAP50"] == pytest.approx(1.0)
    overall = detection["overall"]
    assert overall["truths"] == 10
    assert overall["classes"]["person"]["AP50"] == pytest.approx(1.0)
    assert 0.5 < overall["classes"]["car"]["AP50"] < 1.0  # two of six were none


def test_what_is_left_out_for_its_score_is_measured_all_the_same(bag, artifact, tmp_path):
    boxes = write_boxes(tmp_path / "boxes.json", {f"{n:03}": [3] for n in range(SETS)})
    options = ("--ground-truth-boxes", boxes, "--min-score", "0.85")
    assert run(bag, artifact, tmp_path / "out", *options) == 0
    metrics = metrics_of(tmp_path / "out")
    assert metrics["settings"]["min_score"] == 0.85
    assert metrics["detection"]["overall"]["classes"]["person"]["AP50"] > 0.3
    with AnyReader([tmp_path / "out" / "result"]) as reader:
        connections = reader.topics["/detections"].connections
        for connection, _, data in reader.messages(connections):
            message = reader.deserialize(data, connection.msgtype)
            assert [entry.results[0].hypothesis.score for entry in message.detections] == [
                pytest.approx(0.9)
            ]


def test_truth_is_found_by_stamp_whatever_is_left_out(bag, artifact, tmp_path, capsys):
    names = {str(START + number * PERIOD): number for number in (0, 4, 5)}
    masks = write_masks(tmp_path / "gt", names)
    options = ("--ground-truth-masks", masks, "--stride", "2")
    assert run(bag, artifact, tmp_path / "out", *options) == 0
    said = "replay: 3 ground-truth masks cover 3 of the bag's 6 RGB messages\n"
    assert said in capsys.readouterr().out
    overall = metrics_of(tmp_path / "out")["saliency"]["overall"]
    assert overall.pop("pictures") == 2
    assert overall == pytest.approx(expected_saliency(0, 4))


def test_the_order_counts_messages_not_sets(artifact, tmp_path):
    """A message that is none and a stride do not shift what comes behind."""
    messages = cameras(SETS)
    messages[3] = (*messages[3][:3], b"\x00\x01")  # RGB of set 1
    bag = write_bag(tmp_path / "bag", messages)
    masks = write_masks(tmp_path / "gt", in_order())
    options = ("--ground-truth-masks", masks, "--stride", "2")
    assert run(bag, artifact, tmp_path / "out", *options) == 0
    overall = metrics_of(tmp_path / "out")["saliency"]["overall"]
    assert overall["pictures"] == 3  # sets 0, 3 and 5: the first of every two that are left
    assert overall["F_max"] > 0.9


def test_truth_is_compared_without_metrics_of_fusion(bag, artifact, tmp_path):
    masks = write_masks(tmp_path / "gt", in_order())
    options = ("--ground-truth-masks", masks, "--metrics-stride", "0", "--no-report")
    assert run(bag, artifact, tmp_path / "out", *options) == 0
    assert metrics_of(tmp_path / "out")["saliency"]["overall"]["pictures"] == 6


def test_a_picture_that_cannot_be_used_is_not_compared(artifact, tmp_path):
    messages = cameras(3)
    topic, kind, log, image = messages[0]
    image.data = image.data[:100]
    bag = write_bag(tmp_path / "bag", [(topic, kind, log, image), *messages[1:]])
    masks = write_masks(tmp_path / "gt", in_order(3))
    assert run(bag, artifact, tmp_path / "out", "--ground-truth-masks", masks) == 0
    assert metrics_of(tmp_path / "out")["saliency"]["overall"]["pictures"] == 2


def test_categories_that_mean_nothing_are_told_once(bag, artifact, tmp_path, capsys):
    boxes = write_boxes(
        tmp_path / "boxes.json", {f"{n:03}": [0] for n in range(SETS)}, extra=("tree", "dog")
    )
    assert run(bag, artifact, tmp_path / "out", "--ground-truth-boxes", boxes) == 0
    assert capsys.readouterr().out.count("has no class for: dog, tree") == 1
    assert metrics_of(tmp_path / "out")["detection"]["ignored_categories"] == ["dog", "tree"]


def topics_of(out: Path) -> set[str]:
    with AnyReader([out / "result"]) as reader:
        return set(reader.topics)


def places_of(out: Path) -> list[float]:
    with AnyReader([out / "result"]) as reader:
        connections = reader.topics["/detections_3d"].connections
        return [
            round(reader.deserialize(data, c.msgtype).detections[0].bbox.size.x, 6)
            for c, _, data in reader.messages(connections)
        ]


class TestPlaces:
    def test_from_the_rig(self, bag, artifact, tmp_path):
        rig = write_rig(tmp_path / "rig.yaml")
        assert run(bag, artifact, tmp_path / "out", "--rig", rig) == 0
        assert FOUND | {"/detections_3d"} <= topics_of(tmp_path / "out")
        assert places_of(tmp_path / "out") == [16 / 64 * 3] * SETS

    def test_from_the_camera_first(self, artifact, tmp_path):
        info = camera_info("/camera/color/camera_info", 32.0)
        bag = write_bag(tmp_path / "bag", [info, *cameras(2)])
        rig = write_rig(tmp_path / "rig.yaml")
        for name, options in (("alone", ()), ("both", ("--rig", rig))):
            assert run(bag, artifact, tmp_path / name, *options) == 0
            assert places_of(tmp_path / name) == [16 / 32 * 3] * 2

    def test_nowhere_if_nobody_knows_the_camera(self, bag, artifact, tmp_path):
        assert run(bag, artifact, tmp_path / "out") == 0
        assert topics_of(tmp_path / "out") >= FOUND
        assert "/detections_3d" not in topics_of(tmp_path / "out")


class TestErrors:
    def test_counts_that_differ(self, bag, artifact, tmp_path, capsys):
        masks = write_masks(tmp_path / "gt", in_order(5))
        message = fails(capsys, bag, artifact, tmp_path / "out", "--ground-truth-masks", masks)
        assert f"{masks}: masks: 5, but the bag has 6 RGB messages" in message

    def test_names_that_are_stamps_only_in_part(self, bag, artifact, tmp_path, capsys):
        masks = write_masks(tmp_path / "gt", {str(START): 0, "12345": 1})
        message = fails(capsys, bag, artifact, tmp_path / "out", "--ground-truth-masks", masks)
        assert "1 of 2 names are stamps of RGB images of the bag, but '12345' is not" in message

    def test_masks_of_zeros_and_ones(self, bag, artifact, tmp_path, capsys):
        masks = write_masks(tmp_path / "gt", in_order())
        cv2.imwrite(str(masks / "004.png"), warm(4) // 255)
        assert run(bag, artifact, tmp_path / "out", "--ground-truth-masks", masks) == 1
        assert "004.png: the brightest value is 1, and what" in capsys.readouterr().err

    def test_masks_of_another_size(self, bag, artifact, tmp_path, capsys):
        masks = write_masks(tmp_path / "gt", in_order())
        cv2.imwrite(str(masks / "004.png"), np.zeros((96, 128), np.uint8))
        message = fails(capsys, bag, artifact, tmp_path / "out", "--ground-truth-masks", masks)
        assert "004.png is 128x96, but the RGB pictures are 64x48" in message

    @pytest.mark.parametrize("option", ["--ground-truth-masks", "--ground-truth-boxes"])
    def test_an_artifact_that_gives_nothing_to_compare(self, bag, tmp_path, capsys, option):
        lean = write_artifact(
            tmp_path / "lean",
            saliency=option == "--ground-truth-boxes",
            detections=option == "--ground-truth-masks",
        )
        truth = {
            "--ground-truth-masks": write_masks(tmp_path / "gt", in_order()),
            "--ground-truth-boxes": write_boxes(
                tmp_path / "b.json", {f"{n}": [0] for n in range(6)}
            ),
        }
        message = fails(capsys, bag, lean, tmp_path / "out", option, truth[option])
        assert (
            f"artifact lean gives no {'saliency' if 'masks' in option else 'detections'}" in message
        )
        assert f"replay without {option}" in message

    @pytest.mark.parametrize(
        ("package", "option"),
        [
            ("py_sod_metrics", "--ground-truth-masks"),
            ("faster_coco_eval", "--ground-truth-boxes"),
        ],
    )
    def test_packages_that_are_missing(
        self, bag, artifact, tmp_path, capsys, monkeypatch, package, option
    ):
        monkeypatch.setitem(sys.modules, package, None)
        truth = {
            "--ground-truth-masks": write_masks(tmp_path / "gt", in_order()),
            "--ground-truth-boxes": write_boxes(
                tmp_path / "b.json", {f"{n}": [0] for n in range(6)}
            ),
        }
        message = fails(capsys, bag, artifact, tmp_path / "out", option, truth[option])
        assert "pip install 'mmfusion[eval]'" in message
        assert f"replay without {option}" in message

    @pytest.mark.parametrize("score", ["-0.1", "1.1", "many"])
    def test_scores_that_are_none(self, bag, artifact, tmp_path, score):
        with pytest.raises(SystemExit):
            run(bag, artifact, tmp_path / "out", f"--min-score={score}")


def test_the_bundled_recording(repo_root, tmp_path):
    """Its masks and boxes fit, a second run gives the same bytes and the report shows both."""
    data = repo_root / "data" / "courtyard"
    document = json.loads((data / "boxes.json").read_text())
    first = [entry for entry in document["annotations"] if entry["image_id"] == 1]
    corners = np.array([entry["bbox"] for entry in first], np.float32)
    corners[:, 2:] += corners[:, :2]
    size = (480, 640)
    artifact = write_artifact(
        tmp_path / "still",
        rgb=size,
        depth=size,
        thermal=size,
        saliency=True,
        detections=True,
        candidates={
            "boxes": corners,
            "scores": np.linspace(0.9, 0.6, len(first), dtype=np.float32),
            "classes": np.array([entry["category_id"] - 1 for entry in first], np.int32),
            "box_depth": np.array([entry["center"][2] for entry in first], np.float32),
        },
    )
    bag = write_bag(tmp_path / "bag", courtyard(data, 40))
    options = [
        *("--ground-truth-masks", data / "gt", "--ground-truth-boxes", data / "boxes.json"),
        *("--rig", repo_root / "calibration" / "demo.yaml", "--stride", "8"),
        *("--metrics-stride", "4", "--metrics-threads", "2"),
    ]
    for name in ("one", "two"):
        assert run(bag, artifact, tmp_path / name, *options) == 0
    for file in STABLE:
        one, two = ((tmp_path / name / file).read_bytes() for name in ("one", "two"))
        assert one == two, file
    metrics = metrics_of(tmp_path / "one")
    saliency, detection = metrics["saliency"]["overall"], metrics["detection"]["overall"]
    assert saliency["pictures"] == detection["pictures"] == 5
    assert saliency["E_adaptive"] > 0.9  # the scene is lit by warm people and a warm bonnet
    # Boxes of the first picture: the car moves little.
    assert detection["classes"]["car"]["AP50"] == pytest.approx(1.0)
    assert detection["classes"]["person"]["AP50"] < 0.5
    with AnyReader([tmp_path / "one" / "result"]) as reader:
        connections = reader.topics["/detections_3d"].connections
        _, _, data = next(reader.messages(connections))
        message = reader.deserialize(data, "vision_msgs/msg/Detection3DArray")
    for entry, truth in zip(message.detections, first, strict=True):
        position = entry.bbox.center.position
        assert (position.x, position.y, position.z) == pytest.approx(truth["center"], abs=0.3)
    page = (tmp_path / "one" / "report.html").read_text()
    for text in ("<h2>Saliency</h2>", "<h2>Detection</h2>", "saliency and detections", "dashed"):
        assert text in page


def test_categories_of_other_names(bag, tmp_path, capsys):
    """They are listed, and mapped by hand."""
    artifact = write_artifact(tmp_path / "finder", detections=True)
    boxes = write_boxes(tmp_path / "boxes.json", {f"{n:03}": [0] for n in range(SETS)})
    boxes.write_text(boxes.read_text().replace('"Person"', '"Pedestrian"'))
    options = ("--ground-truth-boxes", boxes, "--no-report", "--metrics-stride", "0")
    assert run(bag, artifact, tmp_path / "out", *options) == 0
    told = capsys.readouterr().out
    assert "categories that the artifact has no class for: Pedestrian; its classes are" in told
    assert "--class-map" in told
    detection = metrics_of(tmp_path / "out")["detection"]
    assert detection["ignored_categories"] == ["Pedestrian"]
    assert detection["overall"]["truths"] == 0
    mapped = (*options, "--class-map", "pedestrian=PERSON")
    assert run(bag, artifact, tmp_path / "out", *mapped) == 0
    detection = metrics_of(tmp_path / "out")["detection"]
    assert detection["ignored_categories"] == []
    assert detection["overall"]["truths"] == SETS
    assert detection["overall"]["mAP50"] > 0.9


@pytest.mark.parametrize("text", ["", "person", "person=", "=People", "a=b,a=c"])
def test_a_class_map_that_is_none(bag, artifact, tmp_path, capsys, text):
    with pytest.raises(SystemExit):
        run(bag, artifact, tmp_path / "out", "--class-map", text)
    assert "is no map; expected one like" in capsys.readouterr().err


@pytest.mark.parametrize("with_rig", [False, True])
@pytest.mark.parametrize("told", [None, SIZE, (9, 9)])
def test_camera_info_and_markers_as_the_node_publishes_them(artifact, tmp_path, with_rig, told):
    """The camera's own where it is for these pictures, else that of the rig, else none."""
    messages = cameras(2)
    if told is not None:
        messages.insert(0, camera_info("/camera/color/camera_info", 50.0, told))
    options = ["--metrics-stride", "0", "--no-report"]
    if with_rig:
        options += ["--rig", write_rig(tmp_path / "rig.yaml")]
    out = tmp_path / "out"
    assert run(write_bag(tmp_path / "bag", messages), artifact, out, *options) == 0
    with AnyReader([out / "result"]) as reader:
        names = {"/fused/camera_info", "/markers", "/fused/image"}
        found: dict[str, list] = {name: [] for name in names}
        for connection, _, data in reader.messages():
            if connection.topic in names:
                message = reader.deserialize(data, connection.msgtype)
                found[connection.topic].append(message)
    focal = 50.0 if told == SIZE else 64.0 if with_rig else None
    assert [info.k[0] for info in found["/fused/camera_info"]] == ([focal] * 2 if focal else [])
    assert len(found["/markers"]) == (2 if focal else 0)
    for info, image in zip(found["/fused/camera_info"], found["/fused/image"], strict=False):
        assert info.header == image.header
