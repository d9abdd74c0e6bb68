"""A deployed SCAFFOLD run over TLS, killed with SIGKILL at every enumerated point of either end.

After it has been started again, the run ends as if nothing had happened: the same model, the same
memory at every client, every update merged once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from served_ends import End, FileTrace, end_of, plan_text, settled, stored_end
from served_fleets import NAMES, ServedFleet, sites_plan

from anabranch.api import run_plan
from anabranch.coordinator.store import KILL_POINTS, Store
from anabranch.disk import no_faults
from anabranch.errors import AnabranchError
from anabranch.runtimes.http.points import (
    CLIENT_POINTS,
    COORDINATOR_POINTS,
    LARGE_UPLOAD_POINTS,
)
from anabranch.testing.faults import KillAt

ROUNDS = 4
OF_THE_STORE = tuple(point for point in KILL_POINTS if not point.startswith("slots."))
"""The memory of simulated clients is the only part of the store that a deployed run never uses."""
FEW = ("answer.durable", "round.commit.before", "round.commit.after", "fates.tell.after")


@dataclass(frozen=True)
class Traced:
    """An uninterrupted run.

    Attributes:
        end: of it.
        coordinator: how often its daemon reached each point.
        client: the same of one client.
    """

    end: End
    coordinator: dict[str, int]
    client: dict[str, int]

    def middle(self, point: str) -> int:
        return 1 + self.coordinator[point] // 2


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[ServedFleet]:
    made = ServedFleet(tmp_path / "f")
    yield made
    made.close()


def uninterrupted(folder: Path, small_bytes: int | None = None) -> Traced:
    fleet = ServedFleet(folder / "f", small_bytes=small_bytes)
    server, client = FileTrace(folder / "server"), FileTrace(folder / "client")
    try:
        fleet.start_daemon(server)
        for name in NAMES:
            fleet.start_client(name, faults=client if name == "east" else no_faults)
        fleet.until(lambda status: len(fleet.members()) == len(NAMES))
        run = fleet.submit(plan_text(fleet, ROUNDS))
        assert fleet.ended(run).state == "complete"
        settled(fleet, run)
        time.sleep(2.5)  # receipts are fetched now and then
        return Traced(end_of(fleet, run), dict(server.counts), dict(client.counts))
    finally:
        fleet.close()


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Traced:
    return uninterrupted(tmp_path_factory.mktemp("traced"))


@pytest.fixture(scope="module")
def traced_large(tmp_path_factory: pytest.TempPathFactory) -> Traced:
    return uninterrupted(tmp_path_factory.mktemp("large"), small_bytes=1)


def submitted(fleet: ServedFleet) -> str:
    """The id of the run, whose submission may be interrupted by the daemon's death."""
    try:
        return fleet.submit(plan_text(fleet, ROUNDS))
    except AnabranchError:
        assert fleet.daemon is not None
        fleet.daemon.join(20.0)
        fleet.start_daemon()
    with Store.open(fleet.store) as store:
        runs = store.runs()
    return runs[0].id if runs else fleet.submit(plan_text(fleet, ROUNDS))


def after_the_daemons_death(fleet: ServedFleet, point: str, nth: int) -> End:
    """The daemon is killed at a point, started again, and the run goes on."""
    fleet.start_daemon(KillAt(point, nth), wait=False)
    killed = fleet.daemon
    assert killed is not None
    fleet.until_up_or_dead()
    if not killed.is_alive():
        fleet.start_daemon()
    fleet.start_clients()
    run = submitted(fleet)
    if fleet.daemon is killed:
        killed.join(30.0)
        assert killed.exitcode == -9, f"{point} was not reached {nth} times"
        fleet.start_daemon()
    assert killed.exitcode == -9, f"{point} was not reached {nth} times"
    assert fleet.ended(run).state == "complete"
    return end_of(fleet, run)


@pytest.mark.slow
def test_every_point_is_reached_and_the_run_is_the_simulated_one(
    traced: Traced, traced_large: Traced, tmp_path: Path
) -> None:
    """Otherwise killing there would test nothing, or a point would be missing from the list."""
    assert set(traced.coordinator) == {*COORDINATOR_POINTS, *OF_THE_STORE}
    assert set(traced_large.coordinator) == set(traced.coordinator) | set(LARGE_UPLOAD_POINTS)
    assert set(traced.client) == set(CLIENT_POINTS)
    fleet = ServedFleet(tmp_path / "f")
    run = run_plan(sites_plan(fleet.sites, ROUNDS, "scaffold"), store=tmp_path / "simulated")
    simulated = stored_end(tmp_path / "simulated", run.id)
    assert traced.end.model == simulated.model
    assert traced.end.control == simulated.control
    assert traced.end.fates == (tuple((name, "merged") for name in sorted(NAMES)),) * ROUNDS
    assert traced_large.end == traced.end


@pytest.mark.slow
@pytest.mark.parametrize("point", [*COORDINATOR_POINTS, *OF_THE_STORE])
def test_the_coordinator_is_killed_at_every_point(
    fleet: ServedFleet, point: str, traced: Traced
) -> None:
    assert after_the_daemons_death(fleet, point, traced.middle(point)) == traced.end


