"""Learning-rate schedules over rounds."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from anabranch.schedules import Constant, Cosine, Exponential, Schedule, Stepwise

ANY: TypeAdapter[Schedule] = TypeAdapter(Schedule)

_gammas = st.floats(0.01, 1.0)
_schedules = st.one_of(
    st.just(Constant()),
    st.builds(Exponential, gamma=_gammas),
    st.builds(Cosine, final=st.floats(0, 1)),
    st.builds(
        Stepwise,
        milestones=st.lists(st.integers(1, 50), max_size=4).map(tuple),
        gamma=_gammas,
    ),
)


@given(_schedules, st.integers(1, 60))
def test_factors_start_at_one_and_never_grow(schedule: Schedule, rounds: int) -> None:
    factors = [schedule.factor(round_, rounds) for round_ in range(1, rounds + 1)]
    assert factors[0] == 1.0
    assert all(late <= early + 1e-12 for early, late in pairwise(factors))
    assert all(0 <= factor <= 1 for factor in factors)


@given(_schedules)
def test_schedules_survive_plain_data(schedule: Schedule) -> None:
    assert ANY.validate_python(ANY.dump_python(schedule)) == schedule


def test_exponential() -> None:
    assert [Exponential(gamma=0.5).factor(r, 9) for r in (1, 2, 4)] == [1.0, 0.5, 0.125]


def test_cosine() -> None:
    schedule = Cosine(final=0.2)
    assert [schedule.factor(r, 5) for r in (1, 3, 5)] == pytest.approx([1.0, 0.6, 0.2])
    assert schedule.factor(7, 5) == pytest.approx(0.2)  # a run that is prolonged stays there
    assert Cosine().factor(1, 1) == 1.0


def test_stepwise() -> None:
    """Milestones are the last rounds of the higher rate."""
    schedule = Stepwise(milestones=(2, 4), gamma=0.1)
    assert [schedule.factor(r, 9) for r in (1, 2, 3, 4, 5)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])
