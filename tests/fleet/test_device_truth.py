"""The simulated fleet: hidden truth, interrupted tasks, days, batteries, budgets, traces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from anabranch.fleet.devices.draws import Draws
from anabranch.fleet.devices.network import NETWORK_NAMES
from anabranch.fleet.devices.profiles import Profiles, draw_profiles
from anabranch.fleet.devices.settings import DeviceSettings
from anabranch.fleet.devices.simulated import SimulatedFleet
from anabranch.fleet.devices.tasks import work_through
from anabranch.fleet.devices.traces import Trace
from anabranch.fleet.view import Column, Flags

PERFECT = DeviceSettings(
    spread=0, network_spread=0, drift=0, noise=0, availability=1, permanent_loss=0
)
HOUR = 3600.0


def fleet_of(
    count: int, settings: DeviceSettings, mix: str = "entry", seed: int = 0
) -> SimulatedFleet:
    return SimulatedFleet.drawn(draw_profiles(count, {mix: 1.0}, seed), settings, seed)


@dataclass
class Scripted:
    """Sessions and absences of one device, in order."""

    stays: Sequence[float]
    gaps: Sequence[float]
    turn: int = 0

    def available(self, rows: NDArray[np.int64], now: float) -> Flags:
        return np.ones(len(rows), np.bool_)

    def charging(self, rows: NDArray[np.int64], now: float) -> Flags:
        return np.zeros(len(rows), np.bool_)

    def session(self, rows: NDArray[np.int64], times: Column, draws: Draws, lane: int) -> Column:
        self.turn += 1
        return np.array([self.stays[self.turn]])

    def away(self, rows: NDArray[np.int64], times: Column, draws: Draws, lane: int) -> Column:
        return np.array([self.gaps[self.turn]])


def by_hand(
    needed: float, keep: float, stays: Sequence[float], gaps: Sequence[float]
) -> tuple[float, float, float, int]:
    """The slow way: second by second of progress, one device."""
    active = idle = done = 0.0
    for turn, stay in enumerate(stays):
        if needed - done <= stay:
            return active + needed - done, idle, stay - (needed - done), turn
        active += stay
        done += int(stay / keep) * keep
        idle += gaps[turn]
    raise AssertionError("the script is too short")


@given(
    needed=st.integers(1, 200),
    keep=st.integers(1, 30),
    stays=st.lists(st.integers(1, 60), min_size=1, max_size=8),
    gaps=st.lists(st.integers(0, 100), min_size=9, max_size=9),
)
def test_interrupted_work_goes_on_as_by_hand(
    needed: int, keep: int, stays: list[int], gaps: list[int]
) -> None:
    script = [float(s) for s in [*stays, 1000]]
    away = [float(g) for g in gaps]
    presence = Scripted(script, away)
    one = np.zeros(1, np.int64)
    found = work_through(
        np.array([float(needed)]),
        np.array([float(keep)]),
        np.array([script[0]]),
        one,
        np.zeros(1),
        presence,
        Draws.of(0, "test"),
        0,
    )
    active, idle, left, interruptions = by_hand(needed, keep, script, away)
    assert found.active[0] == pytest.approx(active)
    assert found.idle[0] == pytest.approx(idle)
    assert found.left[0] == pytest.approx(left)
    assert found.interruptions[0] == interruptions
    # What is done again is less than one point of progress for each interruption.
    assert found.active[0] - needed < keep * max(interruptions, 1)


def test_what_is_not_resumable_is_lost_with_the_connection() -> None:
    presence = Scripted([5.0, 100.0], [1.0, 1.0])
    one = np.zeros(1, np.int64)
    found = work_through(
        np.array([10.0]), np.zeros(1), np.array([5.0]), one, np.zeros(1), presence, Draws(0), 0
    )
    assert found.broken[0]
    assert (found.active[0], found.idle[0]) == (5.0, 0.0)


def test_a_perfect_model_is_kept_to_the_digit() -> None:
    """Entry phone: 8 GFLOP/s, 2.5 W; 16 GFLOP take 2 s and 5 J, besides the radio."""
    fleet = fleet_of(50, PERFECT)
    rows = np.arange(50)
    view = fleet.view(0.0)
    begun = fleet.begin(rows, 0.0, 1, np.full(50, 16e9), np.full(50, 1e6))
    ended = fleet.finish(begun, np.full(50, 5e5))
    down, up = 1e6 / view.down, 5e5 / view.up
    seconds = (
        down
        + 2.0
        + up
        + 4 * np.array([0.2, 0.07, 0.03])[np.searchsorted(np.array([1, 2, 4]), view.network)]
    )
    np.testing.assert_allclose(ended.ended, seconds)
    joules = 5.0 + 1e6 * view.joules_down + 5e5 * view.joules_up + view.joules_session
    np.testing.assert_allclose(ended.spent, joules)
    np.testing.assert_allclose(ended.modelled, joules)


def test_the_truth_spreads_and_the_view_does_not_show_it() -> None:
    narrow, wide = DeviceSettings(spread=0.0), DeviceSettings(spread=1.0)
    views = [fleet_of(200, settings).view(HOUR) for settings in (narrow, wide)]
    for field in fields(views[0]):
        one, other = (getattr(view, field.name) for view in views)
        np.testing.assert_array_equal(one, other)
    fleet = fleet_of(20_000, DeviceSettings(drift=0, noise=0))
    rows = np.arange(len(fleet))
    real = fleet.truth.perform(rows, fleet.network(rows, 0.0), 0.0, Draws.of(0, "t"))
    factor = np.log(real.flops / fleet.profiles.flops)
    assert factor.std() == pytest.approx(0.4, abs=0.01)
    assert abs(factor.mean()) < 0.02
    assert abs(np.corrcoef(factor, np.log(real.watts))[0, 1]) < 0.03


def test_the_truth_wanders_and_keeps_its_variance() -> None:
    fleet = fleet_of(20_000, DeviceSettings(spread=0, network_spread=0, noise=0, drift=0.3))
    rows = np.arange(len(fleet))
    code = fleet.profiles.network

    def factor(now: float) -> Column:
        real = fleet.truth.perform(rows, code, now, Draws.of(0, "t"))
        return np.asarray(np.log(real.flops / fleet.profiles.flops))

    for now in (0.0, 3 * HOUR, 5 * HOUR):
        assert factor(now).std() == pytest.approx(0.3, abs=0.01)
    near, far = factor(0.5 * HOUR), factor(48 * HOUR)
    assert np.corrcoef(factor(0.0), near)[0, 1] > 0.9
    assert abs(np.corrcoef(factor(0.0), far)[0, 1]) < 0.05


def test_tasks_depend_on_their_draw_and_client_alone() -> None:
    fleet = fleet_of(100, DeviceSettings())
    rows = np.arange(100)
    flops, down = np.full(100, 1e11), np.full(100, 1e6)
    whole = fleet.begin(rows, 500.0, 3, flops, down)
    some = fleet.begin(rows[40:60], 500.0, 3, flops[:20], down[:20])
    np.testing.assert_array_equal(whole.trained[40:60], some.trained)
    ended = fleet.finish(whole, down)
    part = fleet.finish(whole.take(rows[40:60]), down[:20])
    np.testing.assert_array_equal(ended.ended[40:60], part.ended)
    other = fleet.begin(rows, 500.0, 4, flops, down)
    assert not np.array_equal(whole.train, other.train)


def test_lost_tasks_are_as_many_as_planned_and_cost_energy() -> None:
    settings = DeviceSettings(availability=1.0, permanent_loss=0.2)
    fleet = fleet_of(20_000, settings)
    rows = np.arange(20_000)
    begun = fleet.begin(rows, 0.0, 1, np.full(20_000, 1e9), np.full(20_000, 1e4))
    assert np.isinf(begun.trained).mean() == pytest.approx(0.2, abs=0.01)
    assert (fleet.spent_by(begun, 1e4) > 0).all()


def test_nights_have_more_devices_and_neighbours_go_together() -> None:
    settings = DeviceSettings(start_hour=0.0)
    fleet = fleet_of(5000, settings)
    shares = [fleet.view(hour * HOUR).available.mean() for hour in range(24)]
    night, day = np.mean(shares[0:5]), np.mean(shares[12:17])
    assert night > 1.8 * day
    # One region: its share varies from hour to hour far more than 5000 coins would.
    same_hour = [fleet.view((24 * d + 3) * HOUR).available.mean() for d in range(12)]
    assert np.std(same_hour) > 5 * np.sqrt(0.25 / 5000)


def test_time_zones_shift_the_day() -> None:
    profiles = draw_profiles(4000, {"mid": 1.0}, 0, regions={"west": -5.0, "east": 7.0})
    fleet = SimulatedFleet.drawn(profiles, DeviceSettings(start_hour=19.0), 0)
    view = fleet.view(0.0)  # 14 hours in the west, 2 hours in the east
    west, east = profiles.region == 0, profiles.region == 1
    assert view.local_hour[west][0] == 14.0
    assert view.local_hour[east][0] == 2.0
    assert view.charging[east].mean() > 0.7
    assert view.charging[west].mean() < 0.05


def test_batteries_do_not_depend_on_how_often_one_looks() -> None:
    often, once = fleet_of(200, DeviceSettings()), fleet_of(200, DeviceSettings())
    for now in np.arange(0.0, 10 * HOUR, 97.0):
        often.view(float(now))
    last = 10 * HOUR + 1
    np.testing.assert_array_equal(often.view(last).battery, once.view(last).battery)
    assert ((once.view(last).battery >= 0) & (once.view(last).battery <= 1)).all()


def test_a_task_drains_what_it_spends_and_an_empty_battery_goes_dark() -> None:
    fleet = fleet_of(3, PERFECT)
    rows = np.array([0])
    before = fleet.batteries.level[0]
    begun = fleet.begin(rows, 0.0, 1, np.array([16e9]), np.array([0.0]))
    begun.charging[:] = False
    assert fleet.charge(begun, np.array([620.0]), np.array([0.0]), 0.0)[0]
    assert before - fleet.batteries.level[0] == pytest.approx(620 / 62_000)
    assert not fleet.charge(begun, np.array([1e6]), np.array([0.0]), 0.0)[0]
    assert fleet.batteries.level[0] == 0.0
    board = fleet_of(1, PERFECT, "board")
    begun = board.begin(rows, 0.0, 1, np.array([16e9]), np.array([0.0]))
    assert board.charge(begun, np.array([1e9]), np.array([0.0]), 0.0)[0]
    assert np.isnan(board.view(0.0).battery_joules[0])


def test_data_budgets_are_spent_on_metered_networks_and_renewed_at_midnight() -> None:
    profiles = draw_profiles(300, {"entry": 1.0}, 0, data_budget=5e6)
    fleet = SimulatedFleet.drawn(profiles, PERFECT, 0)  # starts at 18 hours
    rows = np.arange(300)
    begun = fleet.begin(rows, 0.0, 1, np.zeros(300), np.zeros(300))
    fleet.charge(begun, np.zeros(300), np.full(300, 2e6), 0.0)
    assert (fleet.view(0.0).data_left == 3e6).all()
    fleet.charge(begun, np.zeros(300), np.full(300, 9e6), 5 * HOUR)
    assert (fleet.view(5 * HOUR).data_left == 0).all()
    assert (fleet.view(6 * HOUR).data_left == 5e6).all()
    at_home = fleet.begin(rows, 3 * HOUR, 2, np.zeros(300), np.zeros(300))
    wifi = at_home.network == NETWORK_NAMES.index("wifi")
    assert wifi.any()
    fleet.charge(at_home, np.zeros(300), np.full(300, 1e6), 6 * HOUR)
    np.testing.assert_array_equal(fleet.view(6 * HOUR).data_left, np.where(wifi, 5e6, 4e6))


def test_the_state_comes_back_as_it_was() -> None:
    fleet, other = fleet_of(50, DeviceSettings()), fleet_of(50, DeviceSettings())
    begun = fleet.begin(np.arange(50), 0.0, 1, np.full(50, 1e12), np.full(50, 1e6))
    fleet.charge(begun, np.full(50, 900.0), np.full(50, 1e6), HOUR)
    other.restore(fleet.arrays())
    for now in (HOUR, 9 * HOUR):
        mine, theirs = fleet.view(now), other.view(now)
        np.testing.assert_array_equal(mine.battery, theirs.battery)
        np.testing.assert_array_equal(mine.data_left, theirs.data_left)


def trace_of(borders: Sequence[float], available: Sequence[bool], flops: float) -> Trace:
    """One client."""
    count = len(available)
    nan = np.full(count, np.nan)
    return Trace(
        offsets=np.array([0, count]),
        start=np.array([start for start, _ in pairwise(borders)]),
        end=np.array([end for _, end in pairwise(borders)]),
        available=np.array(available),
        charging=np.zeros(count, np.bool_),
        network=np.full(count, -1, np.int16),
        battery=nan,
        flops=np.full(count, flops),
        watts=nan,
        down=np.full(count, 1e6),
        up=np.full(count, 1e6),
    )


def one_profile() -> Profiles:
    return draw_profiles(1, {"entry": 1.0}, 0)


def test_a_trace_is_replayed_and_begins_again() -> None:
    trace = trace_of([0, 100, 200, 400], [True, True, False], 8e9)
    fleet = SimulatedFleet.replayed(one_profile(), PERFECT, 0, trace)
    there = [bool(fleet.view(t).available[0]) for t in (0.0, 150.0, 250.0, 399.0, 450.0, 650.0)]
    assert there == [True, True, False, False, True, False]


def test_a_task_in_a_trace_waits_where_the_device_was_away() -> None:
    trace = trace_of([0, 100, 400, 900], [True, False, True], 1e9)
    fleet = SimulatedFleet.replayed(one_profile(), PERFECT, 0, trace)
    latency = float(fleet.view(0.0).latency[0])
    begun = fleet.begin(np.array([0]), 0.0, 1, np.array([150e9]), np.array([0.0]))
    # 150 s of training, checkpoints every 7.5 s; away from 100 to 400.
    first = 100 - 2 * latency
    kept = first // 7.5 * 7.5
    assert begun.train[0] == pytest.approx(first + 150 - kept, abs=1e-4)
    assert begun.idle[0] == pytest.approx(300, abs=1e-4)
    assert begun.trained[0] == pytest.approx(400 + 150 - kept, abs=1e-4)


def test_looking_at_a_trace_is_as_looking_row_by_row() -> None:
    draw = np.random.default_rng(0)
    borders = [0.0, *np.cumsum(draw.integers(1, 50, 40)).astype(float).tolist()]
    available = (draw.random(40) < 0.5).tolist()
    trace = trace_of(borders, available, 1.0)
    period = borders[-1]
    for now in draw.uniform(0, 3 * period, 200):
        within = now % period
        row = next(i for i in range(40) if borders[i] <= within < borders[i + 1])
        end = row
        while end + 1 < 40 and available[end + 1] == available[row]:
            end += 1
        there, seconds = trace.change_after(np.array([0]), np.array([now]))
        assert there[0] == available[row]
        assert seconds[0] == pytest.approx(borders[end + 1] - within)
