"""Asynchronous and semi-synchronous rounds over TLS: the plan and the loop of a simulation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.numpy import load_file
from served_fleets import NAMES, PLAN, ServedFleet

from anabranch.coordinator.store import Store, StoredRound

MODES = {
    "fedbuff": "asynchronous = { buffer = 2, concurrency = 4, max_staleness = 5 }",
    "fedasync": "asynchronous = { buffer = 1, concurrency = 4, max_staleness = 9, rebase = true }",
    "semi-synchronous": "cohort = 2\nover_selection = 2.0\ndeadline = 30.0\nlate_window = 2",
}


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[ServedFleet]:
    made = ServedFleet(tmp_path / "f")
    yield made
    made.close()


def plan(fleet: ServedFleet, mode: str, rounds: int) -> str:
    text = PLAN.format(sites=fleet.sites, rounds=rounds, algorithm="fedavg")
    return text.replace(f"count = {rounds}", f"count = {rounds}\n{MODES[mode]}")


def fates(stored: StoredRound) -> list[str]:
    return [str(fate) for fate in stored.client_columns["fate"] if fate]


def stale(stored: StoredRound) -> list[int]:
    """Model versions that were made while each merged update was under way."""
    columns = stored.client_columns
    ages = columns.get("staleness", [0] * len(columns["fate"]))
    return [int(a) for f, a in zip(columns["fate"], ages, strict=True) if f == "merged late"]  # type: ignore[arg-type]  # whole numbers


@pytest.mark.parametrize("mode", MODES)
def test_a_served_run_does_not_wait_for_all(fleet: ServedFleet, mode: str) -> None:
    rounds = 8
    fleet.start_daemon()
    fleet.start_clients()
    run = fleet.submit(plan(fleet, mode, rounds))
    status = fleet.ended(run)
    assert (status.state, status.round) == ("complete", rounds), (status, fleet.screens())
    with Store.open(fleet.store) as store:
        done = [stored for stored in store.rounds(run) if stored.round]
    wanted = {"fedbuff": 2, "fedasync": 1, "semi-synchronous": 2}[mode]
    merged = [sum(fate.startswith("merged") for fate in fates(stored)) for stored in done]
    assert min(merged) >= wanted
    # Four clients are busy all the time and a round takes one or two: some come late, and count.
    late = [age for stored in done for age in stale(stored)]
    assert late
    assert max(late) <= {"fedbuff": 5, "fedasync": 9, "semi-synchronous": 2}[mode]
    asked = {str(name) for stored in done for name in stored.client_columns["client"]}
    assert asked == set(NAMES)
    arrays = load_file(fleet.store / "models" / f"{run}.safetensors")
    assert all(abs(array).sum() > 0 for array in arrays.values())
