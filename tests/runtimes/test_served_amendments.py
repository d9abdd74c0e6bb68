"""Amendments over a real network: who accepts goes on bitwise, who does not is given no work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.numpy import load_file
from served_fleets import NAMES, PLAN, ServedFleet, sites_plan

from anabranch.api import run_plan
from anabranch.client.contracts import ContractShelf
from anabranch.client.log import read_log
from anabranch.client.policy import ClientPolicy, ContractRules, WorkRules
from anabranch.client.vault import FileKey, open_vault
from anabranch.coordinator.store import Store
from anabranch.coordinator.store.ledger import PopulationLedger
from anabranch.errors import AnabranchError
from anabranch.runtimes.http.client.operator import Operator
from anabranch.runtimes.http.status import RunStatus

NEVER = ContractRules(approve="never")


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[ServedFleet]:
    made = ServedFleet(tmp_path / "f")
    yield made
    made.close()


def text(fleet: ServedFleet, rounds: int, algorithm: str = "scaffold") -> str:
    return PLAN.format(sites=fleet.sites, rounds=rounds, algorithm=algorithm)


def amend(fleet: ServedFleet, run: str, plan: str, *added: str) -> RunStatus:
    with Operator(fleet.store) as operator:
        return operator.amend(run, plan, added, "the model still learns")


def model(store: Path, run: str) -> dict[str, bytes]:
    arrays = load_file(store / "models" / f"{run}.safetensors")
    return {name: array.tobytes() for name, array in arrays.items()}


def test_more_rounds_give_the_model_that_was_planned_with_them(fleet: ServedFleet) -> None:
    """A running run, and one that is complete; a coordinator that is killed in between."""
    wanted = run_plan(sites_plan(fleet.sites, 9, "scaffold"), store=fleet.folder / "simulated")
    fleet.start_daemon()
    fleet.start_clients()
    running = fleet.submit(text(fleet, 2000))
    fleet.until(lambda s: any(r.round >= 1 for r in s.runs))
    at = fleet.run(running).round
    amend(fleet, running, text(fleet, at + 8))
    assert fleet.ended(running).round == at + 8
    ended = fleet.submit(text(fleet, 4))
    assert fleet.ended(ended).state == "complete"
    amend(fleet, ended, text(fleet, 9))
    fleet.kill_daemon()
    fleet.start_daemon()
    status = fleet.ended(ended)
    assert (status.state, status.round, status.rounds) == ("complete", 9, 9)
    everybody = dict.fromkeys(NAMES, "merged")
    assert {n: fates(fleet, ended, n) for n in range(1, 10)} == dict.fromkeys(
        range(1, 10), everybody
    )
    assert model(fleet.store, ended) == model(fleet.folder / "simulated", wanted.id)
    with Store.open(fleet.store) as store:
        events = [event for event in store.events(ended) if event.kind == "amended"]
        record = store.run(ended)
    assert [event.details["changes"] for event in events] == [["rounds.count: 4 -> 9"]]
    assert record.contract_digest == events[0].details["contract"]
    assert "the model still learns" in events[0].text


def leave_note(fleet: ServedFleet, name: str, digest: str = "") -> str:
    """As a person at the site who approves while the client is at work."""
    home = fleet.folder / "homes" / name
    shelf = ContractShelf(open_vault(home / "vault", FileKey(home.with_suffix(".key"))))
    waiting = [shown for shown, agreed in shelf.shown().items() if not agreed]
    return shelf.leave(digest or waiting[-1])


def fates(fleet: ServedFleet, run: str, round_: int) -> dict[str, str]:
    with Store.open(fleet.store) as store:
        stored = next(r for r in store.rounds(run) if r.round == round_)
    names, found = stored.client_columns["client"], stored.client_columns["fate"]
    return {str(name): str(fate) for name, fate in zip(names, found, strict=True)}


def test_who_has_not_accepted_is_given_no_work_until_a_person_approves(fleet: ServedFleet) -> None:
    """South asks a person each time, north bounds the rounds; the others agree by themselves."""
    policies = {
        "north": ClientPolicy(work=WorkRules(max_rounds=2000), contract=NEVER),
        "south": ClientPolicy(),
    }
    fleet.start_daemon()
    for name in NAMES:
        fleet.start_client(name, policy=policies.get(name, ClientPolicy(contract=NEVER)))
    fleet.until(lambda s: len(fleet.members()) == len(NAMES))
    run = fleet.submit(text(fleet, 2000, "fedavg"))
    fleet.until(lambda s: any(r.round >= 1 for r in s.runs))
    first = leave_note(fleet, "south")
    assert fleet.run(run).contract == first
    fleet.until(lambda s: fates(fleet, run, s.runs[0].round).get("south") == "merged")
    amend(fleet, run, text(fleet, 3000, "fedavg"))
    status = fleet.until(
        lambda s: (
            s.runs[0].contract != first
            and {u.client for u in s.runs[0].unaccepted} == {"north", "south"}
            and all("AB-74" in u.reason for u in s.runs[0].unaccepted)
        )
    )
    told = {one.client: one.reason for one in status.runs[0].unaccepted}
    assert "3000 rounds, and 2000 are allowed here" in told["north"]
    assert "amends one that was approved (rounds.count: 2000 -> 3000)" in told["south"]
    at = status.runs[0].round
    fleet.until(lambda s: s.runs[0].round >= at + 2)
    found = fates(fleet, run, at + 2)
    assert {name for name, fate in found.items() if fate == "merged"} == {"east", "west"}
    assert "merged" not in {found.get("north"), found.get("south")}
    assert leave_note(fleet, "south") == status.runs[0].contract
    status = fleet.until(lambda s: {u.client for u in s.runs[0].unaccepted} == {"north"})
    at = status.runs[0].round
    fleet.until(lambda s: s.runs[0].round >= at + 2)
    assert fates(fleet, run, at + 2)["south"] == "merged"
    log = list(read_log(fleet.folder / "homes" / "south" / "log.jsonl"))
    approved = [entry.details["contract"] for entry in log if entry.what == "approved"]
    assert approved == [first, status.runs[0].contract]


def test_what_no_amendment_may_change_is_refused_and_the_run_goes_on(fleet: ServedFleet) -> None:
    fleet.start_daemon()
    fleet.start_clients()
    run = fleet.submit(text(fleet, 2000))
    fleet.until(lambda s: any(r.round >= 2 for r in s.runs))
    refused = {
        text(fleet, 2000).replace("learning_rate = 0.1", "learning_rate = 0.2"): "learning_rate",
        text(fleet, 1): "rounds are done",
        text(fleet, 2000): "changes nothing",
    }
    for plan, why in refused.items():
        with pytest.raises(AnabranchError, match=why) as caught:
            amend(fleet, run, plan)
        assert caught.value.code == "AB-796"
    with pytest.raises(AnabranchError, match="fifth is not on the roster"):
        amend(fleet, run, text(fleet, 2000), "fifth")
    at = fleet.run(run).round
    fleet.until(lambda s: s.runs[0].round >= at + 1)


@pytest.mark.slow
def test_a_site_joins_a_run_and_tells_its_size(fleet: ServedFleet) -> None:
    """The others keep their preprocessing; the new one is asked from the next round on."""
    (fleet.sites / "fifth.csv").write_text((fleet.sites / "west.csv").read_text())
    fleet.start_daemon()
    fleet.start_clients()
    run = fleet.submit(text(fleet, 2000, "fedavg"))
    fleet.until(lambda s: any(r.round >= 1 for r in s.runs))
    fleet.start_client("fifth")
    fleet.until(lambda s: "fifth" in fleet.members())
    before = fleet.run(run).contract
    with pytest.raises(AnabranchError, match="takes part already"):
        amend(fleet, run, text(fleet, 2000, "fedavg"), "west")
    amend(fleet, run, text(fleet, 2000, "fedavg"), "fifth")
    status = fleet.until(lambda s: s.runs[0].contract not in ("", before))
    at = status.runs[0].round
    fleet.until(lambda s: s.runs[0].round >= at + 2)
    assert fates(fleet, run, at + 2) == dict.fromkeys((*NAMES, "fifth"), "merged")
    fleet.kill_daemon()
    fleet.start_daemon()
    fleet.until(lambda s: any(r.round >= at + 4 for r in s.runs))
    assert fates(fleet, run, at + 4) == dict.fromkeys((*NAMES, "fifth"), "merged")


PRIVATE = """
[aggregation]
weighting = {{ kind = "uniform" }}
[evaluation]
on = "nowhere"
[privacy]
epsilon = {epsilon}
delta = 1e-2
population = "sites"
population_epsilon = 500.0
unit = "site"
open_statistics = "synthetic rows of a test"
[privacy.mechanism]
kind = "gaussian"
clip = {{ kind = "fixed", norm = 1.0 }}
"""


def private(fleet: ServedFleet, rounds: int, epsilon: float) -> str:
    return text(fleet, rounds, "fedavg") + PRIVATE.format(epsilon=epsilon)


@pytest.mark.slow
def test_a_larger_budget_goes_through_the_ledger(fleet: ServedFleet) -> None:
    """What is left of the run's epsilon, and of the population's, bounds an amendment."""
    fleet.start_daemon()
    fleet.start_clients()
    run = fleet.submit(private(fleet, 3, 300.0))
    assert fleet.ended(run).state == "complete"
    with pytest.raises(AnabranchError, match=r"AB-798.*holds 0 more round"):
        amend(fleet, run, private(fleet, 6, 300.0))
    amend(fleet, run, private(fleet, 4, 400.0))
    status = fleet.ended(run)
    assert (status.state, status.round) == ("complete", 4), status.reason
    assert fleet.ended(fleet.submit(private(fleet, 1, 60.0))).state == "complete"
    with pytest.raises(AnabranchError, match="AB-916"):
        amend(fleet, run, private(fleet, 8, 490.0))
    with PopulationLedger.existing(fleet.store / "ledgers", "sites") as ledger:
        balance = ledger.balance()
        assert [held.reserved.round for held in balance.runs[run].releases.values()] == [
            1, 2, 3, 4
        ]  # fmt: skip
        assert 300.0 < balance.epsilon() <= 500.0 * (1 + 1e-6)
