"""What the diagnostics say, and how loud."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytestmark = pytest.mark.ros

pytest.importorskip("diagnostic_msgs.msg", reason="ROS 2 messages are not installed")

from diagnostic_msgs.msg import DiagnosticStatus

from mmfusion_ros.core.frames import Absence, Companion, Frame, FrameSet, Modality, SourceImage
from mmfusion_ros.core.guarded_pipeline import EngineState
from mmfusion_ros.core.results import Results
from mmfusion_ros.core.synchronizer import Synchronizer, SynchronizerConfig
from mmfusion_ros.diagnostics import (
    FrameTally,
    ModalityTally,
    engine_status,
    inputs_status,
    lifecycle_status,
    modality_status,
    synchronizer_status,
)
from mmfusion_ros.inputs import InputStatus

OK, WARN = DiagnosticStatus.OK, DiagnosticStatus.WARN
ERROR, STALE = DiagnosticStatus.ERROR, DiagnosticStatus.STALE
IMAGE = SourceImage(b"", 0, 0, "", 0)


def values(status):
    return {pair.key: pair.value for pair in status.values}


def results(absence=None, *, present=("rgb", "depth", "thermal"), problems=()):
    rgb = Frame(Modality.RGB, 0, "", IMAGE)
    depth = Companion(Frame(Modality.DEPTH, 0, "", IMAGE), None, 1_000_000)
    thermal = Companion(Frame(Modality.THERMAL, 0, "", IMAGE), None, 2_000_000)
    if absence is not None:
        age = None if absence is Absence.ABSENT else 40_000_000
        thermal = Companion(None, absence, age)
    return Results(
        frames=FrameSet(rgb, depth, thermal),
        fused=np.zeros((1, 1, 3), np.uint8),
        registered_thermal=None,
        thermal_range=(0.0, 1.0),
        present=frozenset(map(Modality, present)),
        stages={},
        problems=dict(problems),
    )


def thermal_status(*noted):
    tally = FrameTally()
    for entry in noted:
        tally.note(entry)
    return modality_status(Modality.THERMAL, tally.take()[Modality.THERMAL])


def test_a_camera_that_takes_part_is_ok():
    status = thermal_status(results(), results())
    assert (status.level, status.message) == (OK, "used in 2 sets")
    assert values(status) == {"used": "2", "age_ms": "2.0"}


@pytest.mark.parametrize(
    ("absence", "text"),
    [
        (Absence.ABSENT, "missing in 1 of 2 sets: absent"),
        (Absence.LATE, "missing in 1 of 2 sets: late, age 40.0 ms"),
        (Absence.STALE, "missing in 1 of 2 sets: stale, age 40.0 ms"),
        (Absence.FROZEN, "missing in 1 of 2 sets: frozen, age 40.0 ms"),
    ],
)
def test_a_missing_camera_is_a_warning(absence, text):
    status = thermal_status(results(), results(absence, present=("rgb", "depth")))
    assert (status.level, status.message) == (WARN, text)


def test_an_image_that_cannot_be_used_is_an_error_that_says_why():
    problem = {Modality.THERMAL: "thermal image: truncated"}
    broken = results(Absence.INVALID, present=("rgb",), problems=problem)
    status = thermal_status(results(), broken)
    assert status.level == ERROR
    assert status.message == "missing in 1 of 2 sets: invalid (thermal image: truncated)"


def test_a_damaged_rgb_image_is_an_error():
    tally = FrameTally()
    tally.note(results(present=(), problems={Modality.RGB: "rgb image: truncated"}))
    status = modality_status(Modality.RGB, tally.take()[Modality.RGB])
    assert status.level == ERROR
    assert "invalid (rgb image: truncated)" in status.message


def test_no_rgb_frames_is_an_error_and_tells_nothing_about_the_others():
    tallies = FrameTally().take()
    assert modality_status(Modality.RGB, tallies[Modality.RGB]).level == ERROR
    assert modality_status(Modality.DEPTH, tallies[Modality.DEPTH]).level == STALE


def test_no_set_in_a_period_of_a_slow_engine_is_no_fault_of_the_cameras():
    tallies = FrameTally().take()
    for modality in Modality:
        status = modality_status(modality, tallies[modality], busy=True)
        assert (status.level, status.message[:19]) == (WARN, "no set was finished")


def test_sets_that_are_finished_count_while_another_is_processed():
    tally = ModalityTally(used=2)
    assert modality_status(Modality.RGB, tally, busy=True).message == "used in 2 sets"


def test_taking_the_tally_begins_a_new_one():
    tally = FrameTally()
    tally.note(results())
    assert tally.take()[Modality.RGB].used == 1
    assert tally.take()[Modality.RGB].used == 0


@pytest.mark.parametrize(("problem", "level"), [("", OK), ("no such artifact", ERROR)])
def test_a_node_that_is_not_active(problem, level):
    status = lifecycle_status("not configured", problem)
    assert status.level == level
    assert status.message.startswith("not configured")
    assert status.message.endswith(problem)


def guarded_by(state, problem):
    return SimpleNamespace(
        state=state,
        problem=problem,
        failures=3,
        skipped=4,
        pipeline=SimpleNamespace(
            engine=SimpleNamespace(backend="b", precision="fp32", gate=None, stands_in=""),
            artifact=SimpleNamespace(name="a", digest="0123456789abcdef"),
        ),
    )


@pytest.mark.parametrize(("busy_s", "level"), [(None, OK), (12.0, OK), (40.0, ERROR)])
def test_an_engine_that_does_not_come_back_is_an_error(busy_s, level):
    status = engine_status(guarded_by(EngineState.RUNNING, ""), busy_s)
    assert status.level == level
    assert (status.message == "b has been at work on one set for 40 s") == (level == ERROR)


@pytest.mark.parametrize(
    ("state", "problem", "level", "message"),
    [
        (EngineState.RUNNING, "", OK, "b runs a"),
        (EngineState.RUNNING, "out of memory", ERROR, "running: out of memory"),
        (EngineState.REOPENING, "out of memory", ERROR, "reopening: out of memory"),
        (EngineState.FAILED, "out of memory", ERROR, "failed: out of memory"),
    ],
)
def test_the_engine_is_an_error_until_it_has_run_again(state, problem, level, message):
    status = engine_status(guarded_by(state, problem))
    assert (status.level, status.message) == (level, message)
    assert values(status)["failures"] == "3"
    assert values(status)["sets_skipped"] == "4"
    assert values(status)["digest"] == "0123456789ab"


def test_an_engine_that_stands_in_is_a_warning():
    engine = SimpleNamespace(
        backend="onnxruntime", precision="fp32", gate=None, stands_in="instead of tensorrt fp32: x"
    )
    guarded = SimpleNamespace(
        state=EngineState.RUNNING,
        problem="",
        failures=0,
        skipped=0,
        pipeline=SimpleNamespace(engine=engine, artifact=SimpleNamespace(name="a", digest="0")),
    )
    status = engine_status(guarded)
    assert status.level == WARN
    assert status.message == "onnxruntime runs a instead of tensorrt fp32: x"


def test_the_synchroniser_counts_and_warns_of_new_drops_only():
    sets = []
    synchronizer = Synchronizer(SynchronizerConfig(), sets.append)
    synchronizer.add(Frame(Modality.RGB, 10**9, "", IMAGE), 0)
    synchronizer.add(Frame(Modality.RGB, 10**9, "", IMAGE), 0)
    synchronizer.flush()
    status = synchronizer_status(synchronizer.statistics(), 5, 0)
    assert (status.level, status.message) == (OK, "1 sets")
    counts = values(status)
    assert counts["rgb_received"] == "2"
    assert counts["rgb_dropped_duplicate"] == "1"
    assert counts["thermal_absent"] == "1"
    assert counts["sets_dropped"] == "5"
    status = synchronizer_status(synchronizer.statistics(), 5, 2)
    assert status.level == WARN
    assert "2 sets dropped" in status.message


HEARD = InputStatus("/rgb/image", 1, "reliable", ())
SILENT = InputStatus("/thermal/image", 0, "", ())
OPTIONAL = InputStatus("/rgb/camera_info", 0, "", (), optional=True)
UNHEARD = InputStatus("/depth/image", 1, "reliable", ("/driver is not heard",))


@pytest.mark.parametrize(
    ("inputs", "level", "text"),
    [
        ([HEARD, OPTIONAL], OK, "all topics are published"),
        ([HEARD, SILENT, OPTIONAL], WARN, "nobody publishes /thermal/image"),
        ([HEARD, SILENT, UNHEARD], ERROR, "/driver is not heard"),
    ],
)
def test_inputs(inputs, level, text):
    status = inputs_status(inputs)
    assert (status.level, status.message) == (level, text)
    assert values(status)["/rgb/image"] == "1 publishers, reliable"
