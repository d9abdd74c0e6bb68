"""Devices that stop early: what is done, when, and what it costs."""

from __future__ import annotations

import numpy as np
import pytest

from anabranch.fleet.admission import Admission, admit
from anabranch.fleet.cost import TaskCost
from anabranch.fleet.devices import DeviceSettings, SimulatedFleet, draw_profiles
from anabranch.fleet.devices.draws import Draws
from anabranch.fleet.devices.phases import Content
from anabranch.fleet.devices.tasks import Phase, Stop, work_through
from anabranch.fleet.history import FleetHistory
from anabranch.fleet.shown import Shown
from anabranch.fleet.view import Column, Flags

ROWS = np.array([0])


class Shifts:
    """Away for ``off`` seconds after every ``on`` seconds."""

    def __init__(self, on: float, off: float) -> None:
        self.on, self.off = on, off

    def available(self, rows: np.ndarray, now: float) -> Flags:
        return np.ones(len(rows), np.bool_)

    def charging(self, rows: np.ndarray, now: float) -> Flags:
        return np.zeros(len(rows), np.bool_)

    def session(self, rows: np.ndarray, times: Column, draws: Draws, lane: int) -> Column:
        return np.full(len(rows), self.on)

    def away(self, rows: np.ndarray, times: Column, draws: Draws, lane: int) -> Column:
        return np.full(len(rows), self.off)


def worked(
    shifts: Shifts,
    at: float = np.inf,
    most: float = np.inf,
    least: float = 0.0,
    each: float = 0.0,
) -> Phase:
    """A hundred seconds of work, begun at 1000 s."""

    def one(value: float) -> Column:
        return np.array([value])

    stop = Stop(one(at), one(most), one(each), one(least))
    draws = Draws.of(0, "test", 1)
    left, begin = one(shifts.on), one(1000.0)
    return work_through(one(100.0), one(10.0), left, ROWS, begin, shifts, draws, 0, stop)


def test_a_device_that_stays_stops_at_its_time() -> None:
    phase = worked(Shifts(500.0, 0.0), at=1060.0)
    assert phase.active[0] == pytest.approx(60.0)
    assert phase.done[0] == pytest.approx(0.6)
    assert phase.left[0] == pytest.approx(440.0)
    assert not phase.broken[0]


def test_a_device_that_is_away_at_its_time_stops_when_it_returns() -> None:
    # 35 s of work, of which 30 are kept; away from 1035 to 1085; nothing more after 1060.
    phase = worked(Shifts(35.0, 50.0), at=1060.0)
    assert phase.done[0] == pytest.approx(0.3)
    assert phase.seconds[0] == pytest.approx(85.0)
    assert phase.interruptions[0] == 1


def test_the_least_work_is_done_all_the_same() -> None:
    phase = worked(Shifts(500.0, 0.0), at=1000.0, least=0.25)
    assert phase.done[0] == pytest.approx(0.25)


def test_seconds_of_work_count_repeated_ones() -> None:
    # 35 s, of which 5 are lost, then 15 of the second session: 50 s of work, 45 of them worth it.
    phase = worked(Shifts(35.0, 50.0), most=50.0)
    assert phase.active[0] == pytest.approx(50.0)
    assert phase.done[0] == pytest.approx(0.45)
    # Two seconds of an interruption are taken from them.
    assert worked(Shifts(35.0, 50.0), most=50.0, each=2.0).done[0] == pytest.approx(0.43)


def test_without_a_limit_nothing_changes() -> None:
    shifts = Shifts(35.0, 50.0)
    limited = worked(shifts)
    free = work_through(
        np.array([100.0]), np.array([10.0]), np.array([35.0]), ROWS, np.array([1000.0]),
        shifts, Draws.of(0, "test", 1), 0,
    )  # fmt: skip
    assert limited.done[0] == free.done[0] == 1.0
    assert limited.seconds[0] == free.seconds[0]
    assert limited.interruptions[0] == free.interruptions[0] == 3


def test_what_a_device_measures_keeps_it_within_its_energy() -> None:
    """Devices that meter themselves keep to the budget, however far the planner is off."""
    settings = DeviceSettings(reports_energy=1.0, session_minutes=3.0, permanent_loss=0.0)
    fleet = SimulatedFleet.drawn(draw_profiles(400, {"entry": 1.0}, 0), settings, 0)
    rows, budget = np.arange(400), 150.0
    flops = np.full(400, 8e9 * 120.0)  # 300 J by the model
    content = Content(np.full(400, np.inf), np.full(400, budget), np.full(400, 1e5), np.zeros(400))
    free = fleet.begin(rows, 0.0, 1, flops, np.full(400, 1e5))
    limited = fleet.begin(rows, 0.0, 1, flops, np.full(400, 1e5), content=content)
    spent = [fleet.finish(begun, np.full(400, 1e5)) for begun in (free, limited)]
    arrived = np.isfinite(spent[1].ended)
    # One interruption of the upload is provided for; a little file has no second one.
    assert (spent[1].spent[arrived] <= budget + 1e-6).all()
    assert (spent[0].spent > budget).mean() > 0.5
    assert 0.3 < limited.done.mean() < 0.9
    assert (limited.modelled <= free.modelled).all()


def test_the_frozen_part_is_predicted_until_a_client_has_answered() -> None:
    settings = DeviceSettings(spread=0.0)
    fleet = SimulatedFleet.drawn(draw_profiles(2, {"entry": 1.0}, 0), settings, 0)
    view = fleet.view(0.0)
    history = FleetHistory.empty(2).after(1, Shown.of([1], [True], [1.0]))
    cost = TaskCost(bytes_down=1000.0, frozen=4e6, flops=1e6)
    assert np.asarray(cost.down(history.first)).tolist() == [4_001_000.0, 1000.0]
    model = admit(Admission(), view, history, cost).model
    extra = 4e6 / view.down[0]
    assert model.transfer[0] == pytest.approx(
        1000.0 / view.down[0] + extra + 4 * view.latency[0], rel=1e-9
    )
    assert model.radio_joules[0] > model.radio_joules[1] + 3.9e6 * view.joules_down[1] * 0.1


def test_the_energy_of_a_task_by_battery() -> None:
    capacity = np.array([60_000.0, 0.0, np.nan])
    rules = Admission(max_battery=0.05, max_joules=5000.0)
    assert rules.joules_of_a_task(capacity).tolist() == [3000.0, np.inf, np.inf]
    assert Admission().joules_of_a_task(capacity).tolist() == [np.inf] * 3
