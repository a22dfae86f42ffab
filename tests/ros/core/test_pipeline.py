"""Frame sets go in, results come out; a bad image costs its modality, a bad engine one run."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import pytest
from artifacts import CANDIDATES, write_artifact, write_rig

from mmfusion_ros.core.artifact import Artifact, TensorSpec, open_artifact
from mmfusion_ros.core.detections import MOST_DETECTIONS
from mmfusion_ros.core.engines import EngineOptions, open_engine, open_fallback
from mmfusion_ros.core.errors import ArtifactError, EngineError, RigError
from mmfusion_ros.core.frames import Absence, Companion, Frame, FrameSet, Modality, SourceImage
from mmfusion_ros.core.guarded_pipeline import EngineState, GuardedPipeline
from mmfusion_ros.core.pipeline import Pipeline
from mmfusion_ros.core.rig import Rig, load_rig

pytest.importorskip("onnxruntime")

RGB, DEPTH, THERMAL = Modality
HEIGHT, WIDTH = 48, 64
ENCODINGS = {RGB: ("rgb8", 3), DEPTH: ("16UC1", 2), THERMAL: ("mono16", 2)}
ON_CPU = EngineOptions("onnxruntime", threads=1)
LATE = Companion(None, Absence.LATE, 40_000_000)


class RecordingEngine:
    """Keeps copies of what it was given; fails when told to."""

    backend, precision = "recording", "none"

    def __init__(self, artifact: Artifact) -> None:
        self.calls: list[dict[str, np.ndarray]] = []
        self.given: Mapping[str, np.ndarray] = {}
        self.fails = False
        self._outputs = {s.name: np.zeros(s.shape, s.dtype) for s in artifact.outputs.values()}

    def run(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        self.given = inputs
        self.calls.append({name: array.copy() for name, array in inputs.items()})
        self._outputs["thermal_range_next"] += 1
        if self.fails:
            raise EngineError("out of memory")
        time.sleep(0.005)
        return self._outputs


@pytest.fixture(scope="module")
def artifact(tmp_path_factory) -> Artifact:
    return open_artifact(write_artifact(tmp_path_factory.mktemp("artifact") / "small"))


@pytest.fixture(scope="module")
def rig(tmp_path_factory) -> Rig:
    return load_rig(write_rig(tmp_path_factory.mktemp("rig") / "rig.json"))


@pytest.fixture
def pipeline(artifact, rig):
    with open_engine(artifact, ON_CPU) as engine:
        yield Pipeline(artifact, engine, rig)


@pytest.fixture
def recording(artifact, rig) -> Pipeline:
    return Pipeline(artifact, RecordingEngine(artifact), rig)


def pixels(modality: Modality, value: int = 9) -> np.ndarray:
    if modality is RGB:
        ramp = np.arange(HEIGHT * WIDTH * 3) % 251
        return ramp.astype(np.uint8).reshape(HEIGHT, WIDTH, 3)
    return np.full((HEIGHT, WIDTH), value, "<u2")


def frame(modality: Modality, image: SourceImage | None = None) -> Frame:
    if image is None:
        encoding, size = ENCODINGS[modality]
        data = pixels(modality).tobytes()
        image = SourceImage(data, HEIGHT, WIDTH, encoding, WIDTH * size)
    return Frame(modality, 1_000, f"{modality}_optical", image)


def frame_set(
    *, rgb: Frame | None = None, depth: Frame | None = None, thermal: Frame | None = None
) -> FrameSet:
    return FrameSet(
        rgb or frame(RGB),
        LATE if depth is None else Companion(depth, None, 2_000_000),
        LATE if thermal is None else Companion(thermal, None, -3_000_000),
    )


BAD_IMAGES = {
    "small": (SourceImage(bytes(10**5), 24, 32, "mono16", 64), "32x24 pixels, but artifact small"),
    "turned": (SourceImage(bytes(10**5), 64, 48, "mono16", 96), "48x64 pixels"),
    "truncated": (SourceImage(bytes(100), 48, 64, "mono16", 128), "truncated: 100 bytes"),
    "empty": (SourceImage(b"", 0, 0, "mono16", 0), "0x0 pixels is no image"),
    "colour": (SourceImage(bytes(10**5), 48, 64, "rgb8", 192), "a rgb8 image cannot stand for"),
    "unknown": (SourceImage(bytes(10**5), 48, 64, "y16", 128), "encoding 'y16' is not supported"),
    "file": (SourceImage(b"\xff\xd8", 0, 0, "jpeg", 0, compressed=True), "cannot be decoded"),
    "no_file": (SourceImage(b"", 0, 0, "png", 0, compressed=True), "cannot be decoded"),
}


@pytest.mark.parametrize(("with_depth", "with_thermal"), list(product((False, True), repeat=2)))
def test_present_says_which_cameras_took_part(recording, with_depth, with_thermal):
    frames = frame_set(
        depth=frame(DEPTH) if with_depth else None,
        thermal=frame(THERMAL) if with_thermal else None,
    )
    results = recording.run(frames)
    given = recording.engine.calls[0]
    np.testing.assert_array_equal(given["present"], [1, with_depth, with_thermal])
    assert given["present"].dtype == np.float32
    expected = {RGB} | ({DEPTH} if with_depth else set()) | ({THERMAL} if with_thermal else set())
    assert results.present == expected
    np.testing.assert_array_equal(given["rgb"], pixels(RGB))
    for name, there in (("depth", with_depth), ("thermal", with_thermal)):
        np.testing.assert_array_equal(given[name][..., 0], 9 if there else 0)
        assert not given[name][..., 1].any()
    assert results.problems == {}
    assert results.frames.depth is frames.depth
    assert results.frames.thermal is frames.thermal
    assert results.frames.rgb is frames.rgb


def test_inputs_are_as_the_artifact_says(recording, artifact):
    recording.run(frame_set(thermal=frame(THERMAL)))
    given = recording.engine.given
    assert given.keys() == artifact.inputs.keys()
    for name, spec in artifact.inputs.items():
        assert (given[name].dtype, given[name].shape) == (spec.dtype, spec.shape)
        assert given[name].flags.c_contiguous


def test_pixels_are_not_copied(recording):
    frames = frame_set(depth=frame(DEPTH), thermal=frame(THERMAL))
    recording.run(frames)
    for name, source in (
        ("rgb", frames.rgb),
        ("depth", frames.depth.frame),
        ("thermal", frames.thermal.frame),
    ):
        data = np.frombuffer(source.image.data, np.uint8)
        assert np.shares_memory(recording.engine.given[name], data)


def test_fused_is_rgb_and_thermal(pipeline):
    results = pipeline.run(frame_set(thermal=frame(THERMAL)))
    expected = np.minimum(pixels(RGB).astype(int) + 9, 255)
    np.testing.assert_array_equal(results.fused, expected)
    np.testing.assert_array_equal(results.registered_thermal, np.full((HEIGHT, WIDTH), 9))
    assert set(results.images) == {"fused", "registered_thermal"}


def test_without_thermal_rgb_is_unchanged(pipeline):
    pipeline.run(frame_set(thermal=frame(THERMAL)))
    results = pipeline.run(frame_set(depth=frame(DEPTH)))
    np.testing.assert_array_equal(results.fused, pixels(RGB))


@pytest.mark.parametrize("modality", [DEPTH, THERMAL])
@pytest.mark.parametrize(("image", "problem"), BAD_IMAGES.values(), ids=BAD_IMAGES.keys())
def test_a_damaged_companion_is_invalid_with_its_reason(pipeline, modality, image, problem):
    frames = frame_set(**{"depth": frame(DEPTH), str(modality): frame(modality, image)})
    results = pipeline.run(frames)
    assert modality not in results.present
    assert results.problems.keys() == {modality}
    assert results.problems[modality].startswith(f"{modality} image: ")
    assert problem in results.problems[modality]
    companion = results.frames.companion(modality)
    assert (companion.frame, companion.absence) == (None, Absence.INVALID)
    assert companion.age_ns == frames.companion(modality).age_ns
    other = THERMAL if modality is DEPTH else DEPTH
    assert results.frames.companion(other) is frames.companion(other)
    np.testing.assert_array_equal(results.fused, pixels(RGB))


@pytest.mark.parametrize("name", ["small", "truncated", "empty", "unknown", "file"])
def test_a_damaged_rgb_image_is_a_problem_not_an_error(recording, name):
    image, problem = BAD_IMAGES[name]
    image = dataclasses.replace(image, encoding=image.encoding.replace("mono16", "mono8"))
    if name == "truncated":
        image = dataclasses.replace(image, step=64)
    results = recording.run(frame_set(rgb=frame(RGB, image), thermal=frame(THERMAL)))
    np.testing.assert_array_equal(recording.engine.calls[0]["present"], [0, 0, 1])
    assert not recording.engine.calls[0]["rgb"].any()
    assert results.present == {THERMAL}
    assert results.problems[RGB].startswith("rgb image: ")
    assert problem in results.problems[RGB]


def test_all_problems_are_told(pipeline):
    image = BAD_IMAGES["truncated"][0]
    rgb, depth, thermal = (frame(modality, image) for modality in Modality)
    results = pipeline.run(frame_set(rgb=rgb, depth=depth, thermal=thermal))
    assert set(results.problems) == set(Modality)
    assert results.present == frozenset()


def test_a_mono8_camera_will_do_for_a_mono16_artifact(pipeline):
    image = SourceImage(bytes([21]) * HEIGHT * WIDTH, HEIGHT, WIDTH, "mono8", WIDTH)
    results = pipeline.run(frame_set(thermal=frame(THERMAL, image)))
    assert results.present == {RGB, THERMAL}
    np.testing.assert_array_equal(results.registered_thermal, np.full((HEIGHT, WIDTH), 21))


def test_the_thermal_range_is_carried_over_and_reset(pipeline):
    ranges = [pipeline.run(frame_set()).thermal_range for _ in range(3)]
    assert ranges == [(1, 2), (2, 3), (3, 4)]  # this graph counts frames
    pipeline.reset()
    assert pipeline.run(frame_set()).thermal_range == ranges[0]


def test_the_carried_range_is_given_to_the_next_run(recording):
    for _ in range(3):
        recording.run(frame_set())
    carried = [call["thermal_range"].tolist() for call in recording.engine.calls]
    assert carried == [[0, 0], [1, 1], [2, 2]]


def test_stages_are_measured(recording):
    started = time.perf_counter()
    stages = recording.run(frame_set(thermal=frame(THERMAL))).stages
    elapsed = time.perf_counter() - started
    assert list(stages) == ["prepare", "engine"]
    assert stages["prepare"] > 0
    assert stages["engine"] >= 0.005
    assert sum(stages.values()) <= elapsed


def test_an_engine_error_comes_out_and_the_next_run_is_well(recording):
    recording.run(frame_set())
    recording.engine.fails = True
    with pytest.raises(EngineError, match="out of memory"):
        recording.run(frame_set(thermal=frame(THERMAL)))
    recording.engine.fails = False
    results = recording.run(frame_set(depth=frame(DEPTH)))
    assert results.present == {RGB, DEPTH}
    # As if the failed run had not been, though it left its mark in the engine's buffer.
    np.testing.assert_array_equal(recording.engine.calls[2]["thermal_range"], [1, 1])
    assert results.thermal_range == (3, 3)


def test_a_graph_that_fails_can_be_run_again_after_a_reset(tmp_path, rig):
    artifact = open_artifact(write_artifact(tmp_path / "failing", fails_from=2))
    with open_engine(artifact, ON_CPU) as engine:
        pipeline = Pipeline(artifact, engine, rig)
        for _ in range(2):
            pipeline.run(frame_set())
        with pytest.raises(EngineError, match="onnxruntime failed"):
            pipeline.run(frame_set())
        pipeline.reset()
        results = pipeline.run(frame_set())
    np.testing.assert_array_equal(results.fused, pixels(RGB))
    assert results.thermal_range == (1, 2)


def test_a_camera_the_graph_does_not_take_is_left_alone(artifact, rig):
    inputs = {name: spec for name, spec in artifact.inputs.items() if name != "depth"}
    lean = dataclasses.replace(artifact, inputs=inputs)
    pipeline = Pipeline(lean, RecordingEngine(lean), rig)
    frames = frame_set(depth=frame(DEPTH, BAD_IMAGES["truncated"][0]))
    results = pipeline.run(frames)
    assert "depth" not in pipeline.engine.given
    assert results.present == {RGB}
    assert results.problems == {}
    assert results.frames.depth is frames.depth


def test_the_rig_is_packed_for_the_graph(artifact, rig):
    packing = ("thermal_from_rgb_h11", "thermal_from_rgb_h01")
    spec = TensorSpec("rig", np.dtype("float32"), (2,))
    packed = dataclasses.replace(
        artifact, rig_packing=packing, inputs={**artifact.inputs, "rig": spec}
    )
    pipeline = Pipeline(packed, RecordingEngine(packed), rig)
    pipeline.run(frame_set())
    np.testing.assert_array_equal(pipeline.engine.given["rig"], np.float32([1, 0]))
    bare = dataclasses.replace(rig, thermal_from_rgb=None)
    with pytest.raises(RigError, match="thermal_from_rgb"):
        Pipeline(packed, RecordingEngine(packed), bare)
    Pipeline(artifact, RecordingEngine(artifact), bare)  # nobody asks for it


def test_no_registered_thermal_where_the_graph_gives_none(tmp_path, rig):
    artifact = open_artifact(write_artifact(tmp_path / "lean", registered_thermal=False))
    with open_engine(artifact, ON_CPU) as engine:
        results = Pipeline(artifact, engine, rig).run(frame_set(thermal=frame(THERMAL)))
    assert results.registered_thermal is None
    assert set(results.images) == {"fused"}


@pytest.fixture(scope="module")
def finder(tmp_path_factory) -> Artifact:
    folder = tmp_path_factory.mktemp("finder") / "finder"
    return open_artifact(write_artifact(folder, saliency=True, detections=True))


def test_saliency_and_detections(finder, rig):
    with open_engine(finder, ON_CPU) as engine:
        pipeline = Pipeline(finder, engine, rig, min_score=0.5)
        results = pipeline.run(frame_set(thermal=frame(THERMAL)))
        np.testing.assert_array_equal(results.saliency, np.full((HEIGHT, WIDTH), 9))
        # The third of the candidates is the first one once more, the fourth scores too little.
        np.testing.assert_array_equal(results.detections.boxes, CANDIDATES["boxes"][:2])
        assert results.detections.classes.tolist() == [0, 1]
        np.testing.assert_array_equal(results.detections.depths, [3, np.nan])
        assert list(results.stages) == ["prepare", "engine", "detections"]
        assert results.stages["detections"] > 0
        pipeline.min_score = 0.85
        assert len(pipeline.run(frame_set()).detections) == 1
        assert len(results.detections) == 2  # its arrays are its own
        pipeline.min_score = 0.0
        assert len(pipeline.run(frame_set()).detections) == 3  # padding is no box


def test_the_overlap_is_that_of_the_manifest(finder, rig):
    lenient = dataclasses.replace(finder, nms_iou=0.95)
    with open_engine(lenient, ON_CPU) as engine:
        assert len(Pipeline(lenient, engine, rig, 0.5).run(frame_set()).detections) == 3


def test_nothing_is_said_of_what_the_graph_does_not_look_for(pipeline):
    results = pipeline.run(frame_set())
    assert results.saliency is None
    assert results.detections is None
    assert "detections" not in results.stages


def test_boxes_without_depths(tmp_path, rig):
    artifact = open_artifact(write_artifact(tmp_path / "a", detections=True, box_depth=False))
    with open_engine(artifact, ON_CPU) as engine:
        found = Pipeline(artifact, engine, rig, 0.5).run(frame_set()).detections
    assert len(found) == 2
    assert np.isnan(found.depths).all()


def test_an_engine_that_computes_nothing_finds_nothing(finder, rig):
    with open_engine(finder, EngineOptions("pass_through")) as engine:
        results = Pipeline(finder, engine, rig).run(frame_set())
    assert len(results.detections) == 0
    assert not results.saliency.any()


@pytest.mark.parametrize("kind", [-1, 2])
def test_a_class_without_a_name_is_a_fault_of_the_graph(tmp_path, rig, kind):
    wrong = {**CANDIDATES, "classes": np.array([0, kind, 0, 0, 0], np.int32)}
    artifact = open_artifact(write_artifact(tmp_path / "a", detections=True, candidates=wrong))
    with open_engine(artifact, ON_CPU) as engine:
        pipeline = Pipeline(artifact, engine, rig, min_score=0.5)
        with pytest.raises(ArtifactError, match=f"class {kind}, but its manifest names 2 classes"):
            pipeline.run(frame_set())
        pipeline.min_score = 0.85  # what is left out does no harm
        assert len(pipeline.run(frame_set()).detections) == 1
    guarded = GuardedPipeline(lambda: Pipeline(artifact, open_engine(artifact, ON_CPU), rig))
    assert guarded.run(frame_set()) is None
    assert guarded.state is EngineState.FAILED
    assert f"class {kind}, but its manifest names 2 classes" in guarded.problem


def test_an_engine_that_goes_on_failing_gives_way_to_its_fallback(tmp_path, artifact, rig):
    failing = open_artifact(write_artifact(tmp_path / "failing", fails_from=0))
    now = 0.0
    reasons: list[str] = []

    def fall_back(reason: str) -> Pipeline:
        reasons.append(reason)
        options = EngineOptions("abacus", threads=1, fallback="onnxruntime")
        return Pipeline(artifact, open_fallback(artifact, options, reason), rig)

    guarded = GuardedPipeline(
        lambda: Pipeline(failing, open_engine(failing, ON_CPU), rig),
        clock=lambda: now,
        open_fallback=fall_back,
    )
    failures = 0
    while guarded.run(frame_set()) is None:
        now += 60
        failures += 1
        assert failures < 50
    assert guarded.state is EngineState.RUNNING
    assert reasons == [guarded.pipeline.engine.stands_in.partition(": ")[2]]
    assert reasons[0].startswith("onnxruntime failed: ")
    guarded.close()


def test_boxes_beyond_the_picture_are_cut_to_it(tmp_path, rig):
    changed = CANDIDATES["boxes"].copy()
    changed[:2] = [[-8, -4, 24, 28], [30, 10, 90, 70]]
    changed[3] = [64, 2, 90, 20]  # beside the picture
    wrong = {**CANDIDATES, "boxes": changed}
    artifact = open_artifact(write_artifact(tmp_path / "a", detections=True, candidates=wrong))
    with open_engine(artifact, ON_CPU) as engine:
        found = Pipeline(artifact, engine, rig).run(frame_set()).detections
    # The third overlaps the first by less than half where that is not cut.
    expected = [[0, 0, 24, 28], [30, 10, 64, 48], [9, 5, 25, 29]]
    np.testing.assert_array_equal(found.boxes, expected)


def test_one_class_does_not_crowd_out_another(tmp_path, rig):
    count = MOST_DETECTIONS + 20
    place = np.arange(count)
    corners = np.column_stack([place % 16 * 4, place // 16 * 4]).astype(np.float32)
    many = {
        "boxes": np.concatenate([corners, corners + 3], axis=1),
        "scores": np.linspace(0.9, 0.1, count, dtype=np.float32),
        "classes": np.where(place < count - 5, 0, 1).astype(np.int32),
        "box_depth": np.full(count, np.nan, np.float32),
    }
    artifact = open_artifact(write_artifact(tmp_path / "a", detections=True, candidates=many))
    with open_engine(artifact, ON_CPU) as engine:
        found = Pipeline(artifact, engine, rig).run(frame_set()).detections
    assert np.bincount(found.classes).tolist() == [MOST_DETECTIONS, 5]
