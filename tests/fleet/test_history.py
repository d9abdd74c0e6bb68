"""What a history keeps, against hand-computed numbers and a slow copy of the rule."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.fleet.history import BINS, EDGES, FleetHistory
from anabranch.fleet.shown import Shown


def same(one: FleetHistory, other: FleetHistory) -> None:
    for field in fields(FleetHistory):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


def test_counts_and_rounds() -> None:
    history = FleetHistory.empty(4)
    history = history.after(1, Shown.of([0, 2], [True, False], [1.0, 9.0]))
    history = history.after(3, Shown.of([2, 3], [False, True], [9.0, 1.0]))
    assert history.round == 3
    assert history.asked.tolist() == [1, 0, 2, 1]
    assert history.merged.tolist() == [1, 0, 0, 1]
    assert history.failed.tolist() == [0, 0, 2, 0]
    assert history.last_asked.tolist() == [1, 0, 3, 3]
    assert history.last_merged.tolist() == [1, 0, 0, 3]
    assert history.reports.tolist() == [1, 0, 0, 1]


def test_factor_is_a_moving_average_of_log_time_over_the_model() -> None:
    history = FleetHistory.empty(1)
    for number, seconds in enumerate((20.0, 40.0, 10.0), start=1):
        history = history.after(number, Shown.of([0], [True], [seconds], modelled_training=[10.0]))
    first = math.log(2)
    second = first + 0.3 * (math.log(4) - first)
    third = second + 0.3 * (0.0 - second)
    assert float(history.compute[0]) == pytest.approx(third, rel=1e-6)


def test_training_and_transfer_have_factors_of_their_own() -> None:
    shown = Shown.of(
        [0],
        [True],
        [50.0],
        training_seconds=[20.0],
        modelled_training=[10.0],
        modelled_transfer=[60.0],
    )
    history = FleetHistory.empty(1).after(1, shown)
    assert float(history.compute[0]) == pytest.approx(math.log(2))
    assert float(history.transfer[0]) == pytest.approx(math.log(0.5))


def test_residuals_are_counted_by_class_and_experience() -> None:
    history = FleetHistory.empty(2)
    for number, seconds in enumerate((2.0, 2.0, 2.0), start=1):
        history = history.after(number, Shown.of([1], [True], [seconds], device=[2]))
    assert history.time_residuals.shape == (3, 3, BINS)
    by_experience = history.time_residuals[2].sum(axis=1)
    np.testing.assert_allclose(by_experience, [0.98**2, 0.98, 1.0], rtol=1e-5)
    # The first report was twice the model; the second was what its factor said.
    assert EDGES[int(history.time_residuals[2, 0].argmax())] <= math.log(2)
    assert abs(EDGES[int(history.time_residuals[2, 1].argmax())]) < 0.11


def test_who_did_not_answer_speaks_only_when_it_was_waited_for_longer_than_predicted() -> None:
    history = FleetHistory.empty(2).after(
        1,
        Shown.of([0, 1], [False, False], [0.5, 4.0]),  # the model says one second
    )
    assert np.isnan(history.compute[0])
    assert float(history.compute[1]) == pytest.approx(math.log(4))
    assert history.reports.tolist() == [0, 0]
    assert history.time_residuals.sum() == 0


def test_energy_and_rate() -> None:
    shown = Shown.of(
        [0],
        [True],
        [30.0],
        training_seconds=[20.0],
        joules=[8.0],
        modelled_joules=[2.0],
        bytes_up=[1000.0],
    )
    history = FleetHistory.empty(1).after(1, shown)
    assert float(history.energy[0]) == pytest.approx(math.log(4))
    assert float(history.rate[0]) == pytest.approx(math.log(100))


def test_unknown_times_leave_factors_unknown() -> None:
    history = FleetHistory.empty(1).after(1, Shown.of([0], [True]))
    assert history.merged[0] == 1
    for name in ("compute", "transfer", "energy", "loss", "rate"):
        assert np.isnan(getattr(history, name)[0])


def test_unknown_columns_are_refused() -> None:
    with pytest.raises(TypeError, match="colour"):
        Shown.of([0], [True], colour=[1.0])


tasks = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.booleans(),
        st.floats(0.01, 1e4),
        st.one_of(st.just(math.nan), st.floats(0.01, 100.0)),
    ),
    max_size=12,
)


@given(rounds=st.lists(tasks, max_size=4))
def test_adding_rounds_is_pure_and_equal_to_adding_tasks_one_by_one(
    rounds: list[list[tuple[int, bool, float, float]]],
) -> None:
    together, single = FleetHistory.empty(6), FleetHistory.empty(6)
    for number, entries in enumerate(rounds, start=1):
        columns = [list(column) for column in zip(*entries, strict=True)] or [[], [], [], []]
        clients, merged, seconds, loss = columns
        before = FleetHistory.from_arrays(together.arrays())
        after = together.after(number, Shown.of(clients, merged, seconds, loss=loss))
        same(together, before)
        together = after
        for client, good, time, value in entries:
            single = single.after(number, Shown.of([client], [good], [time], loss=[value]))
    for name in ("asked", "merged", "failed", "reports", "last_asked", "last_merged"):
        np.testing.assert_array_equal(getattr(together, name), getattr(single, name))
    for name in ("compute", "loss"):
        np.testing.assert_allclose(getattr(together, name), getattr(single, name), rtol=1e-5)
    same(FleetHistory.from_arrays(together.arrays()), together)


def test_a_history_takes_room_for_those_that_were_asked_only() -> None:
    history = FleetHistory.empty(100_000).after(1, Shown.of([5, 77_000], [True, True], [1.0, 2.0]))
    arrays = history.arrays()
    assert sum(array.nbytes for array in arrays.values()) < 4000
    same(FleetHistory.from_arrays(arrays), history)


def test_being_asked_counts_at_once() -> None:
    history = FleetHistory.empty(3).asked_now(4, [2])
    assert history.last_asked.tolist() == [0, 0, 4]
    same(FleetHistory.from_arrays(history.arrays()), history)


def test_reliability_is_pulled_towards_the_fleet() -> None:
    history = FleetHistory.empty(2)
    np.testing.assert_allclose(history.reliability(), 0.9)
    for number in range(1, 6):
        history = history.after(number, Shown.of([0], [False]))
    share = 0.9 * 5 / (5 + 5)
    np.testing.assert_allclose(history.reliability(), [share * 5 / 10, share])
