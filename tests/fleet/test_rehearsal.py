"""Rehearsals keep the rules of rounds, and equal seeds give equal ones."""

from __future__ import annotations

import numpy as np
import pytest

from anabranch.fleet.admission import Admission
from anabranch.fleet.cost import TaskCost
from anabranch.fleet.devices import DeviceSettings, SimulatedFleet, draw_profiles
from anabranch.fleet.rehearsal import Rehearsal, RehearsedRound, rehearse

COST = TaskCost(bytes_down=1e6, bytes_up=1e5, flops=1e8, epochs=1, examples=300.0)
USUAL = DeviceSettings()
PERFECT = DeviceSettings(
    spread=0, network_spread=0, drift=0, noise=0, availability=1, permanent_loss=0
)


def fleet(settings: DeviceSettings = USUAL, count: int = 400) -> SimulatedFleet:
    return SimulatedFleet.drawn(draw_profiles(count, {"entry": 1.0}, 0), settings, 0)


def rounds(settings: DeviceSettings = USUAL, **changes: object) -> list[RehearsedRound]:
    plan = {"rounds": 5, "asked": 40, "goal": 30, "cost": COST, "seed": 1}
    return rehearse(fleet(settings), Rehearsal(**{**plan, **changes}))  # type: ignore[arg-type]  # fields of a rehearsal


def test_a_round_closes_at_its_goal_or_its_deadline() -> None:
    for done in rounds(deadline=30.0):
        merged = int(done.tasks.merged.sum())
        assert merged >= 30 or done.seconds == 30.0
        assert (done.tasks.seconds <= done.seconds + 1e-9).all()
        assert len(done.tasks.clients) <= 40


def test_equal_seeds_give_equal_rehearsals() -> None:
    for one, other in zip(rounds(), rounds(), strict=True):
        np.testing.assert_array_equal(one.tasks.clients, other.tasks.clients)
        np.testing.assert_array_equal(one.tasks.spent, other.tasks.spent)
    assert rounds(seed=2)[0].tasks.clients.tolist() != rounds(seed=1)[0].tasks.clients.tolist()


def test_with_a_perfect_model_no_task_costs_more_than_its_cap() -> None:
    heavy = TaskCost(bytes_down=5e6, bytes_up=5e6, flops=3e9, epochs=1, examples=600.0)
    rules = Admission(max_battery=0.01)
    capped = rounds(PERFECT, cost=heavy, rules=rules, rounds=3)
    free = rounds(PERFECT, cost=heavy, rounds=3)
    share = np.concatenate([done.tasks.share for done in capped])
    assert share.max() <= 0.01
    assert np.concatenate([done.tasks.share for done in free]).max() > 0.01
    work = np.concatenate([done.tasks.work for done in capped])
    assert (work < 1).any()


def test_the_truth_breaks_a_cap_that_trusts_the_model() -> None:
    heavy = TaskCost(bytes_down=5e6, bytes_up=5e6, flops=3e9, epochs=1, examples=600.0)
    trusting = Admission(max_battery=0.01, energy_quantile=0.5)
    spread = DeviceSettings(spread=0.6)
    done = rounds(spread, cost=heavy, rules=trusting, rounds=1)
    assert (done[0].tasks.share > 0.01).any()


@pytest.mark.parametrize("asked", [0, 1])
def test_nobody_there_is_waited_for(asked: int) -> None:
    rare = DeviceSettings(availability=0.002, swing=1.0)
    done = rehearse(fleet(rare, 50), Rehearsal(1, 5, 5, COST, deadline=60.0))
    assert done[0].started % 600.0 == 0
    assert len(done[0].tasks.clients) >= asked


def test_battery_caps_hold_against_the_truth_after_two_rounds_a_device() -> None:
    """ResNet-18 sizes on entry phones, spread 0.4: at most 1 % of the tasks above the cap."""
    resnet = TaskCost(bytes_down=5.5e6, bytes_up=1.4e6, flops=3.3e9, epochs=1, examples=600.0)
    there = DeviceSettings(availability=0.6, swing=2.0)
    plan = Rehearsal(30, 80, 60, resnet, Admission(max_battery=0.05))
    reports, above = np.zeros(200, np.int64), []
    for done in rehearse(fleet(there, 200), plan):
        known = reports[done.tasks.clients] >= 2
        above.append(done.tasks.share[known] > 0.05)
        reports[done.tasks.clients[done.tasks.merged]] += 1
    tasks = np.concatenate(above)
    assert len(tasks) > 1000
    assert tasks.mean() <= 0.01
