"""Stop rules, limits, policies and the release door: pure functions with hand-made cases."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.algorithms import FedAdam, FedAvg
from anabranch.coordinator.limits import check_limits
from anabranch.coordinator.policies import Buffered, Situation, Synchronous
from anabranch.coordinator.state import RunState
from anabranch.coordinator.stop import Progress
from anabranch.fleet import select_uniform
from anabranch.plan.evaluation import StopPlan
from anabranch.plan.limits import Limits
from anabranch.privacy import ReleaseDoor
from anabranch.updates import Section, Sections, Total


def watch(rule: StopPlan, values: list[float]) -> Progress:
    progress = Progress()
    for number, value in enumerate(values, start=1):
        progress = progress.after_evaluation(rule, number, value)
    return progress


def test_patience_counts_evaluations_without_improvement() -> None:
    rule = StopPlan(metric="accuracy", patience=2)
    progress = watch(rule, [0.5, 0.7, 0.6, 0.7])
    assert (progress.best, progress.best_round, progress.stale) == (0.7, 2, 2)
    assert "no better accuracy in 2" in progress.reason_to_stop(rule, 4, 10)
    assert not watch(rule, [0.5, 0.7, 0.6]).reason_to_stop(rule, 3, 10)


def test_min_delta_decides_what_improves() -> None:
    rule = StopPlan(metric="loss", patience=1, min_delta=0.1)
    assert watch(rule, [1.0, 0.95]).stale == 1
    assert watch(rule, [1.0, 0.85]).stale == 0


def test_target_is_noted_once_and_stops_only_when_asked() -> None:
    rule = StopPlan(metric="accuracy", target=0.8)
    progress = watch(rule, [0.5, 0.81, 0.7, 0.9])
    assert progress.reached == 2
    assert "target 0.8 of accuracy reached in round 2" in progress.reason_to_stop(rule, 2, 10)
    noted = StopPlan(metric="accuracy", target=0.8, at_target=False)
    assert not progress.reason_to_stop(noted, 4, 10)
    assert progress.reason_to_stop(noted, 10, 10) == "all rounds done"


def test_time_ends_a_run_in_good_order() -> None:
    rule = StopPlan(max_seconds=5.0)
    assert "time limit" in replace(Progress(), seconds=5.1).reason_to_stop(rule, 1, 10)
    assert not replace(Progress(), seconds=4.9).reason_to_stop(rule, 1, 10)


def test_limits_are_measured_and_a_missing_measurement_misses() -> None:
    limits = Limits(
        rounds_to_target=10, max_update_bytes=1000, min_participation=0.9, max_seconds=60.0
    )
    good = Progress(reached=7, asked=100, merged=95, largest_update=900, seconds=59.0)
    assert [check.met for check in check_limits(limits, good)] == [True] * 4
    bad = Progress(reached=0, asked=100, merged=80, largest_update=1001, seconds=61.0)
    checks = {check.name: check for check in check_limits(limits, bad)}
    assert not any(check.met for check in checks.values())
    assert checks["rounds_to_target"].measured is None
    assert checks["min_participation"].measured == pytest.approx(0.8)
    assert check_limits(Limits(), bad) == ()


def test_the_synchronous_policy_closes_on_all_or_on_the_deadline() -> None:
    def seen(fresh: int, merged: int = 3, elapsed: float = 1.0, asked: int = 1) -> Situation:
        return Situation(asked, fresh, 0, merged, elapsed)

    assert Synchronous(4).dispatch(seen(0, asked=0)) == 4
    assert Synchronous(4).dispatch(seen(4)) == 0
    assert not Synchronous(4).close(seen(0, asked=0))
    assert Synchronous(4).close(seen(0))
    assert not Synchronous(4).close(seen(1, elapsed=1e9))
    assert Synchronous(4, 5.0).close(seen(1, elapsed=5.0))
    assert Synchronous(4, goal=3).close(seen(1))
    assert not Synchronous(4, goal=3).close(seen(1, merged=2))
    assert Synchronous(4, 5.0).patience(seen(1, elapsed=2.0)) == 3.0
    assert Synchronous(4).patience(seen(1)) is None


def test_a_synchronous_round_that_nobody_can_join_waits_and_then_closes() -> None:
    nobody = Situation(0, 0, 0, 0, 10.0)
    assert not Synchronous(4).close(nobody)
    assert Synchronous(4).patience(nobody) == 60.0
    assert Synchronous(4, 12.0).patience(nobody) == 2.0
    assert Synchronous(4).close(replace(nobody, elapsed=3600.0))
    assert Synchronous(4, 12.0).close(replace(nobody, elapsed=12.0))


def test_without_a_deadline_the_first_round_waits_three_times_what_half_of_it_took() -> None:
    policy = Synchronous(4, straggling=3.0, shortest=30.0)
    start = Situation(1, 4, 0, 0, 50.0)
    assert not policy.close(start)
    assert policy.patience(start) is None
    half = Situation(1, 2, 0, 2, 50.0, typical=20.0)
    assert not policy.close(half)
    assert policy.patience(half) == pytest.approx(10.0)
    assert policy.close(replace(half, elapsed=60.0))
    assert policy.patience(replace(half, typical=1.0, elapsed=10.0)) == pytest.approx(20.0)
    # A predicted time goes first, whatever this round shows.
    assert policy.close(replace(half, left=0.0))


def test_only_updates_inside_the_late_window_are_kept() -> None:
    assert [Synchronous(4).keeps(age) for age in (1, 2)] == [False, False]
    assert [Synchronous(4, late_window=1).keeps(age) for age in (1, 2)] == [True, False]
    assert [Buffered(2, 4, 3).keeps(age) for age in (3, 4)] == [True, False]


def test_the_buffered_policy_keeps_tasks_open_and_closes_at_a_full_buffer() -> None:
    policy = Buffered(buffer=2, concurrency=5, max_staleness=3)
    start = Situation(0, 0, 3, 0, 0.0)
    assert policy.dispatch(start) == 2
    assert not policy.close(start)
    full = Situation(1, 2, 2, 2, 9.0)
    assert policy.close(full)
    assert policy.dispatch(replace(full, merged=1)) == 1
    assert policy.patience(replace(full, fresh=3, merged=1)) is None
    assert policy.patience(replace(full, merged=1)) == 60.0
    assert not policy.close(Situation(0, 0, 0, 0, 10.0))
    assert policy.close(Situation(0, 0, 0, 0, 3600.0))


def test_the_run_state_survives_the_store_bit_for_bit() -> None:
    draw = np.random.default_rng(0)
    for algorithm in (FedAvg(), FedAdam(server_learning_rate=0.1)):
        server = algorithm.init(draw.normal(size=7).astype(np.float32))
        state = RunState(3, server, Progress(best=math.pi, best_round=2, stale=1, asked=12))
        back = RunState.from_arrays(3, type(server), state.arrays())
        assert back.progress == state.progress
        for name, value in server.arrays().items():
            np.testing.assert_array_equal(back.server.arrays()[name], value)
            assert back.server.arrays()[name].dtype == value.dtype


def test_the_door_withholds_sums_over_too_few() -> None:
    sections = Sections((Section.count("examples"),))
    few = Total(sections, {"examples": np.array([3.0])}, contributors=2)
    door = ReleaseDoor(minimum=3)
    held, passed = door.admit("x", 1, few), door.admit("x", 1, replace(few, contributors=3))
    assert not held.admitted
    assert held.digest == ""
    assert passed.admitted
    assert len(passed.digest) == 64
    assert passed.mechanism == "unprotected"


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**32))
def test_a_cohort_is_distinct_sorted_and_of_the_size_asked(
    clients: int, count: int, seed: int
) -> None:
    cohort = select_uniform(clients, count, np.random.default_rng(seed))
    assert len(cohort) == min(clients, count)
    assert list(cohort) == sorted(set(cohort))
    assert set(cohort) <= set(range(clients))


def test_every_client_is_selected_about_equally_often() -> None:
    counts = np.zeros(20)
    for round_ in range(2000):
        counts[list(select_uniform(20, 5, np.random.default_rng(round_)))] += 1
    assert np.abs(counts / 2000 - 0.25).max() < 0.05
