"""What the algebra and the fleet say about selection and admission."""

from __future__ import annotations

import pytest

from anabranch.errors import AnabranchError
from anabranch.fleet.selection import DeviceUtility, Known, Selection, Selector, Uniform
from anabranch.fleet.selection.base import Draw
from anabranch.fleet.view import FleetView
from anabranch.plan import Plan, changed, judge
from anabranch.plan.explain import explain
from anabranch.plan.fleet import check_against_fleet

PRIVACY = {
    "epsilon": 1.0,
    "delta": 1e-5,
    "population": "people",
    "mechanism": {"kind": "gaussian", "clip": {"kind": "fixed", "norm": 1.0}},
}


def plan(**tables: object) -> Plan:
    base = {
        "data": {"source": "arrays"},
        "model": {"name": "logistic"},
        "rounds": {"count": 10, "cohort": 10},
    }
    return Plan.model_validate({**base, **tables})


def codes(given: Plan) -> set[str]:
    return {refusal.code for refusal in judge(given).refusals}


def claimed(sampling: str) -> dict[str, object]:
    mechanism = {**PRIVACY["mechanism"], "sampling": sampling}  # type: ignore[dict-item]  # a table of tables
    return {**PRIVACY, "mechanism": mechanism}


@pytest.mark.parametrize("kind", ["oort", "power-of-choice"])
def test_selection_from_losses_is_refused_under_privacy(kind: str) -> None:
    assert "AB-470" in codes(plan(selection={"kind": kind}, privacy=PRIVACY))
    assert codes(plan(selection={"kind": kind})) == set()


def test_device_selection_without_losses_is_accepted_under_privacy() -> None:
    assert "AB-470" not in codes(plan(selection={"kind": "utility"}, privacy=PRIVACY))
    assert "AB-470" in codes(plan(selection={"kind": "utility", "loss": 1.0}, privacy=PRIVACY))


@pytest.mark.parametrize("kind", ["uniform", "weighted", "utility", "stratified"])
def test_amplification_is_claimed_for_coins_only(kind: str) -> None:
    assert "AB-472" in codes(plan(selection={"kind": kind}, privacy=claimed("poisson")))
    assert "AB-472" not in codes(plan(selection={"kind": kind}, privacy=claimed("none")))
    coins = plan(selection={"kind": "poisson"}, privacy=claimed("poisson"))
    assert not codes(coins) & {"AB-472", "AB-473"}


@pytest.mark.parametrize(
    "changes",
    [
        {"rounds.over_selection": 1.3},
        {"rounds.late_window": 1},
        {"selection.separation": 3},
        {"selection.max_participations": 2},
    ],
)
def test_what_makes_coins_dependent_voids_the_claim(changes: dict[str, object]) -> None:
    coins = plan(selection={"kind": "poisson"}, privacy=claimed("poisson"))
    assert "AB-473" in codes(changed(coins, changes))
    unclaimed = plan(selection={"kind": "poisson"}, privacy=claimed("none"))
    assert "AB-473" not in codes(changed(unclaimed, changes))


def test_coins_are_for_rounds() -> None:
    tables = {"rounds": {"count": 10, "asynchronous": {"buffer": 5}}}
    assert "AB-474" in codes(plan(selection={"kind": "poisson"}, **tables))
    assert "AB-474" not in codes(plan(selection={"kind": "uniform"}, **tables))


def test_every_refusal_offers_what_is_accepted() -> None:
    refused = [
        plan(selection={"kind": "oort"}, privacy=PRIVACY),
        plan(selection={"kind": "uniform"}, privacy=claimed("poisson")),
        plan(selection={"kind": "poisson", "separation": 4}, privacy=claimed("poisson")),
        plan(selection={"kind": "poisson"}, rounds={"count": 10, "asynchronous": {"buffer": 5}}),
    ]
    for given in refused:
        for refusal in judge(given).refusals:
            assert refusal.alternatives, refusal.code
            for alternative in refusal.alternatives:
                assert judge(changed(given, alternative.changes)).accepted


def test_a_floor_that_the_fleet_cannot_keep_is_refused() -> None:
    given = plan(selection={"kind": "utility", "floor": 10})
    check_against_fleet(given, 100)
    with pytest.raises(AnabranchError, match=r"AB-550.*at least 11"):
        check_against_fleet(given, 101)


def test_caps_that_leave_too_few_clients_are_refused() -> None:
    given = plan(selection={"kind": "uniform", "max_participations": 2})
    check_against_fleet(given, 25)  # 10 rounds of at least 5
    with pytest.raises(AnabranchError, match=r"AB-551.*at least 3"):
        check_against_fleet(given, 24)


def test_a_floor_with_caps_is_explained() -> None:
    given = plan(selection={"kind": "utility", "max_participations": 4})
    assert any("yields" in note.text for note in judge(given).notes)
    assert not any("yields" in note.text for note in judge(plan()).notes)


def test_selectors_survive_the_way_through_a_file() -> None:
    given = plan(selection={"kind": "utility", "floor": 33, "regions": 0.25})
    again = Plan.model_validate(given.model_dump(mode="json"))
    assert again.selection == DeviceUtility(floor=33, regions=0.25)
    assert again.contract_digest == given.contract_digest
    assert plan().selection == Uniform()


class FirstOnes(Selector):
    """The first clients of the fleet: a user's own rule."""

    def select(
        self, view: FleetView, wanted: int, draw: Draw, known: Known | None = None
    ) -> Selection:
        return Uniform().select(view, wanted, draw, known)


def test_a_users_own_selector_is_named_and_digested() -> None:
    given = plan(selection={"kind": f"{__name__}:FirstOnes"})
    assert isinstance(given.selection, FirstOnes)
    assert [reference.name for reference in given.callables] == [f"{__name__}:FirstOnes"]


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        ("selection", "kind", "fastest"),
        ("selection", "floor", 0),
        ("admission", "max_battery", 1.5),
        ("admission", "max_seconds", -1),
        ("admission", "quiet_hours", [22, 22]),
    ],
)
def test_settings_that_make_no_sense_are_refused(table: str, key: str, value: object) -> None:
    kind = {"kind": "utility"} if table == "selection" else {}
    with pytest.raises(ValueError, match="validation error"):
        plan(**{table: {**kind, key: value}})


def test_the_explanation_says_who_is_asked_and_for_how_much() -> None:
    text = explain(
        plan(
            selection={"kind": "utility", "floor": 12, "separation": 3, "max_participations": 5},
            admission={"max_battery": 0.05, "unmetered_only": True, "quiet_hours": [8, 18]},
        )
    )
    for words in (
        "can afford it are preferred",
        "at least once in 12 rounds",
        "before 3 rounds have passed",
        "at most 5 updates",
        "only while they are on an unmetered connection",
        "between 8 and 18 o'clock",
        "at most 0.05 of a full battery",
    ):
        assert words in " ".join(text.split())
    assert "same chance" in explain(plan())
    everybody = {"rounds": {"count": 10}}
    assert "same chance" not in explain(plan(**everybody))
