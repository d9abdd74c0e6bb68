"""How a budget is dealt to rounds, what a plan promises in numbers, what the algebra refuses."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from anabranch.errors import AnabranchError
from anabranch.plan import Plan, judge
from anabranch.plan.promise import Promise, promise_of
from anabranch.plan.trust import trust_line
from anabranch.privacy.accounting import banded_toeplitz, claim, exact_noise
from anabranch.privacy.budget import (
    AdaptiveAllocation,
    Allocation,
    DecayingAllocation,
    Shares,
    UniformAllocation,
    projection,
)
from anabranch.privacy.events import GaussianEvent, NoSampling, PoissonSampling, Relation
from anabranch.privacy.ledger import (
    Balance,
    MatrixEvent,
    Request,
    allot,
    charges_of,
    epsilon_of,
    reserve,
    share_of,
)

DELTA = 1e-5
CLIP = {"kind": "fixed", "norm": 1.0}


def plan(mechanism: dict[str, object], rounds: int = 20, **privacy: object) -> Plan:
    table = {
        "epsilon": 1.0,
        "delta": DELTA,
        "population": "people",
        "mechanism": {"clip": CLIP, **mechanism},
        **privacy,
    }
    return Plan.model_validate(
        {
            "data": {"source": "arrays"},
            "model": {"name": "logistic"},
            "rounds": {"count": rounds, "cohort": 10},
            "evaluation": {"on": "holdout", "every": 5},
            "aggregation": {"weighting": {"kind": "uniform"}},
            "privacy": table,
        }
    )


def codes(given: Plan) -> set[str]:
    return {refusal.code for refusal in judge(given).refusals}


ALLOCATIONS = st.one_of(
    st.just(UniformAllocation()),
    st.builds(DecayingAllocation, factor=st.floats(0.8, 1.2)),
    st.builds(
        AdaptiveAllocation,
        boost=st.floats(1.1, 3.0),
        patience=st.integers(1, 4),
        most=st.floats(1, 16),
    ),
)


@given(ALLOCATIONS, st.integers(1, 25), st.integers(1, 25), st.lists(st.floats(0, 1), max_size=25))
def test_any_rounds_of_one_client_keep_the_budget(
    allocation: Allocation, rounds: int, participations: int, seen: list[float]
) -> None:
    """The dearest k rounds cost at most the budget, whatever the metric did."""
    k = min(participations, rounds)
    shares, spent = Shares(2.0, rounds, k, allocation), []
    for round_ in range(1, rounds + 1):
        spent.append(shares.share(round_, seen[: round_ - 1], spent))
    assert math.fsum(sorted(spent)[-k:]) <= 2.0 * (1 + 1e-9)
    assert min(spent) > 0


def test_uniform_and_decaying_shares_by_hand() -> None:
    assert Shares(1.0, 4, 4, UniformAllocation()).planned() == (0.25,) * 4
    # weights 1, 1.5, 2.25: the two largest cost the whole budget
    growing = Shares(3.0, 3, 2, DecayingAllocation(factor=1.5)).planned()
    assert growing == pytest.approx([3 / 3.75, 4.5 / 3.75, 6.75 / 3.75])


def test_adaptive_shares_rise_when_validation_rests() -> None:
    shares = Shares(8.0, 8, 8, AdaptiveAllocation(boost=2.0, patience=1))
    assert shares.share(1, [], []) == 0.5
    assert shares.share(3, [0.1, 0.2], [0.5, 0.5]) == 0.5
    assert shares.share(4, [0.1, 0.2, 0.2], [0.5] * 3) == 1.0
    assert shares.share(5, [0.1, 0.2, 0.2, 0.2], [0.5] * 3 + [1.0]) == 2.0
    # nothing may be taken from the half that later rounds are owed
    assert shares.share(8, [0.2] * 7, [0.5] * 3 + [1.0, 2.0, 2.0, 1.0]) == pytest.approx(0.5)


def test_projection_to_exhaustion() -> None:
    def spent(rounds: int) -> float:
        return claim([GaussianEvent(10.0, max(rounds, 1))], DELTA).epsilon

    found = projection(spent, budget=2.0, done=10, planned=100)
    assert found.exhausted_at is not None
    assert spent(found.exhausted_at) <= 2.0 < spent(found.exhausted_at + 1)
    assert found.rounds == found.exhausted_at - 10
    assert found.epsilon == spent(100)
    assert projection(spent, budget=50.0, done=10, planned=100).exhausted_at is None


MECHANISMS: list[tuple[dict[str, object], dict[str, object]]] = [
    ({"kind": "gaussian"}, {}),
    ({"kind": "gaussian", "participations": 3}, {}),
    ({"kind": "gaussian", "participations": 3}, {"allocation": {"kind": "decaying"}}),
    ({"kind": "gaussian"}, {"allocation": {"kind": "decaying", "factor": 0.95}}),
    ({"kind": "gaussian"}, {"allocation": {"kind": "adaptive"}}),
    ({"kind": "gaussian"}, {"spares": 3}),
    ({"kind": "gaussian"}, {"relation": "replace-one"}),
    ({"kind": "ftrl"}, {}),
    ({"kind": "ftrl", "participations": 4}, {"spares": 2}),
    ({"kind": "ftrl", "participations": 2, "separation": 5, "bands": 3}, {}),
    ({"kind": "distributed", "participations": 2}, {}),
]


@pytest.mark.parametrize(("mechanism", "privacy"), MECHANISMS)
def test_the_planned_rounds_use_the_budget_and_keep_it(
    mechanism: dict[str, object], privacy: dict[str, object]
) -> None:
    promise = promise_of(plan(mechanism, **privacy), 1000)
    balance = started(promise)
    assert balance.epsilon() == pytest.approx(1.0, rel=1e-6)
    spent: list[float] = []
    for round_ in range(1, 21):
        charge = promise.model_charge(round_, spent=spent)
        entry, _ = reserve(balance, "r", Request("model", round_, "v", ("a",), "p", charge))
        balance = balance.after(entry)
        if isinstance(charge, GaussianEvent):
            spent.append(charge.noise_to_sensitivity**-2)
    assert balance.epsilon() <= 1.0 + 1e-6


def started(promise: Promise) -> Balance:
    empty = Balance(promise.opened)
    entry = allot(empty, promise.allotted("r"))
    assert entry is not None
    return empty.after(entry)


def test_noise_of_the_mechanisms_by_formula() -> None:
    one = exact_noise(1.0, DELTA)
    plain = promise_of(plan({"kind": "gaussian"}), 1000).model_charge(1)
    assert plain.noise_multiplier == pytest.approx(one * math.sqrt(20))
    limited = promise_of(plan({"kind": "gaussian", "participations": 3}), 1000).model_charge(1)
    assert limited.noise_multiplier == pytest.approx(one * math.sqrt(3))
    replaced = promise_of(plan({"kind": "gaussian"}, relation="replace-one"), 1000)
    assert replaced.model_charge(1).noise_multiplier == pytest.approx(2 * one * math.sqrt(20))
    matrix = promise_of(plan({"kind": "ftrl", "participations": 4}), 1000).model_charge(7)
    assert isinstance(matrix, MatrixEvent)
    assert (matrix.rounds, matrix.separation, matrix.bands) == (7, 5, 5)
    expected = one * banded_toeplitz(20, 5, 4).sensitivity
    assert matrix.noise_multiplier == pytest.approx(expected)


def test_coins_are_capped_and_cheaper() -> None:
    promise = promise_of(plan({"kind": "gaussian", "sampling": "poisson"}, rounds=100), 1000)
    assert promise.sampling == PoissonSampling(0.01, 29, 1000)
    charge = promise.model_charge(1)
    assert charge.noise_multiplier == pytest.approx(0.903, rel=2e-3)
    assert isinstance(charge, GaussianEvent)
    assert promise.opened.relation is Relation.ADD_OR_REMOVE
    assert epsilon_of([replace(charge, rounds=100)], DELTA) <= 1.0
    assert isinstance(promise_of(plan({"kind": "gaussian"}), 1000).sampling, NoSampling)


def test_part_of_the_budget_is_for_evaluations() -> None:
    promise = promise_of(plan({"kind": "gaussian"}, evaluation_share=0.2), 1000)
    model, evaluation = promise.lines
    whole = share_of(charges_of(model.charges)) + share_of(charges_of(evaluation.charges))
    assert share_of(charges_of(evaluation.charges)) == pytest.approx(0.2 * whole)
    assert sum(charge.rounds for charge in evaluation.charges) == 4
    assert promise.evaluation_charge() == replace(evaluation.charges[0], rounds=1)


def test_a_share_that_nothing_spends_is_refused() -> None:
    refusals = judge(plan({"kind": "gaussian"}, evaluation_share=0.2)).refusals
    assert [refusal.code for refusal in refusals] == ["AB-937"]
    assert "--set privacy.evaluation_share=" in [a.settings for a in refusals[0].alternatives]
    assert "AB-937" not in codes(plan({"kind": "gaussian"}))


def test_stated_noise_that_breaks_the_promise_is_refused() -> None:
    promise = promise_of(plan({"kind": "gaussian", "noise_multiplier": 4.0}), 1000)
    with pytest.raises(AnabranchError, match="AB-917"):
        allot(Balance(promise.opened), promise.allotted("r"))


def test_the_units_of_a_site_must_be_known() -> None:
    inside = plan({"kind": "dp-sgd", "batch": 8}, unit="subject")
    with pytest.raises(AnabranchError, match="AB-926"):
        promise_of(inside, 4)


def test_sites_share_the_budget_unless_nobody_is_at_two() -> None:
    sites = {"va": 200, "ch": 400}
    apart = plan({"kind": "dp-sgd", "batch": 16, "disjoint": True}, unit="subject", delta=1e-3)
    shared = plan({"kind": "dp-sgd", "batch": 16}, unit="subject", delta=1e-3)
    noise = {}
    for name, planned in (("apart", apart), ("shared", shared)):
        promise = promise_of(planned, 2, sites)
        noise[name] = promise.lines[0].charges[0].noise_multiplier
        found = started(promise).epsilon()
        assert 0.97 < found <= 1.0 + 1e-6
    assert noise["shared"] > 1.2 * noise["apart"]


def test_delta_must_suit_the_population() -> None:
    with pytest.raises(AnabranchError, match="AB-910"):
        promise_of(plan({"kind": "gaussian"}, delta=0.01), 10_000)
    assert "AB-910" in codes(plan({"kind": "gaussian"}, delta=0.01, population_size=10_000))
    assert "AB-910" not in codes(plan({"kind": "gaussian"}, population_size=10_000))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epsilon", 0.0),
        ("epsilon", -1.0),
        ("epsilon", float("inf")),
        ("delta", 0.0),
        ("delta", 1.0),
        ("population", ""),
        ("population", "Not a Name"),
        ("population_epsilon", 0.5),
        ("evaluation_share", 1.0),
        ("unit", "person"),
    ],
)
def test_values_that_no_promise_can_have(key: str, value: object) -> None:
    with pytest.raises(ValidationError, match=key):
        plan({"kind": "gaussian"}, **{key: value})


def test_a_mechanism_needs_a_clip() -> None:
    with pytest.raises(ValidationError, match="clip"):
        plan({"kind": "gaussian", "clip": None})


@pytest.mark.parametrize(
    ("mechanism", "code"),
    [
        ({"kind": "ftrl", "participations": 5, "separation": 10}, "AB-928"),
        ({"kind": "ftrl", "participations": 2, "separation": 4, "bands": 6}, "AB-928"),
        ({"kind": "ftrl", "clip": {"kind": "adaptive"}}, "AB-933"),
        ({"kind": "distributed", "noise": "skellam", "clip": {"kind": "adaptive"}}, "AB-933"),
    ],
)
def test_refused_by_the_algebra_with_a_way_out(mechanism: dict[str, object], code: str) -> None:
    refusals = [r for r in judge(plan(mechanism)).refusals if r.code == code]
    assert refusals
    assert refusals[0].alternatives
    assert code not in codes(plan({"kind": "ftrl", "participations": 5}))


@pytest.mark.parametrize(
    ("mechanism", "allocation"),
    [
        ({"kind": "ftrl"}, {"kind": "decaying"}),
        ({"kind": "distributed"}, {"kind": "adaptive"}),
        ({"kind": "gaussian", "sampling": "poisson"}, {"kind": "decaying"}),
        ({"kind": "gaussian", "noise_multiplier": 30.0}, {"kind": "decaying"}),
    ],
)
def test_allocations_that_would_compute_something_else(
    mechanism: dict[str, object], allocation: dict[str, object]
) -> None:
    assert "AB-944" in codes(plan(mechanism, allocation=allocation))
    assert "AB-944" not in codes(plan({"kind": "gaussian"}, allocation=allocation))


def test_the_trust_line_says_what_is_promised() -> None:
    line = trust_line(plan({"kind": "ftrl"}))
    for words in ("epsilon 1", "delta 1e-05", "client", "zero-out", "the coordinator"):
        assert words in line
