"""Whole frames, their truth, and the recording that ships with the repository."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from mmfusion.errors import DataError
from mmfusion.synthetic import (
    DepthSensor,
    RgbSensor,
    Sensors,
    ThermalSensor,
    aligned_rig,
    make_scene,
    offset_rig,
    render_frame,
    render_sequence,
)
from mmfusion.synthetic.__main__ import main
from mmfusion.synthetic.camera import Camera, Rig, intrinsics
from mmfusion.synthetic.recording import FIRST_STAMP_NS
from mmfusion.synthetic.sensors import generator

SHIPPED = Path(__file__).parents[3] / "data" / "courtyard"
PICTURES = ("rgb", "depth", "thermal", "instances", "saliency", "true_depth")


def small_rig():
    rig = aligned_rig()

    def shrunk(camera):
        return Camera(160, 120, intrinsics(160, 120, 66.0), camera.pose)

    return Rig(shrunk(rig.rgb), shrunk(rig.depth), shrunk(rig.thermal))


def assert_same(one, other):
    assert one.stamps_ns == other.stamps_ns
    for name in PICTURES:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


@pytest.fixture(scope="module")
def frame():
    return next(render_sequence(make_scene("courtyard"), aligned_rig(), [0.0], seed=0))


class TestFrames:
    def test_types_and_sizes(self, frame):
        assert (frame.rgb.shape, frame.rgb.dtype) == ((480, 640, 3), np.uint8)
        assert (frame.depth.shape, frame.depth.dtype) == ((480, 640), np.uint16)
        assert (frame.thermal.shape, frame.thermal.dtype) == ((240, 320), np.uint16)
        assert (frame.instances.shape, frame.instances.dtype) == ((480, 640), np.uint16)
        assert (frame.true_depth.shape, frame.true_depth.dtype) == ((480, 640), np.float32)
        assert set(np.unique(frame.saliency)) == {0, 255}

    def test_boxes_fit_their_masks(self, frame):
        assert [box.class_name for box in frame.boxes] == ["person", "person", "person", "car"]
        for box in frame.boxes:
            left, top, right, bottom = box.xyxy
            mask = frame.instances == box.instance
            assert mask[top:bottom, left:right].sum() == mask.sum() == box.pixels
            inner = mask[top:bottom, left:right]
            assert all(side.any() for side in (inner[0], inner[-1], inner[:, 0], inner[:, -1]))
            assert 0.0 < box.visible <= 1.0

    def test_saliency_is_the_union_of_the_boxed_things(self, frame):
        ids = [box.instance for box in frame.boxes]
        np.testing.assert_array_equal(frame.saliency > 0, np.isin(frame.instances, ids))

    def test_box_centers_lie_at_the_things(self, frame):
        for box in frame.boxes:
            depth = np.median(frame.true_depth[frame.instances == box.instance])
            assert abs(box.center[2] - depth) < 0.6 * max(box.size)
            camera = aligned_rig().rgb.matrix
            u = camera[0, 0] * box.center[0] / box.center[2] + camera[0, 2]
            assert box.xyxy[0] - 2 < u < box.xyxy[2] + 2
            np.testing.assert_allclose(box.axes.T @ box.axes, np.eye(3), atol=1e-12)

    def test_people_are_warmer_than_what_is_around_them(self, frame):
        warm = cv2.resize(frame.thermal, (640, 480), interpolation=cv2.INTER_NEAREST) / 100.0
        near = cv2.dilate(frame.saliency, np.ones((15, 15), np.uint8)) > 0
        for box in frame.boxes[:3]:
            person = cv2.erode((frame.instances == box.instance).astype(np.uint8), np.ones((3, 3)))
            assert 293.0 < np.median(warm[person > 0]) < 308.0
        assert np.median(warm[near & (frame.saliency == 0)]) < 291.0

    def test_depth_is_close_to_the_truth_where_there_is_one(self, frame):
        valid = frame.depth > 0
        # The depth frame is taken 4 ms later: a gap in the leaves may have closed.
        assert valid[np.isinf(frame.true_depth)].mean() < 0.001
        assert valid[np.isfinite(frame.true_depth) & (frame.true_depth < 15)].mean() > 0.9
        valid &= np.isfinite(frame.true_depth)
        error = np.abs(frame.depth[valid] / 1000.0 - frame.true_depth[valid])
        assert np.percentile(error / frame.true_depth[valid] ** 2, 95) < 0.0025
        assert frame.depth.max() < 19000

    def test_stamps_trail_the_rgb_stamp(self, frame):
        stamps = frame.stamps_ns
        assert 0 < stamps["depth"] - stamps["rgb"] < 7_000_000
        assert 6_000_000 < stamps["thermal"] - stamps["rgb"] < 12_000_000


class TestDeterminism:
    def test_the_seed_decides(self):
        scene, rig = make_scene("courtyard"), small_rig()
        one, other = (next(render_sequence(scene, rig, [1.0], seed=3)) for _ in range(2))
        assert_same(one, other)
        third = next(render_sequence(scene, rig, [1.0], seed=4))
        for name in ("rgb", "depth", "thermal"):
            assert (getattr(one, name) != getattr(third, name)).any()
        np.testing.assert_array_equal(one.instances, third.instances)

    def test_a_frame_does_not_depend_on_the_others(self):
        scene, rig = make_scene("courtyard"), small_rig()
        *_, last = render_sequence(scene, rig, [0.0, 0.5], seed=1)
        assert_same(last, render_frame(scene, rig, 0.5, index=1, seed=1, sensors=Sensors()))

    @pytest.mark.parametrize("light", ["day", "dusk", "night"])
    def test_things_move_and_keep_their_ids(self, light):
        scene = make_scene("courtyard", light, smoke=True)
        first, second = render_sequence(scene, small_rig(), [0.0, 0.6])
        assert [box.instance for box in first.boxes] == [box.instance for box in second.boxes]
        assert any(a.xyxy != b.xyxy for a, b in zip(first.boxes, second.boxes, strict=True))

    def test_visible_share_falls_behind_an_obstacle(self):
        scene, rig = make_scene("courtyard"), small_rig()
        in_the_open, behind = False, False
        for frame in render_sequence(scene, rig, np.arange(0.0, 6.0, 0.3)):
            share = min((box.visible for box in frame.boxes), default=1.0)
            assert share <= 1.0
            in_the_open |= share == 1.0
            behind |= share < 0.8
            if in_the_open and behind:
                return
        pytest.fail(f"seen in the open: {in_the_open}, behind an obstacle: {behind}")


class TestSensors:
    def test_a_perfect_depth_sensor_counts_millimetres(self):
        sensor = DepthSensor(step=0.0, holes=0.0)
        depth = np.array([[1.2344, 5.0], [17.9, np.inf], [0.2, 18.1]])
        clear, gloss = np.ones_like(depth), np.zeros_like(depth)
        got = sensor.read(depth, clear, gloss, generator(0))
        np.testing.assert_array_equal(got, [[1234, 5000], [17900, 0], [0, 0]])
        assert sensor.read(depth, 0.4 * clear, gloss, generator(0)).max() == 0

    def test_a_perfect_thermal_sensor_counts_centikelvin(self):
        kelvin = np.full((8, 8), 300.126)
        sensor = ThermalSensor(blur=0.0, noise=0.0, columns=0.0, drift=0.5)
        assert (sensor.read(kelvin, 2.0, generator(0), generator(1)) == 30113).all()

    def test_the_column_pattern_is_fixed(self):
        sensor = ThermalSensor(blur=0.0, noise=0.0, columns=0.5)
        flat = np.full((8, 8), 300.0)
        one = sensor.read(flat, 0.0, generator(1), generator(9))
        other = sensor.read(flat, 0.0, generator(2), generator(9))
        np.testing.assert_array_equal(one, other)
        assert len(np.unique(one[0])) > 1
        assert (one == one[0]).all()

    def test_rgb_without_noise_is_srgb(self):
        linear = np.tile(np.array([0.0, 0.2140, 1.0]), (2, 2, 1))
        got = RgbSensor(gain=0.0).read(linear, 3.0, generator(0))
        np.testing.assert_array_equal(got[0, 0], [0, 127, 255])


class TestRecording:
    def test_command_writes_a_readable_folder(self, tmp_path, monkeypatch):
        monkeypatch.setattr("mmfusion.synthetic.__main__.offset_rig", small_rig)
        out = tmp_path / "new"
        assert main([str(out), "--frames", "2", "--rig", "offset", "--rate", "5"]) == 0
        check_folder(out, 2, period_ns=200_000_000)
        with pytest.raises(SystemExit):
            main([str(out), "--frames", "1"])

    def test_unknown_names_are_errors(self):
        with pytest.raises(DataError, match="known are courtyard, target"):
            make_scene("moon")
        with pytest.raises(DataError, match="known are day, dusk, night"):
            make_scene("courtyard", "noon")

    def test_offset_rig_can_have_registered_depth(self):
        assert offset_rig(registered_depth=True).depth is not offset_rig().depth
        rig = offset_rig(registered_depth=True)
        assert rig.depth is rig.rgb


def check_folder(folder, count, period_ns):
    stems = [f"{i:06d}" for i in range(count)]
    for name, ending in (("rgb", "jpg"), ("depth", "png"), ("thermal", "png"), ("gt", "png")):
        assert sorted(path.name for path in (folder / name).iterdir()) == [
            f"{stem}.{ending}" for stem in stems
        ]
    with (folder / "stamps.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["stem"] for row in rows] == stems
    for i, row in enumerate(rows):
        stamps = [int(row[f"{name}_stamp_ns"]) for name in ("rgb", "depth", "thermal")]
        assert stamps[0] == FIRST_STAMP_NS + i * period_ns
        assert all(0 <= stamp - stamps[0] < 15_000_000 for stamp in stamps)
    boxes = json.loads((folder / "boxes.json").read_text())
    assert [image["file_name"] for image in boxes["images"]] == [f"{stem}.jpg" for stem in stems]
    ids = [row["id"] for row in boxes["annotations"]]
    assert ids == list(range(1, len(ids) + 1))
    assert {row["name"] for row in boxes["categories"]} == {"person", "car"}
    cameras = yaml.safe_load((folder / "cameras.yaml").read_text())
    for name in ("rgb", "depth", "thermal"):
        suffix = "jpg" if name == "rgb" else "png"
        picture = cv2.imread(str(folder / name / f"000000.{suffix}"), cv2.IMREAD_UNCHANGED)
        assert picture.shape[:2] == (cameras[name]["height"], cameras[name]["width"])
        assert picture.dtype == (np.uint8 if name == "rgb" else np.uint16)
    return boxes


class TestShipped:
    """``data/courtyard`` is what ``python -m mmfusion.synthetic`` writes by default."""

    def test_folder(self):
        check_folder(SHIPPED, 40, period_ns=100_000_000)

    def test_first_frame_is_rendered_again(self, frame):
        color = cv2.cvtColor(cv2.imread(str(SHIPPED / "rgb/000000.jpg")), cv2.COLOR_BGR2RGB)
        assert np.abs(color.astype(int) - frame.rgb).mean() < 3.0  # JPEG at quality 92
        for name, picture in (("depth", frame.depth), ("thermal", frame.thermal)):
            stored = cv2.imread(str(SHIPPED / name / "000000.png"), cv2.IMREAD_UNCHANGED)
            # A rounding may fall the other way on another processor.
            assert (np.abs(stored.astype(int) - picture) <= 1).mean() > 0.999, name
        stored = cv2.imread(str(SHIPPED / "gt/000000.png"), cv2.IMREAD_UNCHANGED)
        assert (stored == frame.saliency).mean() > 0.9999
        boxes = json.loads((SHIPPED / "boxes.json").read_text())["annotations"]
        first = [row for row in boxes if row["image_id"] == 1]
        assert len(first) == len(frame.boxes)
        for row, box in zip(first, frame.boxes, strict=True):
            left, top, right, bottom = box.xyxy
            np.testing.assert_allclose(row["bbox"], [left, top, right - left, bottom - top], atol=1)
            np.testing.assert_allclose(row["center"], box.center, atol=1e-3)
