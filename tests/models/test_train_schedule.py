"""Learning rates of the published trainings, by their formulas."""

from __future__ import annotations

import math

import pytest

from mmfusion.train.schedule import efficientmfd_schedule, haf_schedule, s4fusion_schedule


def test_s4fusion_warms_up_and_falls_along_a_cosine():
    steps, warmup, peak = 1000, 100, 1.5e-3
    rates = [peak * s4fusion_schedule(steps, warmup)(step) for step in range(steps)]
    for s, rate in enumerate(rates, start=1):
        if s < warmup:
            expected = 3e-4 + s / warmup * (1.5e-3 - 3e-4)
        else:
            turn = math.cos(math.pi * (s - warmup) / (steps - warmup))
            expected = 6e-4 + (1.5e-3 - 6e-4) * 0.5 * (1 + turn)
        assert rate == pytest.approx(expected)
    assert max(rates) == rates[warmup - 1] == pytest.approx(1.5e-3)
    assert rates[-1] == pytest.approx(6e-4)


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 1), (5, 5), (5, 0)])
def test_s4fusion_schedule_of_short_trainings_stays_in_its_range(steps, warmup):
    factor = s4fusion_schedule(steps, warmup)
    assert all(0.2 <= factor(step) <= 1 for step in range(steps))


def test_haf_falls_to_a_tenth_from_each_hundredth_epoch_on():
    factor = haf_schedule(epoch_steps=3)
    by_epoch = {1 + step // 3: factor(step) for step in range(3 * 210)}
    assert by_epoch[1] == by_epoch[99] == 1
    assert by_epoch[100] == by_epoch[199] == pytest.approx(0.1)
    assert by_epoch[200] == pytest.approx(0.01)
    assert factor(3 * 99 - 1) == 1
    assert factor(3 * 99) == pytest.approx(0.1)


def test_efficientmfd_warms_up_and_falls_in_steps():
    factor = efficientmfd_schedule(15000)
    assert [factor(step) for step in (0, 500)] == pytest.approx([0.01, 0.505])
    assert [factor(step) for step in (1000, 4999, 5000, 9999, 10000, 14999)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )
