"""A daemon over TLS with enrolled clients: the simulated model, also when the daemon is killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.numpy import load_file
from served_fleets import NAMES, PLAN, ServedFleet, sites_plan

from anabranch.api import run_plan
from anabranch.api.run import Run
from anabranch.coordinator.store import Store


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[ServedFleet]:
    made = ServedFleet(tmp_path / "f")
    yield made
    made.close()


def text(fleet: ServedFleet, rounds: int, algorithm: str = "fedavg") -> str:
    return PLAN.format(sites=fleet.sites, rounds=rounds, algorithm=algorithm)


def simulated(fleet: ServedFleet, rounds: int, algorithm: str) -> Run:
    return run_plan(
        sites_plan(fleet.sites, rounds, algorithm), store=fleet.folder / f"simulated-{algorithm}"
    )


def model(store: Path, run: str) -> dict[str, bytes]:
    arrays = load_file(store / "models" / f"{run}.safetensors")
    return {name: array.tobytes() for name, array in arrays.items()}


def test_the_model_is_the_simulated_one_also_when_the_coordinator_is_killed(
    fleet: ServedFleet,
) -> None:
    wanted = simulated(fleet, 6, "scaffold")
    fleet.start_daemon()
    fleet.start_clients()
    run = fleet.submit(text(fleet, 6, "scaffold"))
    for round_ in (1, 2):
        fleet.until(lambda s, r=round_: any(x.round >= r for x in s.runs))  # type: ignore[misc]
        fleet.kill_daemon()
        fleet.start_daemon()
        fleet.restart_client(NAMES[round_])  # it does not know how its last task went
    status = fleet.ended(run)
    assert (status.state, status.round) == ("complete", 6)
    assert model(fleet.store, run) == model(fleet.folder / "simulated-scaffold", wanted.id)
    with Store.open(fleet.store) as store:
        rounds = store.rounds(run)
    assert [r.outcome for r in rounds[1:]] == ["complete"] * 6
    assert all(list(r.client_columns["fate"]) == ["merged"] * 4 for r in rounds[1:])


def test_two_runs_share_the_fleet_and_one_is_stopped(fleet: ServedFleet) -> None:
    wanted = simulated(fleet, 3, "fedavg")
    fleet.start_daemon()
    fleet.start_clients()
    short, long = fleet.submit(text(fleet, 3)), fleet.submit(text(fleet, 2000))
    assert fleet.ended(short).state == "complete"
    assert model(fleet.store, short) == model(fleet.folder / "simulated-fedavg", wanted.id)
    from anabranch.runtimes.http.client.operator import Operator

    with Operator(fleet.store) as operator:
        operator.stop(long)
    assert fleet.ended(long).state == "stopped"


def test_a_revoked_client_is_out_at_once_and_the_run_goes_on(fleet: ServedFleet) -> None:
    fleet.start_daemon()
    fleet.start_clients()
    run = fleet.submit(text(fleet, 2000))
    fleet.until(lambda s: any(r.round >= 1 for r in s.runs))
    entry = fleet.fleet.membership().roster.of_name("west")
    assert entry is not None
    fleet.fleet.membership().suspend(entry.key, "left")
    fleet.clients["west"].join(20.0)
    assert not fleet.clients["west"].is_alive()
    at = fleet.run(run).round
    fleet.until(lambda s: s.runs[0].round >= at + 2)
    with Store.open(fleet.store) as store:
        last = store.rounds(run)[-1]
    assert last.outcome == "partial"
    fates = dict(zip(last.client_columns["client"], last.client_columns["fate"], strict=True))
    assert fates == {"north": "merged", "south": "merged", "east": "merged", "west": "lost"}
    assert sorted(NAMES) == sorted(fleet.members())  # suspended, not taken off the roster