@pytest.mark.slow
@pytest.mark.parametrize("point", LARGE_UPLOAD_POINTS)
def test_the_coordinator_is_killed_while_a_large_answer_comes(
    tmp_path: Path, point: str, traced_large: Traced
) -> None:
    fleet = ServedFleet(tmp_path / "f", small_bytes=1)
    try:
        end = after_the_daemons_death(fleet, point, traced_large.middle(point))
    finally:
        fleet.close()
    assert end == traced_large.end


def after_a_clients_death(fleet: ServedFleet, point: str, nth: int) -> End:
    """One client is killed at a point and started again."""
    fleet.start_daemon()
    for name in NAMES:
        fleet.start_client(name, faults=KillAt(point, nth) if name == "east" else no_faults)
    killed = fleet.clients["east"]
    fleet.until(lambda s: len(fleet.members()) == len(NAMES) or not killed.is_alive())
    if not killed.is_alive():
        fleet.start_client("east")
        fleet.until(lambda s: len(fleet.members()) == len(NAMES))
    run = fleet.submit(plan_text(fleet, ROUNDS))
    if fleet.clients["east"] is killed:
        killed.join(30.0)
        fleet.start_client("east")
    assert killed.exitcode == -9, f"{point} was not reached {nth} times"
    assert fleet.ended(run).state == "complete"
    return end_of(fleet, run)


@pytest.mark.slow
@pytest.mark.parametrize("point", CLIENT_POINTS)
def test_a_client_is_killed_at_every_point(fleet: ServedFleet, point: str, traced: Traced) -> None:
    nth = 1 + traced.client[point] // 2
    assert after_a_clients_death(fleet, point, nth) == traced.end


def test_both_ends_are_killed_between_upload_acknowledgement_commit_and_fate(
    fleet: ServedFleet,
) -> None:
    """One run; the daemon dies at four points one after the other, and clients at two."""
    wanted = run_plan(sites_plan(fleet.sites, ROUNDS, "scaffold"), store=fleet.folder / "simulated")
    fleet.start_daemon(KillAt(FEW[0], 6))
    dying = {"east": KillAt("update.acknowledged", 5), "west": KillAt("fate.heard", 2)}
    for name in NAMES:
        fleet.start_client(name, faults=dying.get(name, no_faults))
    fleet.until(lambda status: len(fleet.members()) == len(NAMES))
    run = fleet.submit(plan_text(fleet, ROUNDS))
    for number in range(len(FEW)):
        assert fleet.daemon is not None
        joined(fleet, fleet.daemon.is_alive, dying)
        assert fleet.daemon.exitcode == -9
        faults = KillAt(FEW[number + 1]) if number + 1 < len(FEW) else no_faults
        fleet.start_daemon(faults, wait=number + 1 == len(FEW))
    joined(fleet, lambda: bool(dying), dying)
    assert fleet.ended(run).state == "complete"
    end = end_of(fleet, run)
    simulated = stored_end(fleet.folder / "simulated", wanted.id)
    assert (end.model, end.control) == (simulated.model, simulated.control)
    assert end.fates == (tuple((name, "merged") for name in sorted(NAMES)),) * ROUNDS


def joined(fleet: ServedFleet, alive: Callable[[], bool], dying: dict[str, KillAt]) -> None:
    """Wait for an end; clients that die meanwhile are started again."""
    until = time.monotonic() + 30.0
    while True:
        for name in list(dying):
            if not fleet.clients[name].is_alive():
                del dying[name]
                fleet.start_client(name)
        if not alive():
            return
        assert time.monotonic() < until, (fleet.status(), fleet.screens())
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("victims", [("daemon",), NAMES, ("daemon", *NAMES)])
def test_fifty_random_instants(fleet: ServedFleet, victims: tuple[str, ...]) -> None:
    """One kill a run, anywhere in it: of the daemon, of one client, or of both at once."""
    rounds, attempts = 8, 50
    wanted = run_plan(sites_plan(fleet.sites, rounds, "scaffold"), store=fleet.folder / "sim")
    simulated = stored_end(fleet.folder / "sim", wanted.id)
    draw = np.random.default_rng(len(victims))
    fleet.start_daemon()
    fleet.start_clients()
    began = time.monotonic()
    assert fleet.ended(fleet.submit(plan_text(fleet, rounds))).state == "complete"
    whole, amid = time.monotonic() - began, 0
    for _ in range(attempts):
        run = fleet.submit(plan_text(fleet, rounds))
        time.sleep(float(draw.uniform(0, whole)))
        amid += fleet.run(run).state in ("working", "waiting", "preparing")
        name = str(draw.choice([v for v in victims if v != "daemon"] or ["-"]))
        if "daemon" in victims:
            fleet.kill_daemon()
        if name != "-":
            fleet.restart_client(name)
        if "daemon" in victims:
            fleet.start_daemon()
        assert fleet.ended(run).state == "complete"
        settled(fleet, run)
        end = stored_end(fleet.store, run)
        assert (end.model, end.control) == (simulated.model, simulated.control)
        assert end.fates == simulated.fates
    assert amid > attempts // 3  # otherwise most kills came after the end
    end_of(fleet, run)
