"""What is said of the clock."""

from __future__ import annotations

from pathlib import Path

import pytest
from finders import files, is_helpful, only

from mmfusion_ros.checks import clock
from mmfusion_ros.checks.clock import ClockPair, check_synchronisation, judge_jump
from mmfusion_ros.checks.subject import Setup

SECOND = 1_000_000_000


def test_a_steady_clock_is_fine():
    before = ClockPair.read()
    assert judge_jump(before, ClockPair.read()).level == "ok"


@pytest.mark.parametrize("jump", [-3 * SECOND, SECOND // 100])
def test_a_clock_that_was_set_is_a_warning(jump):
    before = ClockPair(10 * SECOND, 5 * SECOND)
    after = ClockPair(12 * SECOND + jump, 7 * SECOND)
    finding = judge_jump(before, after)
    assert finding.level == "warning"
    assert finding.values["jump_ms"] == jump / 1e6
    assert is_helpful(finding)


def test_the_kernel_of_this_machine_is_asked():
    finding = only(check_synchronisation(Setup(root=Path("/"))))
    assert finding.level in {"ok", "note", "skipped"}


@pytest.mark.parametrize(
    ("kernel", "level", "words"),
    [
        ((True, 1500), "ok", "synchronised by chrony, to 1.5 ms"),
        ((False, 16000000), "note", "though there is chrony"),
        (None, "skipped", "does not tell"),
    ],
)
def test_what_the_kernel_says_counts(tmp_path, monkeypatch, kernel, level, words):
    monkeypatch.setattr(clock, "_kernel_says", lambda: kernel)
    files(tmp_path, run__chrony__pid=1)
    finding = only(check_synchronisation(Setup(root=tmp_path)))
    assert finding.level == level
    assert words in finding.found


def test_without_any_service_none_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(clock, "_kernel_says", lambda: (False, 0))
    finding = only(check_synchronisation(Setup(root=tmp_path)))
    assert finding.found == "the clock is not synchronised"
    assert is_helpful(finding)
