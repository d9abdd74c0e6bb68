"""Secure sums of an enrolled fleet over TLS, with a coordinator that is killed in the middle."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.numpy import load_file
from served_fleets import MASKED, NAMES, PLAN, ServedFleet

from anabranch.api import run_plan
from anabranch.coordinator.store import Store
from anabranch.plan import parse_plan
from anabranch.runtimes.http.client import joining
from anabranch.updates.container import joined


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[ServedFleet]:
    made = ServedFleet(tmp_path / "f")
    yield made
    made.close()


def model(store: Path, run: str) -> dict[str, bytes]:
    arrays = load_file(store / "models" / f"{run}.safetensors")
    return {name: array.tobytes() for name, array in arrays.items()}


@pytest.mark.slow
def test_killed_at_any_time_the_coordinator_goes_on_and_opens_no_sum_twice(
    fleet: ServedFleet,
) -> None:
    text = PLAN.format(sites=fleet.sites, rounds=14, algorithm="fedavg") + MASKED
    wanted = run_plan(parse_plan(text), store=fleet.folder / "simulated")
    fleet.start_daemon()
    fleet.start_clients()
    run = fleet.submit(text)
    for round_ in (1, 3, 5):
        fleet.until(lambda s, r=round_: any(x.round >= r for x in s.runs))  # type: ignore[misc]
        fleet.kill_daemon()
        fleet.start_daemon()
    status = fleet.ended(run)
    with Store.open(fleet.store) as store:
        rounds = store.rounds(run)
    told = [(r.round, r.outcome, r.client_columns.get("detail")) for r in rounds]
    assert (status.state, status.round) == ("complete", 14), told
    assert [r.outcome for r in rounds[1:]] == ["complete"] * 14, told
    assert model(fleet.store, run) == model(fleet.folder / "simulated", wanted.id)
    assert all(list(r.client_columns["fate"]) == ["merged"] * 4 for r in rounds[1:])
    # Members came with the roster's keys: nobody was pinned by first sight.
    homes = [fleet.folder / "homes" / name / "runs" / run / "secure-sums" for name in NAMES]
    assert all(path.exists() for path in homes)


@pytest.mark.slow
def test_a_client_killed_before_each_of_its_answers_arrives_costs_no_sum(
    fleet: ServedFleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies with every message of the sum on the line, and the plan allows for no dropouts."""
    seen, genuine = tmp_path / "seen", joining.upload
    seen.mkdir()

    def dying(line, task, parts, traffic=None):  # type: ignore[no-untyped-def]  # stands in
        if line.name == "west":
            known, content = len(list(seen.glob(f"{task}-*"))), joined(parts)
            (seen / f"{task}-{known}").write_bytes(content)
            if not known:
                os.kill(os.getpid(), signal.SIGKILL)
        return genuine(line, task, parts, traffic)

    monkeypatch.setattr(joining, "upload", dying)
    text = PLAN.format(sites=fleet.sites, rounds=1, algorithm="fedavg") + MASKED
    text += '[evaluation]\non = "nowhere"\n'
    fleet.start_daemon()
    fleet.start_clients()
    run = fleet.submit(text.replace("attempts = 10", "attempts = 1"))
    while (west := fleet.clients["west"]) and fleet.run(run).state in ("working", "waiting"):
        west.join(0.1)
        if not west.is_alive():
            fleet.start_client("west")
    status = fleet.ended(run)
    with Store.open(fleet.store) as store:
        (last,) = store.rounds(run)[1:]
    assert (status.state, last.outcome) == ("complete", "complete"), last.client_columns
    assert list(last.client_columns["fate"]) == ["merged"] * 4
    twice = [path.name.removesuffix("-1") for path in seen.glob("*-1")]
    # Sizes and statistics, then keys, nonces, shares, update, signatures and reveals.
    assert len(twice) >= 6 + 2
    for task in twice:
        assert (seen / f"{task}-0").read_bytes() == (seen / f"{task}-1").read_bytes()


WAITING = """
[rounds.asynchronous]
buffer = 4
concurrency = 4
"""


@pytest.mark.slow
def test_buffers_go_on_when_the_coordinator_and_a_site_are_killed(fleet: ServedFleet) -> None:
    text = PLAN.format(sites=fleet.sites, rounds=10, algorithm="fedavg") + WAITING + MASKED
    fleet.start_daemon()
    fleet.start_clients()
    run = fleet.submit(text)
    for round_, pause in ((1, 0.0), (3, 0.15), (5, 0.3), (7, 0.45)):
        fleet.until(lambda s, r=round_: any(x.round >= r for x in s.runs))  # type: ignore[misc]
        time.sleep(pause)
        fleet.kill_daemon()
        if round_ == 5:
            fleet.restart_client("north")
        fleet.start_daemon()
    status = fleet.ended(run)
    with Store.open(fleet.store) as store:
        rounds = [r for r in store.rounds(run) if r.round]
    told = [(r.round, r.outcome, r.client_columns.get("detail")) for r in rounds]
    assert status.state == "complete", told
    merged = [
        [
            (client, task)
            for client, task, fate in zip(
                r.client_columns["client"],
                r.client_columns.get("task", [""] * 99),
                r.client_columns["fate"],
                strict=False,
            )
            if str(fate).startswith("merged")
        ]
        for r in rounds
    ]
    assert all(len(row) == len({client for client, _ in row}) for row in merged), told
    assert sum(len(row) == 4 for row in merged) >= 6, told
