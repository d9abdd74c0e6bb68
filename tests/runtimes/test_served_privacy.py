"""Private runs over real daemons and clients: both ends count, and a site keeps its own cap."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from served_fleets import AGREES, NAMES, PLAN, ServedFleet

from anabranch.client.home import ClientHome
from anabranch.client.policy import ClientPolicy, PrivacyRules
from anabranch.client.vault import FileKey
from anabranch.coordinator.store.ledger import PopulationLedger

PRIVATE = """
[aggregation]
weighting = { kind = "uniform" }
[evaluation]
on = "nowhere"
[privacy]
epsilon = 300.0
delta = 1e-2
population = "sites"
population_epsilon = 1000.0
unit = "site"
open_statistics = "synthetic rows of a test"
[privacy.mechanism]
kind = "ftrl"
participations = 3
clip = { kind = "fixed", norm = 1.0 }
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[ServedFleet]:
    made = ServedFleet(tmp_path / "f")
    yield made
    made.close()


def text(fleet: ServedFleet, quorum: int) -> str:
    plan = PLAN.format(sites=fleet.sites, rounds=3, algorithm="fedavg")
    rounds = f"[rounds]\ncount = 3\nquorum = {quorum}"
    return plan.replace("[rounds]\ncount = 3", rounds) + PRIVATE


def home(fleet: ServedFleet, name: str) -> ClientHome:
    path = fleet.folder / "homes" / name
    return ClientHome(path, FileKey(path.with_suffix(".key")), AGREES)


@pytest.mark.slow
def test_both_ends_count_every_round(fleet: ServedFleet) -> None:
    fleet.start_daemon()
    fleet.start_clients()
    run = fleet.submit(text(fleet, 4))
    assert fleet.ended(run).state == "complete"
    with PopulationLedger.existing(fleet.store / "ledgers", "sites") as ledger:
        released = ledger.balance().runs[run]
        links = ledger.links()
    assert len(released.releases) == 3
    fleet.close()
    for name in NAMES:
        with home(fleet, name) as opened:
            coordinator = opened.pins.coordinator
            (counted,) = [key for key in opened.spending.runs() if key[0] == coordinator]
            assert opened.spending.rounds(*counted) == (1, 2, 3)
            assert opened.spending.total(1e-2) == pytest.approx(300.0, rel=1e-3)
            head = opened.spending.known_head(coordinator, "sites")
            assert head is not None
            assert links[head[0]].digest == head[1]


@pytest.mark.slow
def test_a_site_with_a_lower_cap_takes_no_part(fleet: ServedFleet) -> None:
    fleet.start_daemon()
    strict = ClientPolicy(
        contract=AGREES.contract, privacy=PrivacyRules(max_total_epsilon=100.0, total_delta=1e-2)
    )
    for name in NAMES:
        fleet.start_client(name, strict if name == "west" else AGREES)
    fleet.until(lambda status: len(fleet.members()) == len(NAMES))
    run = fleet.submit(text(fleet, 3))
    assert fleet.ended(run).state == "complete"
    with PopulationLedger.existing(fleet.store / "ledgers", "sites") as ledger:
        releases = ledger.balance().runs[run].releases.values()
    assert {held.reserved.contributors for held in releases} == {3}
    fleet.close()
    with home(fleet, "west") as opened:
        assert opened.spending.runs() == ()
