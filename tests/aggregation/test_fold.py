"""The accumulator passes the fold's contract; numbers small enough to check by hand."""

from __future__ import annotations

import numpy as np

from anabranch.aggregation import Accumulator, FoldPlan, round_to_quantum
from anabranch.testing import FoldContract
from anabranch.updates import WEIGHT, Section, Sections, Update


class TestAccumulator(FoldContract):
    """The fold of every runtime."""


def test_weighted_mean_by_hand() -> None:
    sections = Sections((Section.vector("delta", 2), Section.statistic(WEIGHT)))
    accumulator = Accumulator(FoldPlan(sections, capacity=2))
    accumulator.add(Update({"delta": np.float32([1, 2])}, {WEIGHT: 1.0}), "a")
    accumulator.add(Update({"delta": np.float32([5, -2])}, {WEIGHT: 3.0}), "b")
    total = accumulator.total()
    assert total.weight == 4.0
    assert total.contributors == 2
    assert total.mean("delta").tolist() == [4.0, -1.0]
    assert total.mean(WEIGHT).tolist() == [2.0]


def test_limits_follow_from_the_plan() -> None:
    plan = FoldPlan(Sections((Section.vector("delta", 1),)), capacity=100)
    assert plan.limit(plan.sections["delta"]) == 2.0**28 / 100
    assert FoldPlan(plan.sections, 1).limit(plan.sections["delta"]) == 2.0**27


def test_float32_addition_would_depend_on_order() -> None:
    """The reason for the fold: the plain sum of these three has two values."""
    values = [np.float32(1e8), np.float32(-1e8), np.float32(1)]
    assert (values[0] + values[1]) + values[2] != values[0] + (values[1] + values[2])


def test_round_to_quantum_is_half_to_even() -> None:
    assert [round_to_quantum(x, 1.0) for x in (0.5, 1.5, 2.5, -0.5, -1.5)] == [0, 2, 2, 0, -2]


def test_no_sections_at_all() -> None:
    accumulator = Accumulator(FoldPlan(Sections(()), capacity=1))
    accumulator.add(Update({}, {}), "a")
    assert accumulator.total().sums == {}


def test_a_section_of_length_zero() -> None:
    sections = Sections((Section.vector("delta", 0), Section.count("examples")))
    accumulator = Accumulator(FoldPlan(sections, capacity=1))
    accumulator.add(Update({"delta": np.zeros(0, np.float32)}, {"examples": 3.0}), "a")
    assert accumulator.total().scalar("examples") == 3.0
