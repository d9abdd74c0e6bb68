"""The table [devices]: no part of the contract, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from anabranch.errors import AnabranchError
from anabranch.plan import Plan, explain
from anabranch.plan.devices import DevicesPlan

PLAN: dict[str, object] = {
    "data": {"source": "digits", "partition": {"kind": "iid", "clients": 5}},
    "model": {"name": "logistic"},
}


def test_devices_are_no_part_of_the_contract() -> None:
    without = Plan.model_validate(PLAN)
    simulated = Plan.model_validate({**PLAN, "devices": {"mix": {"entry": 1.0}}})
    assert simulated.contract_digest == without.contract_digest
    assert "devices" not in simulated.contract()


def test_the_explanation_says_what_is_pretended() -> None:
    plan = Plan.model_validate({**PLAN, "devices": {"regions": {"kenya": 3.0}}})
    told = " ".join(explain(plan).split())
    assert "entry (45 %)" in told
    assert "kenya" in told
    assert "hidden from it" in told
    assert "Simulated devices" not in explain(Plan.model_validate(PLAN))


@pytest.mark.parametrize(
    "table",
    [
        {"mix": {"tablet": 1.0}},
        {"mix": {"entry": -1.0}},
        {"mix": {"entry": 0.0}},
        {"regions": {}},
        {"regions": {"nowhere": 20.0}},
        {"data_mb_a_day": -1.0},
        {"flops_per_example": 0.0},
        {"behaviour": {"spread": -0.1}},
        {"behaviour": {"availability": 0.0}},
        {"speed": 3.0},
    ],
)
def test_tables_that_make_no_sense_are_refused(table: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        DevicesPlan.model_validate(table)


def test_a_fleet_from_tables(tmp_path: Path) -> None:
    (tmp_path / "devices.csv").write_text("client,class\na,mid\nb,entry\n")
    (tmp_path / "trace.csv").write_text("client,start,end\na,0,60\nb,0,60\n")
    plan = DevicesPlan(profiles=str(tmp_path / "devices.csv"), trace=str(tmp_path / "trace.csv"))
    fleet = plan.fleet(("a", "b"), seed=0)
    assert fleet.profiles.flops.tolist() == [25e9, 8e9]
    assert fleet.trace is not None
    with pytest.raises(AnabranchError, match="AB-533"):
        plan.fleet(("a", "c"), seed=0)
