"""A site's policy over a real network: what it declines is told, and the round goes on without."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from served_fleets import NAMES, PLAN, ServedFleet

from anabranch.client.home import ClientHome
from anabranch.client.log import Entry, read_log
from anabranch.client.policy import ClientPolicy, ContractRules, WorkRules
from anabranch.client.vault import FileKey
from anabranch.coordinator.store import Store

NEVER = ContractRules(approve="never")


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[ServedFleet]:
    made = ServedFleet(tmp_path / "f")
    yield made
    made.close()


def log_of(fleet: ServedFleet, name: str) -> list[Entry]:
    return list(read_log(fleet.folder / "homes" / name / "log.jsonl"))


def test_sites_decline_by_policy_and_for_want_of_approval(fleet: ServedFleet) -> None:
    """North allows another model only; nobody at south has approved; east and west take part."""
    policies = {
        "north": ClientPolicy(work=WorkRules(models=("mlp",)), contract=NEVER),
        "south": ClientPolicy(),
    }
    fleet.start_daemon()
    for name in NAMES:
        fleet.start_client(name, policy=policies.get(name, ClientPolicy(contract=NEVER)))
    fleet.until(lambda s: len(fleet.members()) == len(NAMES))
    run = fleet.submit(PLAN.format(sites=fleet.sites, rounds=2, algorithm="fedavg"))
    assert fleet.ended(run).state == "complete"
    with Store.open(fleet.store) as store:
        rounds = store.rounds(run)[1:]
    for round_ in rounds:
        assert round_.outcome == "partial"
        columns = {
            name: (fate, detail)
            for name, fate, detail in zip(
                *(round_.client_columns[key] for key in ("client", "fate", "detail")), strict=True
            )
        }
        assert {name: fate for name, (fate, _) in columns.items()} == {
            "north": "declined",
            "south": "declined",
            "east": "merged",
            "west": "merged",
        }
        assert "AB-743" in columns["north"][1]
        assert "model 'logistic'" in columns["north"][1]
        assert "AB-744" in columns["south"][1]
    for process in fleet.clients.values():
        process.kill()
        process.join()
    for name in ("north", "south"):
        kinds = [entry.what for entry in log_of(fleet, name)]
        assert "sent" not in kinds
        assert "declined" in kinds
    assert "sent" in [entry.what for entry in log_of(fleet, "east")]
    home = fleet.folder / "homes" / "south"  # a person at south may still read and agree
    with ClientHome(home, FileKey(home.with_suffix(".key"))) as opened:
        (digest,) = opened.contracts.shown()
        assert opened.contracts.approve(digest[:16]) == digest
