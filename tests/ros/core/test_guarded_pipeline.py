"""A failing engine is closed and opened again, with patience and an end."""

from __future__ import annotations

import pytest

from mmfusion_ros.core.engines import Cancelled
from mmfusion_ros.core.errors import ArtifactError, EngineError
from mmfusion_ros.core.guarded_pipeline import (
    BACK_OFF,
    LONGEST_GAP,
    STEADY,
    EngineState,
    GuardedPipeline,
)


class Engine:
    def __init__(self):
        self.closed = 0

    def close(self):
        self.closed += 1


class Pipeline:
    def __init__(self, fails: bool):
        self.fault: Exception = EngineError("out of steam")
        self.engine = Engine()
        self.fails = fails
        self.min_score = self.ran_with = 0.0

    def run(self, frames):
        self.ran_with = self.min_score
        if self.fails:
            raise self.fault
        return frames

    def reset(self):
        pass


class Bench:
    """Opens pipelines as told: "good", "bad" (fails when run) or "shut" (cannot be opened)."""

    def __init__(self, *plan: str, fallback: str = ""):
        self.plan = list(plan)
        self.fallback = fallback
        self.reasons: list[str] = []
        self.now = 0.0
        self.opened: list[Pipeline] = []
        self.guarded = GuardedPipeline(
            self.open,
            clock=lambda: self.now,
            open_fallback=self.open_fallback if fallback else None,
        )

    def open(self):
        kind = self.plan.pop(0) if len(self.plan) > 1 else self.plan[0]
        if kind == "shut":
            raise EngineError("no fuel")
        self.opened.append(Pipeline(fails=kind == "bad"))
        return self.opened[-1]

    def open_fallback(self, reason):
        self.reasons.append(reason)
        self.plan = [self.fallback]
        return self.open()


def test_gives_what_the_pipeline_gives():
    bench = Bench("good")
    assert bench.guarded.run("frames") == "frames"
    assert bench.guarded.state is EngineState.RUNNING


def test_the_least_score_outlives_the_pipeline():
    bench = Bench("bad", "good")
    bench.guarded.min_score = 0.75
    bench.guarded.run("a")
    bench.now += BACK_OFF[0]
    bench.guarded.run("b")
    bench.guarded.min_score = 0.25
    assert [pipeline.ran_with for pipeline in bench.opened] == [0.75, 0.75]
    bench.guarded.run("c")
    assert bench.opened[1].ran_with == 0.25


def test_what_the_first_opening_raises_comes_out():
    with pytest.raises(EngineError, match="no fuel"):
        Bench("shut")


def test_an_opening_that_is_cancelled_is_no_failure():
    def cancelled():
        raise Cancelled

    reasons = []
    with pytest.raises(Cancelled):
        GuardedPipeline(cancelled, open_fallback=reasons.append)
    assert reasons == []
    bench = Bench("bad")
    bench.guarded.run("a")
    bench.now += BACK_OFF[0]
    bench.guarded._open = cancelled
    with pytest.raises(Cancelled):
        bench.guarded.run("b")
    assert bench.guarded.failures == 1


def test_a_failed_engine_is_closed_and_opened_after_the_back_off():
    bench = Bench("bad", "good")
    assert bench.guarded.run("a") is None
    assert bench.opened[0].engine.closed == 1
    assert (bench.guarded.state, bench.guarded.problem) == (EngineState.REOPENING, "out of steam")
    assert bench.guarded.run("b") is None
    bench.now += BACK_OFF[0]
    assert bench.guarded.run("c") == "c"
    assert (bench.guarded.state, bench.guarded.problem) == (EngineState.RUNNING, "")
    assert (bench.guarded.failures, bench.guarded.skipped) == (1, 2)


@pytest.mark.parametrize("kind", ["bad", "shut"])
def test_gives_up_after_the_last_back_off(kind, caplog):
    bench = Bench("bad", kind)
    attempts = 0
    while bench.guarded.state is not EngineState.FAILED:
        assert bench.guarded.run("x") is None
        bench.now += 60
        attempts += 1
        assert attempts < 50
    assert attempts == len(BACK_OFF) + 1
    bench.now += 1e6
    assert bench.guarded.run("y") is None
    assert len(bench.opened) == (1 if kind == "shut" else len(BACK_OFF) + 1)
    assert all(pipeline.engine.closed for pipeline in bench.opened)
    assert caplog.text.count("stays closed") == 1


def test_what_is_the_artifacts_fault_is_not_tried_again(caplog):
    bench = Bench("bad", "good")
    bench.opened[0].fault = ArtifactError("class 7 has no name")
    for _ in range(20):
        assert bench.guarded.run("x") is None
        bench.now += 60
    assert (bench.guarded.state, bench.guarded.problem) == (
        EngineState.FAILED,
        "class 7 has no name",
    )
    assert (bench.guarded.failures, bench.guarded.skipped) == (1, 20)
    assert len(bench.opened) == bench.opened[0].engine.closed == 1
    assert caplog.text.count("class 7 has no name; it stays closed") == 1


