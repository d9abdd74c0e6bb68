"""Limits of participation and batteries: hand-made rounds, and contradictions in a plan."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.coordinator.limits import LimitWatch, check_limits
from anabranch.coordinator.stop import Progress
from anabranch.coordinator.store import Column
from anabranch.coordinator.tally import Tally, gini
from anabranch.plan import Plan
from anabranch.plan.limits import Limits

ROUND: dict[str, Column] = {
    "client": ["a", "b", "c", "d", "e"],
    "fate": ["merged", "merged late", "too late", "lost", ""],
    "device.work": [1.0, 0.5, 1.0, None, None],
    "device.share": [0.01, 0.06, 0.02, None, None],
}


def test_a_round_is_added_up() -> None:
    tally = Tally.of(10, [ROUND, ROUND], caps=[0.05])
    assert (tally.asked, tally.updates) == (8, 4)  # e was evaluated only
    assert tally.participation == 0.5
    assert tally.completeness == pytest.approx(0.75)
    assert tally.tasks_with_battery == 6
    assert tally.above(0.05) == pytest.approx(2 / 6)
    assert tally.largest_share == 0.06
    assert tally.median_share == pytest.approx(0.02, rel=0.01)
    # Two clients of ten have all: sorted 0 x 8, 2, 2.
    assert tally.unevenness == pytest.approx((2 * (9 * 2 + 10 * 2) / 4 - 11) / 10)


def test_limits_of_devices() -> None:
    limits = Limits(
        min_participation=0.5,
        min_completeness=0.8,
        max_gini=0.9,
        max_battery=0.05,
        battery_misses=0.4,
        max_median_battery=0.02,
    )
    watch = LimitWatch.over(limits, 10, [ROUND])
    progress = Progress(asked=8, merged=4)
    checks = {check.name: check for check in watch.after(ROUND, progress)}
    assert {name: check.met for name, check in checks.items()} == {
        "min_participation": True,
        "min_completeness": False,
        "max_gini": True,
        "max_battery": True,
        "max_median_battery": checks["max_median_battery"].met,
    }
    assert checks["min_participation"].beside == "mean completeness 0.750, Gini 0.800"
    assert checks["max_battery"].measured == pytest.approx(1 / 3)
    strict = LimitWatch.over(Limits(max_battery=0.05), 10, [ROUND]).checks(progress)[0]
    assert (strict.met, strict.measured) == (False, 0.06)
    loose = LimitWatch.over(Limits(max_battery=0.07), 10, [ROUND]).checks(progress)[0]
    assert loose.met


def test_without_devices_battery_limits_are_missed_and_work_counts_as_whole() -> None:
    plain: dict[str, Column] = {"client": ["a", "b"], "fate": ["merged", "merged"]}
    limits = Limits(max_battery=0.05, min_completeness=1.0)
    whole, battery = LimitWatch.over(limits, 2, [plain]).checks(Progress(asked=2, merged=2))
    assert whole.met
    assert (battery.met, battery.measured) == (False, None)
    assert not check_limits(Limits(max_gini=0.5), Progress())[0].met


@given(st.lists(st.floats(0, 100), min_size=1, max_size=30))
def test_gini_is_the_mean_difference(values: list[float]) -> None:
    counts = np.array(values)
    if counts.sum() < 1e-6:
        assert gini(counts) == pytest.approx(0, abs=1)
        return
    differences = np.abs(counts[:, None] - counts[None, :]).sum()
    expected = differences / (2 * len(counts) * counts.sum())
    assert gini(counts) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("tables", "why"),
    [
        ({"limits": {"max_battery": 0.02, "max_median_battery": 0.03}}, "max_median_battery"),
        ({"limits": {"battery_misses": 0.02}}, "battery_misses"),
        ({"limits": {"rounds_to_target": 5}}, "stop.target"),
        (
            {"limits": {"rounds_to_target": 50}, "stop": {"metric": "accuracy", "target": 0.8}},
            "ends after 20 rounds",
        ),
        ({"limits": {"max_battery": 0.02}, "admission": {"max_battery": 0.05}}, "admission"),
        (
            {
                "limits": {"min_participation": 0.9},
                "rounds": {"cohort": 10, "over_selection": 1.3},
                "devices": {},
            },
            "never reached",
        ),
    ],
)
def test_limits_that_contradict_the_plan_are_refused(tables: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Plan.model_validate({"data": {}, "model": {}, **tables})


def test_over_selection_with_a_late_window_can_reach_participation() -> None:
    tables = {
        "limits": {"min_participation": 0.9},
        "rounds": {"cohort": 10, "over_selection": 1.3, "late_window": 1},
        "devices": {},
    }
    assert Plan.model_validate({"data": {}, "model": {}, **tables}).limits.min_participation == 0.9
