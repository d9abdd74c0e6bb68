"""How long tasks are waited for: until enough of a cohort answer, or each on its own account."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from anabranch.coordinator.schedule import Schedule
from anabranch.fleet.cost import TaskCost
from anabranch.fleet.history import FleetHistory
from anabranch.fleet.view import FleetView, unknown_fleet

# 10, 20, … 100 s of training, and nothing to send.
SECONDS = 10.0 * np.arange(1, 11)


def phones() -> FleetView:
    return replace(
        unknown_fleet(10), flops=1e9 / SECONDS, up=np.full(10, 1e9), examples=np.full(10, 200.0)
    )


def limit(schedule: Schedule, clients: list[int]) -> float | None:
    history = FleetHistory.empty(10)
    return schedule.limit(schedule.admitted(phones(), history), clients)


def schedule(*, alone: bool) -> Schedule:
    cost = TaskCost(bytes_up=1, flops=5e6, batch_size=20, round_trips=0)
    return Schedule(lambda now: phones(), cost, goal=3, alone=alone)


def test_a_cohort_is_waited_for_until_enough_of_it_answer() -> None:
    found = limit(schedule(alone=False), list(range(10)))
    assert found is not None
    assert found < 3 * 50.0  # the slowest seven are not what it is about


def test_a_task_of_an_asynchronous_round_has_three_times_its_own_median() -> None:
    """A tenth of all tasks bring nothing, so no time is long enough for 99 %."""
    each = schedule(alone=True)
    for client in (0, 4, 9):
        assert limit(each, [client]) == pytest.approx(3 * SECONDS[client], rel=0.01)


def test_tasks_given_out_together_wait_for_the_slowest() -> None:
    assert limit(schedule(alone=True), [1, 9, 4]) == pytest.approx(300.0, rel=0.01)


def test_where_nothing_is_known_of_one_nobody_has_a_limit() -> None:
    history = FleetHistory.empty(10)
    each = replace(schedule(alone=True), view=lambda now: unknown_fleet(10))
    admitted = each.admitted(unknown_fleet(10), history)
    assert each.limit(admitted, [0, 1]) is None
