"""Private runs over real daemons and clients: both ends count, and a site keeps its own cap."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from served_fleets import AGREES, NAMES, PLAN, ServedFleet

from anabranch.client.home import ClientHome
from anabranch.client.policy import ClientPolicy, PrivacyRules
from anabranch.client.vault import FileKey
from anabranch.coordinator.store import Store
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


@pytest.mark.slow
def test_an_old_copy_of_a_folder_declines(fleet: ServedFleet, tmp_path: Path) -> None:
    fleet.start_daemon()
    fleet.start_clients()
    first = fleet.submit(text(fleet, 4).replace("epsilon = 300.0", "epsilon = 400.0"))
    assert fleet.ended(first).state == "complete"
    where = fleet.folder / "homes" / "west"
    fleet.clients["west"].kill()
    fleet.clients["west"].join()
    with home(fleet, "west") as opened:
        assert opened.spending.given() == 3
    # The folder of before the run: it is enrolled, and its count is empty.
    (where / "spending.sqlite").unlink()
    fleet.start_client("west")
    second = fleet.submit(text(fleet, 3))
    assert fleet.ended(second).state == "complete"
    assert "AB-992" in " ".join(fleet.run(second).troubles)
    with Store.open(fleet.store) as store:
        rounds = store.rounds(second)[1:]
    fates = [
        dict(zip(r.client_columns["client"], r.client_columns["fate"], strict=True)) for r in rounds
    ]
    assert [f["west"] for f in fates] == ["declined"] * 3
    fleet.close()
    with home(fleet, "west") as opened:
        assert opened.spending.given() == 0


INSIDE = """
[aggregation]
weighting = { kind = "uniform" }
[evaluation]
on = "clients"
every = 0
[privacy]
epsilon = 50.0
delta = 1e-3
population = "rows"
population_size = 220
unit = "example"
statistics_share = 0.2
evaluation_share = 0.2
[privacy.mechanism]
kind = "dp-sgd"
batch = 512
clip = { kind = "fixed", norm = 1.0 }
"""


@pytest.mark.slow
def test_noisy_statistics_and_metrics_over_real_processes(fleet: ServedFleet) -> None:
    """Sites add the noise themselves, every release has its line, and both ends count it once."""
    fleet.patience = 150.0  # four processes import the accountant at once
    fleet.start_daemon()
    fleet.start_clients()
    plan = PLAN.format(sites=fleet.sites, rounds=2, algorithm="fedavg")
    plan = plan.replace('name = "age", unit', 'name = "age", range = [0, 120], unit')
    plan = plan.replace('"centre", type', '"centre", codes = { a = 0, b = 1 }, type')
    run = fleet.submit(plan + INSIDE)
    over = ("complete", "failed", "dead")
    fleet.until(lambda s: any(r.state in over for r in s.runs), 240.0)
    status = fleet.run(run)
    assert status.state == "complete", status
    with PopulationLedger.existing(fleet.store / "ledgers", "rows") as ledger:
        balance = ledger.balance()
    released = sorted(
        (r.reserved.site, r.reserved.purpose, r.reserved.round)
        for r in balance.runs[run].releases.values()
    )
    each = [("evaluation", 2), ("model", 1), ("model", 2), ("statistics", 0)]
    assert released == [(site, *what) for site in sorted(NAMES) for what in each]
    assert all(r.settled is not None for r in balance.runs[run].releases.values())
    assert balance.epsilon() <= 50.0 * (1 + 1e-6)
    with Store.open(fleet.store) as store:
        words = {r.entry.what: r.entry.mechanism for r in store.releases(run)}
        metrics = store.rounds(run)[-1].metrics
    assert not [what for what, how in words.items() if how == "unprotected"]
    assert {"accuracy", "accuracy_noise", "loss"} <= set(metrics)
    fleet.close()
    for name in NAMES:
        with home(fleet, name) as opened:
            (counted,) = opened.spending.runs()
            assert opened.spending.rounds(*counted, "statistics") == (0,)
            assert opened.spending.rounds(*counted, "evaluation") == (2,)
            assert opened.spending.rounds(*counted) == (1, 2)
            assert opened.spending.total(1e-3) == pytest.approx(50.0, rel=2e-2)
