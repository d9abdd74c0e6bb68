"""Memory and descriptors of a daemon over hundreds of rounds with clients that come and go."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from served_ends import plan_text
from served_fleets import NAMES, ServedFleet

from anabranch.coordinator.store import Store

MOST = 12e6
"""Bytes by which the daemon may grow over 200 rounds; its caches are bounded, and small."""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[ServedFleet]:
    made = ServedFleet(tmp_path / "f")
    yield made
    made.close()


def resident(process: psutil.Process) -> int:
    """Memory of a process in bytes, with the pages that it shares with the one that forked it.

    Without them a page of the parent's that is written to for the first time would count as growth.
    """
    return int(process.memory_info().rss)


@pytest.mark.slow
def test_two_hundred_rounds_cost_no_memory_and_no_descriptors(fleet: ServedFleet) -> None:
    """One client after the other is killed and started again all the time."""
    draw = np.random.default_rng(3)
    fleet.start_daemon()
    fleet.start_clients()
    assert fleet.daemon is not None
    daemon = psutil.Process(fleet.daemon.pid)
    run = fleet.submit(plan_text(fleet, 4000))

    def rounds_later(count: int) -> None:
        at = fleet.run(run).round
        while fleet.run(run).round < at + count:
            time.sleep(float(draw.uniform(1.0, 4.0)))
            fleet.restart_client(str(draw.choice(NAMES)))
        fleet.until(lambda s: len(s.clients) == len(NAMES))

    rounds_later(60)
    before = resident(daemon), daemon.num_fds(), daemon.num_threads()
    start = fleet.run(run).round
    rounds_later(200)
    after = resident(daemon), daemon.num_fds(), daemon.num_threads()
    assert fleet.run(run).round >= start + 200
    assert after[0] - before[0] < MOST, (before, after)
    assert after[1] <= before[1] + 8, (before, after)
    assert after[2] <= before[2] + 8, (before, after)
    with Store.open(fleet.store, create=False) as store:
        last = store.rounds(run)[-1]
    assert set(last.client_columns["fate"]) == {"merged"}


@pytest.mark.slow
def test_runs_that_have_ended_cost_nothing(fleet: ServedFleet) -> None:
    """Forty runs one after the other: their desks, proofs and models go."""
    fleet.start_daemon()
    fleet.start_clients()
    assert fleet.daemon is not None
    daemon = psutil.Process(fleet.daemon.pid)
    seen = []
    for number in range(40):
        run = fleet.submit(plan_text(fleet, 2))
        assert fleet.ended(run).state == "complete"
        if number in (9, 39):
            seen.append((resident(daemon), daemon.num_fds(), daemon.num_threads()))
    before, after = seen
    assert after[0] - before[0] < MOST, seen
    assert after[1] <= before[1] + 8, seen
    assert after[2] <= before[2] + 8, seen
