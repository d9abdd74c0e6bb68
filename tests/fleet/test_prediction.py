"""Deadlines, over-selection and quantiles, against enumeration and simulation."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.fleet.cost import TaskCost, modelled
from anabranch.fleet.history import FleetHistory
from anabranch.fleet.odds import asked_for, at_least, over_selection
from anabranch.fleet.prediction import PRIOR_SIGMA, Prediction, deadline, predict
from anabranch.fleet.shown import Shown
from anabranch.fleet.view import FleetView, unknown_fleet


def phones(clients: int) -> FleetView:
    return replace(
        unknown_fleet(clients),
        flops=np.full(clients, 1e9),
        watts=np.full(clients, 2.0),
        down=np.full(clients, 1e6),
        up=np.full(clients, 5e5),
        joules_up=np.full(clients, 1e-5),
        joules_session=np.full(clients, 3.0),
        examples=np.full(clients, 200.0),
    )


COST = TaskCost(bytes_down=4e6, bytes_up=1e6, flops=5e7, round_trips=0)


@pytest.mark.parametrize(
    ("success", "factors"),
    [
        (0.7, (1.83, 1.63, 1.49)),
        (0.8, (1.53, 1.39, 1.29)),
        (0.9, (1.30, 1.20, 1.14)),
        (0.97, (1.13, 1.08, 1.05)),
    ],
)
def test_over_selection_for_99_percent(success: float, factors: tuple[float, ...]) -> None:
    for goal, factor in zip((30, 100, 1000), factors, strict=True):
        # The study's table counts one client more in two of its cells.
        assert over_selection(goal, success) == pytest.approx(factor, abs=1.05 / goal + 0.005)


@pytest.mark.parametrize(("goal", "success"), [(30, 0.7), (100, 0.7), (30, 0.9), (7, 0.2)])
def test_asked_for_is_the_fewest(goal: int, success: float) -> None:
    def tail(clients: int) -> float:
        terms = range(goal, clients + 1)
        return sum(
            math.comb(clients, k) * success**k * (1 - success) ** (clients - k) for k in terms
        )

    asked = asked_for(goal, success)
    assert tail(asked) >= 0.99 > tail(asked - 1)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.integers(0, 9))
def test_probability_of_enough_answers_is_the_enumerated_one(
    chances: list[float], goal: int
) -> None:
    expected = 0.0
    for faces in product((0, 1), repeat=len(chances)):
        if sum(faces) >= goal:
            pairs = zip(faces, chances, strict=True)
            expected += math.prod(p if face else 1 - p for face, p in pairs)
    assert at_least(np.array(chances), goal) == pytest.approx(expected, abs=1e-12)


def test_the_approximation_for_many_clients_is_close() -> None:
    chances = np.random.default_rng(0).uniform(0.3, 1.0, 300)
    counts = np.zeros(301)
    counts[0] = 1.0
    for p in chances:
        counts[1:] = counts[1:] * (1 - p) + counts[:-1] * p
        counts[0] *= 1 - p
    for goal in (180, 190, 195, 205):
        assert at_least(chances, goal) == pytest.approx(counts[goal:].sum(), abs=5e-4)
    assert at_least(np.ones(300), 300) == 1.0


def test_the_model_by_hand() -> None:
    found = modelled(phones(1), COST)
    assert found.training[0] == pytest.approx(10.0)  # 200 * 5e7 / 1e9
    assert found.transfer[0] == pytest.approx(4.0 + 2.0)
    assert found.joules[0] == pytest.approx(20.0 + 10.0 + 3.0)
    steps = replace(COST, epochs=None, steps=3, batch_size=32)
    assert modelled(phones(1), steps).training[0] == pytest.approx(3 * 32 * 5e7 / 1e9)
    assert steps.planned_steps(phones(1))[0] == 3
    assert replace(COST, epochs=2).planned_steps(phones(1))[0] == 14


def test_predictions_follow_what_clients_showed() -> None:
    view = phones(3)
    fresh = predict(view, FleetHistory.empty(3), COST)
    np.testing.assert_allclose(fresh.seconds(), 16.0, rtol=0.02)
    shown = Shown.of(
        [0],
        [True],
        [32.0],
        training_seconds=[20.0],
        modelled_training=[10.0],
        modelled_transfer=[6.0],
    )
    after = predict(view, FleetHistory.empty(3).after(1, shown), COST)
    assert after.training[0] == pytest.approx(20.0)
    assert after.transfer[0] == pytest.approx(12.0)
    # Others of the class: half of the way in log, for one report and one of the prior.
    assert after.training[1] == pytest.approx(10 * math.sqrt(2), rel=1e-5)


def test_quantiles_come_from_the_prior_and_then_from_residuals() -> None:
    view, history = phones(2), FleetHistory.empty(2)
    fresh = predict(view, history, COST)
    z = 1.2816
    assert fresh.seconds(quantile=0.9)[0] == pytest.approx(
        16 * math.exp(z * PRIOR_SIGMA[0]), rel=0.05
    )
    rng = np.random.default_rng(0)
    for number in range(1, 300):
        seconds = 16.0 * np.exp(0.1 * rng.standard_normal(1))
        shown = Shown.of([0], [True], seconds, modelled_training=[10.0], modelled_transfer=[6.0])
        history = history.after(number, shown)
    learnt = predict(view, history, COST)
    spread = math.log(learnt.seconds(quantile=0.9)[0] / learnt.seconds(quantile=0.5)[0])
    assert spread < 0.5 * z * PRIOR_SIGMA[2]  # 0.4 was believed, 0.1 was seen


def test_work_is_cut_to_what_fits() -> None:
    fresh = predict(phones(1), FleetHistory.empty(1), COST)
    work = fresh.work_within(30.0, 0.75)
    assert 0 < work[0] <= 1
    if work[0] < 1:
        assert fresh.seconds(work, 0.75)[0] == pytest.approx(30.0)
    tight = fresh.work_within(14.0, 0.75)
    assert fresh.seconds(tight, 0.75)[0] == pytest.approx(14.0)
    assert fresh.work_within(2.0, 0.75)[0] < 0  # the transfers alone take longer
    joules = fresh.work_of_energy(np.array([25.0]), 0.5)
    assert fresh.joules(joules, 0.5)[0] == pytest.approx(25.0)


def exact(seconds: list[float], reliability: float = 1.0) -> Prediction:
    """Clients whose times are known to a tenth of a bin."""
    clients = len(seconds)
    shown = Shown.of(list(range(clients)), [True] * clients, seconds)
    history = FleetHistory.empty(clients).after(1, shown)
    found = predict(unknown_fleet(clients), history, TaskCost())
    narrow = np.zeros_like(found.time_table)
    narrow[:, 32:] = 1.0  # nobody is off by more than one bin, exp(0.1)
    return replace(found, time_table=narrow, reliability=np.full(clients, reliability))


def test_deadline_is_when_the_goal_is_reached() -> None:
    everyone = np.arange(5)
    times = exact([10.0, 20.0, 30.0, 40.0, 50.0])
    # A client has answered for certain at its time: the residual table jumps to one there.
    assert deadline(times, everyone, 3) == pytest.approx(30.0, rel=0.02)
    assert deadline(times, everyone, 5) == pytest.approx(50.0, rel=0.02)
    assert deadline(times, everyone, 1, shortest=25.0) == 25.0
    # Five of five with 90 % each is not 99 %: three times the median is the end of it.
    assert deadline(exact([10.0, 20.0, 30.0, 40.0, 50.0], 0.9), everyone, 5) == pytest.approx(90.0)
    assert deadline(times, everyone[:0], 0) is None


def test_deadline_keeps_its_probability_in_a_simulation() -> None:
    rng = np.random.default_rng(1)
    clients = np.arange(40)
    found = predict(phones(40), FleetHistory.empty(40), COST)
    goal = 28
    limit = deadline(found, clients, goal, longest=100.0)
    assert limit is not None
    hits = 0
    for _ in range(2000):
        times = 16.0 * np.exp(PRIOR_SIGMA[0] * rng.standard_normal(40))
        answers = rng.random(40) < found.reliability
        hits += int(((times <= limit) & answers).sum() >= goal)
    assert 0.975 < hits / 2000 <= 1.0


def test_no_deadline_while_nothing_is_known() -> None:
    empty = predict(unknown_fleet(3), FleetHistory.empty(3), TaskCost())
    assert deadline(empty, np.arange(3), 2) is None
    one = FleetHistory.empty(3).after(1, Shown.of([0], [True], [5.0]))
    # All belong to one class, so the one that answered speaks for the others too.
    assert deadline(predict(unknown_fleet(3), one, TaskCost()), np.arange(3), 2) is not None