def run_for(bench, seconds):
    """Run frames ten times a second; how many gave results."""
    given = 0
    for _ in range(round(10 * seconds)):
        given += bench.guarded.run("x") is not None
        bench.now += 0.1
    return given


@pytest.mark.parametrize("fallback", ["", "good"])
def test_an_engine_that_runs_for_a_while_has_all_patience_again(fallback):
    bench = Bench("good", fallback=fallback)
    for _ in range(3 * len(BACK_OFF)):
        bench.guarded.pipeline.fails = True
        assert bench.guarded.run("x") is None
        bench.now += BACK_OFF[0]
        assert run_for(bench, STEADY + 1) == 10 * (STEADY + 1)
    assert bench.guarded.state is EngineState.RUNNING
    assert bench.reasons == []


@pytest.mark.parametrize("fallback", ["", "good"])
def test_an_engine_that_fails_soon_after_each_opening_is_given_up(fallback, caplog):
    bench = Bench("good", fallback=fallback)
    for _ in range(len(BACK_OFF) + 1):
        assert bench.reasons == []
        assert run_for(bench, STEADY - 1)
        bench.guarded.pipeline.fails = True
        assert bench.guarded.run("x") is None
        bench.now += max(BACK_OFF)
    if fallback:
        assert bench.guarded.run("x") == "x"
        assert bench.reasons == ["out of steam"]
        assert "stays closed" not in caplog.text
    else:
        assert bench.guarded.state is EngineState.FAILED
        assert "failed 6 times, never running well for 10 s in between" in caplog.text


@pytest.mark.parametrize(("good_runs", "pause"), [(1, 3600.0), (2, 20.0)])
def test_what_fails_after_few_runs_is_given_up_however_rare_they_are(good_runs, pause):
    """Standing still is no running well."""
    bench = Bench("good", fallback="good")
    for _ in range(len(BACK_OFF) + 1):
        assert bench.reasons == []
        for fails in (*[False] * good_runs, True):
            bench.guarded.pipeline.fails = fails
            bench.guarded.run("x")
            bench.now += pause
    bench.guarded.run("x")
    assert bench.reasons == ["out of steam"]


def test_an_engine_that_runs_well_seldom_has_all_patience_again():
    bench = Bench("good", fallback="good")
    for _ in range(3 * len(BACK_OFF)):
        bench.guarded.pipeline.fails = True
        assert bench.guarded.run("x") is None
        for _ in range(round(STEADY / LONGEST_GAP) + 1):
            bench.now += 20
            assert bench.guarded.run("x") == "x"
    assert bench.reasons == []


def test_failures_are_logged_once_each(caplog):
    bench = Bench("bad", "good")
    for _ in range(10):
        bench.guarded.run("x")
    assert caplog.text.count("out of steam") == 1


def test_an_engine_that_cannot_be_opened_gives_way_at_once():
    bench = Bench("shut", fallback="good")
    assert bench.reasons == ["no fuel"]
    assert bench.guarded.state is EngineState.RUNNING
    assert bench.guarded.run("frames") == "frames"


@pytest.mark.parametrize("kind", ["bad", "shut"])
def test_an_engine_that_goes_on_failing_gives_way(kind, caplog):
    bench = Bench("bad", kind, fallback="good")
    attempts = 0
    while bench.guarded.run("x") is None:
        bench.now += 60
        attempts += 1
        assert attempts < 50
    # It has had all of the patience before.
    assert attempts == len(BACK_OFF) + 1
    assert len(bench.reasons) == 1
    assert bench.reasons[0] in {"out of steam", "no fuel"}
    assert (bench.guarded.state, bench.guarded.problem) == (EngineState.RUNNING, "")
    assert all(pipeline.engine.closed for pipeline in bench.opened[:-1])
    assert not bench.opened[-1].engine.closed
    assert "stays closed" not in caplog.text


def test_an_engine_that_recovers_does_not_give_way():
    bench = Bench("bad", "bad", "good", fallback="good")
    for _ in range(5):
        bench.guarded.run("x")
        bench.now += 60
    assert bench.reasons == []


@pytest.mark.parametrize("fallback", ["bad", "shut"])
def test_a_fallback_that_fails_too_is_the_end(fallback, caplog):
    bench = Bench("bad", fallback=fallback)
    attempts = 0
    while bench.guarded.state is not EngineState.FAILED:
        assert bench.guarded.run("x") is None
        bench.now += 60
        attempts += 1
        assert attempts < 50
    assert set(bench.reasons) == {"out of steam"}
    assert all(pipeline.engine.closed for pipeline in bench.opened)
    assert caplog.text.count("stays closed") == 1


def test_neither_can_be_opened():
    with pytest.raises(EngineError, match="no fuel"):
        Bench("shut", fallback="shut")


def test_the_artifacts_fault_is_no_reason_to_give_way():
    bench = Bench("bad", fallback="good")
    bench.opened[0].fault = ArtifactError("class 7 has no name")
    bench.guarded.run("x")
    assert (bench.guarded.state, bench.reasons) == (EngineState.FAILED, [])
