"""Admission by hand: who is refused and why, and how much work the others are asked."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from anabranch.fleet.admission import Admission, admit
from anabranch.fleet.cost import TaskCost
from anabranch.fleet.history import FleetHistory
from anabranch.fleet.selection import Code
from anabranch.fleet.view import FleetView, unknown_fleet

COST = TaskCost(bytes_up=1e6, flops=5e7, batch_size=20, round_trips=0)  # 10 steps of 20 examples


def phones(clients: int = 1) -> FleetView:
    """10 s of training at 2 W, 2 s and 10 J of uploads, a battery of 1000 J."""
    return replace(
        unknown_fleet(clients),
        charging=np.zeros(clients, np.bool_),
        flops=np.full(clients, 1e9),
        watts=np.full(clients, 2.0),
        up=np.full(clients, 5e5),
        joules_up=np.full(clients, 1e-5),
        battery=np.full(clients, 0.8),
        battery_joules=np.full(clients, 1000.0),
        examples=np.full(clients, 200.0),
    )


def judged(rules: Admission, view: FleetView, seconds: float | None = None) -> tuple[Code, float]:
    admitted = admit(rules, view, FleetHistory.empty(len(view)), COST, seconds)
    return Code(int(admitted.codes[0])), float(admitted.work[0])


MEDIAN = {"time_quantile": 0.5, "energy_quantile": 0.5}


@pytest.mark.parametrize(
    ("seconds", "code", "work"),
    [
        (30.0, Code.NOT_DRAWN, 1.0),
        (8.1, Code.NOT_DRAWN, 0.6),  # 2 s of transfers leave 6.1 s for steps of 1 s
        (2.5, Code.TOO_SLOW, 0.0),
    ],
)
def test_work_fits_the_deadline(seconds: float, code: Code, work: float) -> None:
    found = judged(Admission(**MEDIAN), phones(), seconds)
    assert found[0] is code
    assert found[1] == pytest.approx(work)


@pytest.mark.parametrize(
    ("rules", "work"),
    [
        ({"max_battery": 0.05}, 1.0),  # 50 J; the task costs 30 J
        ({"max_battery": 0.021}, 0.5),  # 21 J less 10 J of radio: 5 steps of 2 J
        ({"max_joules": 17.0}, 0.3),
        ({"max_joules": 17.0, "max_battery": 0.5}, 0.3),
        ({"least_battery": 0.785}, 0.2),  # 15 J above what it keeps
        ({"least_battery": 0.785, "max_joules": 13.0}, 0.1),
    ],
)
def test_work_fits_the_energy_budget(rules: dict[str, float], work: float) -> None:
    code, found = judged(Admission(**MEDIAN, **rules), phones())
    assert code is Code.NOT_DRAWN
    assert found == pytest.approx(work)


def test_a_step_that_costs_too_much_is_refused() -> None:
    assert judged(Admission(**MEDIAN, max_joules=11.0), phones())[0] is Code.TOO_MUCH_ENERGY
    # On the mains no budget of a battery applies.
    mains = replace(phones(), battery_joules=np.array([np.nan]))
    assert judged(Admission(**MEDIAN, max_joules=11.0), mains) == (Code.NOT_DRAWN, 1.0)


def test_without_adaptation_slow_devices_are_refused() -> None:
    rules = Admission(**MEDIAN, adapt=False)
    assert judged(rules, phones(), 11.9)[0] is Code.TOO_SLOW
    assert judged(rules, phones(), 12.3) == (Code.NOT_DRAWN, 1.0)


def test_without_prediction_the_deadline_decides() -> None:
    assert judged(Admission(by_time=False), phones(), 2.5) == (Code.NOT_DRAWN, 1.0)


def test_quantiles_leave_room_for_error() -> None:
    careful = judged(Admission(time_quantile=0.95), phones(), 12.0)[1]
    bold = judged(Admission(time_quantile=0.5), phones(), 12.0)[1]
    assert careful < bold


@pytest.mark.parametrize(
    ("rules", "changes", "code"),
    [
        ({"charging_only": True}, {}, Code.NOT_CHARGING),
        ({"charging_only": True}, {"charging": np.array([True])}, Code.NOT_DRAWN),
        ({"unmetered_only": True}, {"metered": np.array([True])}, Code.METERED),
        ({}, {"metered": np.array([True]), "data_left": np.array([9e5])}, Code.DATA_BUDGET),
        ({}, {"metered": np.array([False]), "data_left": np.array([9e5])}, Code.NOT_DRAWN),
        ({"least_battery": 0.9}, {}, Code.LOW_BATTERY),
        ({"least_battery": 0.9}, {"charging": np.array([True])}, Code.NOT_DRAWN),
        ({"quiet_hours": (22, 7)}, {"local_hour": np.array([23.0])}, Code.QUIET_HOURS),
        ({"quiet_hours": (22, 7)}, {"local_hour": np.array([6.9])}, Code.QUIET_HOURS),
        ({"quiet_hours": (22, 7)}, {"local_hour": np.array([7.0])}, Code.NOT_DRAWN),
        ({"quiet_hours": (9, 17)}, {"local_hour": np.array([12.0])}, Code.QUIET_HOURS),
        ({"quiet_hours": (9, 17)}, {"local_hour": np.array([23.0])}, Code.NOT_DRAWN),
    ],
)
def test_the_state_of_a_device_decides(
    rules: dict[str, object], changes: dict[str, np.ndarray], code: Code
) -> None:
    view = replace(phones(), **changes)  # type: ignore[arg-type]  # columns by their names
    assert judged(Admission.model_validate(rules), view)[0] is code


def test_too_little_memory() -> None:
    view = replace(phones(), memory=np.array([1e8]))
    admitted = admit(Admission(), view, FleetHistory.empty(1), replace(COST, memory=2e8))
    assert admitted.codes.tolist() == [Code.MEMORY]


def test_a_fleet_of_which_nothing_is_known_is_admitted_whole() -> None:
    admitted = admit(Admission(max_battery=0.05), unknown_fleet(3), FleetHistory.empty(3), COST, 60)
    assert admitted.work.tolist() == [1.0, 1.0, 1.0]
    assert np.isnan(admitted.known(1, FleetHistory.empty(3)).seconds).all()
    first = admitted.assignments([2])[0]
    assert (first.client, first.fraction, first.joules) == (2, 1.0, 0.0)
    assert math.isnan(first.seconds)
    assert admitted.deadline([0, 1], 2) is None


def test_a_deadline_found_afterwards_cuts_the_work_of_the_slow() -> None:
    view = replace(phones(2), flops=np.array([1e9, 1e8]))
    admitted = admit(Admission(**MEDIAN), view, FleetHistory.empty(2), COST)
    assert admitted.work.tolist() == [1.0, 1.0]
    fast, slow = admitted.assignments([0, 1], 25.0)
    assert fast.fraction == 1.0
    assert slow.fraction == pytest.approx(0.2)  # 10 s a step
    assert admitted.assignments([1], 5.0)[0].fraction == 1.0  # late in any case
    assert slow.seconds == pytest.approx(22.0, rel=0.02)
    assert slow.modelled_training == pytest.approx(20.0)
    assert slow.modelled_transfer == pytest.approx(2.0)
    assert slow.modelled_joules == pytest.approx(0.2 * 2.0 * 100 + 10)


@given(
    seconds=st.floats(0.1, 1e4),
    share=st.floats(1e-4, 1.0),
    level=st.floats(0.0, 1.0),
    speed=st.floats(1e7, 1e11),
)
def test_what_is_admitted_is_predicted_to_keep_its_limits(
    seconds: float, share: float, level: float, speed: float
) -> None:
    view = replace(phones(), flops=np.array([speed]), battery=np.array([level]))
    rules = Admission(max_battery=share)
    admitted = admit(rules, view, FleetHistory.empty(1), COST, seconds)
    work = float(admitted.work[0])
    if admitted.codes[0] != Code.NOT_DRAWN:
        assert work == 0
        return
    assert rules.least_work <= work <= 1
    assert work * 10 == pytest.approx(round(work * 10))  # whole steps
    slack = 1 + 1e-9
    assert admitted.prediction.seconds(work, rules.time_quantile)[0] <= seconds * slack
    joules = admitted.prediction.joules(work, rules.energy_quantile)[0]
    assert joules <= min(share, level) * 1000 * slack


@pytest.mark.parametrize("hours", [(22, 22), (-1, 5), (5, 25)])
def test_hours_that_make_no_sense_are_refused(hours: tuple[float, float]) -> None:
    with pytest.raises(ValidationError, match="hours"):
        Admission(quiet_hours=hours)
