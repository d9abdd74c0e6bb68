"""What an amendment may change, and what it must leave as it is."""

from __future__ import annotations

import pytest

from anabranch.errors import AnabranchError
from anabranch.plan import Plan, parse_plan
from anabranch.plan.amend import (
    AMENDABLE,
    Amendment,
    amended_contract,
    amended_plan,
    amendment_of,
    beyond,
    differences,
)
from anabranch.plan.overrides import parse_override, put

BASE: dict[str, object] = {
    "schema": 1,
    "name": "heart",
    "data": {"source": "heart"},
    "model": {"name": "logistic"},
    "rounds": {"count": 20},
    "runtime": {"engine": "numpy"},
}
PRIVATE = [
    "privacy.epsilon=2.0",
    "privacy.delta=1e-5",
    'privacy.population="p"',
    "privacy.population_size=1000",
    "privacy.mechanism.clip={kind = 'fixed', norm = 1.0}",
    "evaluation.on='nowhere'",
]


def plan(*changes: str) -> Plan:
    import tomli_w

    tables = dict(BASE)
    for change in changes:
        tables = put(tables, *parse_override(change))
    return parse_plan(tomli_w.dumps(tables))


@pytest.mark.parametrize(
    "change",
    ["rounds.count=50", "rounds.deadline=60.0", "stop.max_seconds=10.0", "limits.max_seconds=9.0"],
)
def test_how_long_a_run_lasts_may_change(change: str) -> None:
    old, new = plan(), plan(change)
    assert amended_plan(old, new, done=7) == new
    assert set(differences(old.contract(), new.contract())) == {change.partition("=")[0]}
    assert not beyond(old.contract(), new.contract())
    assert set(differences(old.contract(), new.contract())) <= set(AMENDABLE)


@pytest.mark.parametrize(
    "change",
    [
        "seed=1",
        "local.epochs=2",
        "local.learning_rate=0.5",
        "model.name='mlp'",
        "algorithm.name='fedprox'",
        "rounds.quorum=1",
        "rounds.cohort=2",
        "unprotected='no reason'",
        "data.min_examples=3",
    ],
)
def test_everything_else_is_another_run(change: str) -> None:
    with pytest.raises(AnabranchError, match=change.partition("=")[0]) as caught:
        amended_plan(plan(), plan("rounds.count=50", change), done=3)
    assert caught.value.code == "AB-796"


def test_rounds_that_are_done_stay_done() -> None:
    assert amended_plan(plan(), plan("rounds.count=7"), done=7).rounds.count == 7
    with pytest.raises(AnabranchError, match=r"AB-796.*7 rounds are done"):
        amended_plan(plan(), plan("rounds.count=6"), done=7)


def test_what_is_no_part_of_a_contract_stays_as_it_is() -> None:
    amended = amended_plan(plan(), plan("rounds.count=50", "runtime.engine='eager'"), done=0)
    assert amended.runtime == plan().runtime


def test_noise_that_was_made_for_all_rounds_is_not_amended() -> None:
    for kind in ("ftrl", "gaussian"):
        old = plan(*PRIVATE, f"privacy.mechanism.kind='{kind}'")
        for change in ("rounds.count=40", "privacy.epsilon=4.0"):
            new = plan(*PRIVATE, f"privacy.mechanism.kind='{kind}'", change)
            if kind == "gaussian":
                assert amended_plan(old, new, done=3) == new
                continue
            with pytest.raises(AnabranchError, match="AB-797"):
                amended_plan(old, new, done=3)
        longer = plan(*PRIVATE, f"privacy.mechanism.kind='{kind}'", "rounds.deadline=60.0")
        assert amended_plan(old, longer, done=3) == longer


def test_an_amended_contract_names_those_before_it() -> None:
    given = Amendment(number=2, predecessors=("ab" * 32, "cd" * 32), added=("west",), reason="more")
    contract = amended_contract(plan(), given)
    assert amendment_of(contract) == given
    assert given.predecessors[-1] == "cd" * 32
    assert amendment_of(plan().contract()) is None
    assert amended_contract(plan(), None) == plan().contract()
    assert not differences(contract, plan().contract())
