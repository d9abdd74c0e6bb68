"""Weights are pure functions of declared sections."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from anabranch.aggregation import (
    Accumulator,
    Custom,
    Examples,
    FoldPlan,
    Steps,
    Uniform,
    WeightRule,
)
from anabranch.errors import AnabranchError
from anabranch.updates import WEIGHT, Sections, Update

RULES = TypeAdapter[WeightRule](WeightRule)


def root(examples: int, steps: int) -> float:
    """A user's own rule."""
    return math.sqrt(examples)


def zero(examples: int, steps: int) -> float:
    """A rule that is wrong."""
    return 0.0


def text(examples: int, steps: int) -> str:
    """Another one."""
    return "many"


@pytest.mark.parametrize(
    ("rule", "weight"),
    [
        (Examples(), 300.0),
        (Examples(cap=100), 100.0),
        (Examples(cap=1000), 300.0),
        (Uniform(), 1.0),
        (Steps(), 7.0),
        (Custom(function=f"{__name__}:root"), math.sqrt(300)),
    ],
)
def test_weights(rule: WeightRule, weight: float) -> None:
    assert rule.weight(300, 7) == weight
    assert RULES.validate_python(rule.model_dump()) == rule


@given(st.integers(1, 10**9), st.integers(1, 10**6), st.integers(1, 10**6))
def test_weights_are_finite_positive_and_bounded(examples: int, steps: int, cap: int) -> None:
    for rule in (Examples(), Examples(cap=cap), Uniform(), Steps()):
        assert 0 < rule.weight(examples, steps) <= rule.bound


@pytest.mark.parametrize("name", ["zero", "text", "RULES"])
def test_weights_that_are_none(name: str) -> None:
    with pytest.raises(AnabranchError, match="AB-423"):
        Custom(function=f"{__name__}:{name}").weight(3, 1)


def test_unknown_functions() -> None:
    with pytest.raises(AnabranchError, match="AB-421"):
        Custom(function="no_such_module_here:f").weight(3, 1)
    with pytest.raises(ValidationError):
        Custom(function="not a name")


def test_a_claim_above_the_cap_is_refused() -> None:
    """The cap is the section's bound: the coordinator need not trust a client's arithmetic."""
    accumulator = Accumulator(FoldPlan(Sections((Examples(cap=100).section(),)), capacity=2))
    accumulator.add(Update({}, {WEIGHT: 100.0}), "honest")
    with pytest.raises(AnabranchError, match="AB-503"):
        accumulator.add(Update({}, {WEIGHT: 101.0}), "boaster")
