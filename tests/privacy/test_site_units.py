"""Units of privacy at each site, declared by the contract: what follows, and what nobody tells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anabranch.api.servable import require_servable
from anabranch.client.equipment import Equipment
from anabranch.client.inside import InsideNoise
from anabranch.data.federation import Examples
from anabranch.errors import AnabranchError
from anabranch.plan import Plan, plan_from
from anabranch.plan.privacy import LocalDpSgd
from anabranch.plan.promise import promise_of
from anabranch.plan.site_units import declared_rows, declared_units, known_units
from anabranch.privacy.accounting import claim
from anabranch.privacy.noise import SecretStream
from anabranch.runtimes.http.client.site import open_site

SCHEMA = {
    "subject": "person",
    "columns": [{"name": "age", "range": [0, 120]}],
    "target": {"column": "ill", "rule": "> 0"},
}


def plan(schema: object = SCHEMA, unit: str = "subject", **mechanism: object) -> Plan:
    stated = {"kind": "dp-sgd", "batch": 16, "clip": {"kind": "fixed", "norm": 1.0}}
    return plan_from(
        {
            "name": "persons",
            "data": {"source": "folder", "path": "x", "test_fraction": 0.25, "table": schema},
            "model": {"name": "logistic"},
            "aggregation": {"weighting": {"kind": "uniform"}},
            "local": {"steps": 2},
            "rounds": {"count": 3},
            "evaluation": {"on": "nowhere"},
            "privacy": {
                "epsilon": 2.0,
                "delta": 1e-4,
                "population": "patients",
                "unit": unit,
                "open_statistics": "a test",
                "mechanism": {**stated, **mechanism},
            },
        }
    )


def steps_of(contract: Plan, site: str, persons: int) -> tuple[float, float, int]:
    """Rate, noise and steps at a site of ``persons`` with two rows each."""
    assert contract.privacy is not None
    assert isinstance(contract.privacy.mechanism, LocalDpSgd)
    rows = np.repeat(np.arange(persons), 2)
    data = Examples(np.zeros((len(rows), 1)), np.zeros(len(rows)), rows)
    inside = InsideNoise(contract, contract.privacy.mechanism)
    made = inside.steps(data, site, SecretStream.system)
    return made.rate, made.multiplier, made.steps


def test_nothing_of_a_sites_steps_depends_on_who_is_there() -> None:
    contract = plan(units={"north": 40, "south": 80}, disjoint=True)
    assert steps_of(contract, "north", 40) == steps_of(contract, "north", 41)
    assert steps_of(contract, "north", 5)[0] == 16 / 40
    assert steps_of(contract, "south", 40)[0] == 16 / 80


@pytest.mark.parametrize("disjoint", [True, False])
def test_a_site_finds_the_noise_that_the_ledger_has_for_it(disjoint: bool) -> None:
    units = {"north": 40, "south": 80}
    contract = plan(units=units, disjoint=disjoint)
    lines = {line.site: line.charges for line in promise_of(contract, 2, units).lines}
    for site, persons in (("north", 33), ("south", 90)):
        (event,) = lines[site]
        rate, noise, steps = steps_of(contract, site, persons)
        assert event.noise_multiplier == noise
        assert (event.rounds, event.sampling.rate) == (3 * steps, rate)  # type: ignore[union-attr]  # coins
    if disjoint:
        assert max(claim(list(c), 1e-4).epsilon for c in lines.values()) <= 2.0 + 1e-9
    everywhere = [event for charges in lines.values() for event in charges]
    assert (claim(everywhere, 1e-4).epsilon <= 2.0 + 1e-9) is not disjoint  # type: ignore[arg-type]  # Gaussian


def test_a_site_counts_its_own_line_alone() -> None:
    contract = plan(units={"north": 40, "south": 80})
    promise = promise_of(contract, 2, known_units(contract, "north", 7)).at("north")
    assert [line.site for line in promise.lines] == ["north"]


def test_one_number_serves_every_site() -> None:
    contract = plan(units=50, disjoint=True)
    assert declared_units(contract, ("a", "b")) == {"a": 50, "b": 50}
    assert declared_units(plan(), ("a",)) is None
    assert known_units(plan(disjoint=True), "a", 9) == {"a": 9}


def test_what_is_declared_is_told_instead_of_the_truth(tmp_path: Path) -> None:
    rows = [f"p{n // 3},{40 + n % 50},{n % 2}" for n in range(90)]
    (tmp_path / "north.csv").write_text("\n".join(["person,age,ill", *rows]) + "\n")
    told = {}
    for units in (None, {"north": 24}):
        site = open_site(plan(units=units, disjoint=True), "north", tmp_path / "north.csv")
        update, _ = site.answer(Equipment(stage="examples", table=site.plan.data.table))
        told[str(units)] = (update.scalars["train_rows"], update.scalars["test_rows"])
        assert site.training_rows.subjects is not None
    assert sum(told["None"]) == 90
    assert told["{'north': 24}"] == (24, 8)
    assert declared_rows(plan(units=9, disjoint=True), "x") == (9, 3)


@pytest.mark.parametrize(
    ("contract", "code"),
    [
        (plan(disjoint=True), "AB-991"),
        (plan(), "AB-982"),
        (plan(units=40), "AB-982"),
        (plan({**SCHEMA, "subject": None}, units=40, disjoint=True), "AB-981"),
        (plan(None, units=40, disjoint=True), "AB-981"),
    ],
)
def test_plans_that_sites_could_not_carry_out_are_refused(contract: Plan, code: str) -> None:
    with pytest.raises(AnabranchError) as refused:
        require_servable(contract)
    assert refused.value.code == code


def test_plans_that_they_can_are_served() -> None:
    require_servable(plan(units=40, disjoint=True))
    require_servable(plan(units={"a": 40, "b": 9}))
    require_servable(plan(units=40, noise_multiplier=9.0))
    require_servable(plan({**SCHEMA, "subject": None}, unit="example"))


def test_a_site_that_the_table_does_not_name_is_refused() -> None:
    with pytest.raises(AnabranchError, match="'west'") as refused:
        declared_units(plan(units={"north": 40}), ("north", "west"))
    assert refused.value.code == "AB-991"
    with pytest.raises(AnabranchError, match="AB-991"):
        steps_of(plan(units={"north": 40}), "west", 40)
