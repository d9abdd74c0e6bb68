"""Differences from a daemon over TLS to enrolled clients: sealed at home, the simulated model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from served_fleets import NAMES, ServedFleet
from test_served_runs import model, text

from anabranch.api import run_plan
from anabranch.coordinator.store import Store
from anabranch.plan import parse_plan

DOWNLINK = '[clients]\nmemory = true\n[updates.downlink]\nkind = "delta"\n'


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[ServedFleet]:
    made = ServedFleet(tmp_path / "f")
    yield made
    made.close()


@pytest.mark.slow
def test_differences_go_to_sealed_homes_also_when_both_ends_are_killed(fleet: ServedFleet) -> None:
    written = text(fleet, 5, "scaffold") + DOWNLINK
    wanted = run_plan(parse_plan(written), store=fleet.folder / "simulated")
    fleet.start_daemon()
    fleet.start_clients()
    run = fleet.submit(written)
    fleet.until(lambda s: any(r.round >= 2 for r in s.runs))
    fleet.kill_daemon()
    fleet.start_daemon()
    fleet.restart_client(NAMES[1])
    status = fleet.ended(run)
    assert (status.state, status.round) == ("complete", 5)
    assert model(fleet.store, run) == model(fleet.folder / "simulated", wanted.id)
    held = list(fleet.folder.rglob("broadcast-*.held"))
    assert len(held) >= len(NAMES)
    assert not any(b"units.model" in path.read_bytes() for path in held)  # sealed
    with Store.open(fleet.store) as store, Store.open(fleet.folder / "simulated") as other:
        down = [[r.bytes_down for r in s.rounds(i)] for s, i in ((store, run), (other, wanted.id))]
    assert down[0] == down[1]
