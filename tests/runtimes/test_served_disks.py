"""Full disks at either end of a deployed run: nothing is acknowledged that is not kept.

On real file systems of a few hundred kilobytes where the test may mount some (root on Linux), and
by the store's own fault points everywhere.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from served_ends import end_of, plan_text, stored_end
from served_fleets import NAMES, ServedFleet, sites_plan

from anabranch.api import run_plan
from anabranch.client.task import Fate
from anabranch.coordinator.store import Store
from anabranch.disk import no_faults
from anabranch.errors import AnabranchError
from anabranch.runtimes.http.server.spool import Answer, Spool
from anabranch.testing.faults import DiskFull


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[ServedFleet]:
    made = ServedFleet(tmp_path / "f", patience=60.0)
    yield made
    made.close()


def mounted(folder: Path, size: str) -> bool:
    """A file system of its own at ``folder``; whether that is allowed here."""
    folder.mkdir(parents=True, exist_ok=True)
    if not sys.platform.startswith("linux") or shutil.which("mount") is None:
        return False
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "anabranch-test", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@dataclass
class SmallDisk:
    """A file system that is filled and freed."""

    folder: Path

    def fill(self) -> None:
        with (self.folder / "ballast").open("ab", buffering=0) as file:
            for size in (1 << 16, 1 << 12, 1 << 8, 1):
                while True:
                    try:
                        if not file.write(bytes(size)):
                            break
                    except OSError:
                        break

    def free(self) -> None:
        (self.folder / "ballast").unlink()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[SmallDisk]:
    folder = tmp_path / "small"
    if not mounted(folder, "24m"):
        pytest.skip("file systems cannot be mounted here (root on Linux)")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def simulated_model(fleet: ServedFleet, rounds: int) -> dict[str, bytes]:
    folder = fleet.folder / "simulated"
    run = run_plan(sites_plan(fleet.sites, rounds, "scaffold"), store=folder)
    return dict(stored_end(folder, run.id).model)


@pytest.mark.slow
@pytest.mark.parametrize(
    "point",
    [
        "spool.commit.before",
        "round.commit.before",
        "blob.write.half",
        "equipment.write.half",
        "note.commit.before",
        "status.commit.before",
    ],
)
def test_a_full_disk_at_the_coordinator_delays_the_run(fleet: ServedFleet, point: str) -> None:
    """Once, anywhere between an answer and the end: no answer, fate or round is lost."""
    wanted = simulated_model(fleet, 3)
    fleet.start_daemon(DiskFull(point, 5 if point.startswith("spool") else 1))
    fleet.start_clients()
    run = fleet.submit(plan_text(fleet, 3))
    assert fleet.ended(run).state == "complete"
    end = end_of(fleet, run)
    assert end.model == wanted
    assert end.fates == (tuple((name, "merged") for name in sorted(NAMES)),) * 3


@pytest.mark.slow
@pytest.mark.parametrize("small_bytes", [None, 1])
def test_a_run_waits_until_the_coordinator_has_space_again(
    small: SmallDisk, fleet: ServedFleet, small_bytes: int | None
) -> None:
    wanted = simulated_model(fleet, 40)
    fleet.store, fleet.small_bytes = small.folder / "store", small_bytes
    fleet.start_daemon()
    fleet.start_clients()
    run = fleet.submit(plan_text(fleet, 40))
    fleet.until(lambda s: any(r.round >= 3 for r in s.runs))
    small.fill()
    fleet.until(lambda s: any("AB-602" in r.reason or r.open for r in s.runs))
    time.sleep(2.0)
    at = fleet.run(run)
    assert at.state == "waiting", at
    time.sleep(2.0)
    assert fleet.run(run).round == at.round  # nothing goes on without a durable record
    small.free()
    assert fleet.ended(run).state == "complete"
    end = end_of(fleet, run)
    assert end.model == wanted
    assert end.fates == (tuple((name, "merged") for name in sorted(NAMES)),) * 40


@pytest.mark.slow
def test_a_daemon_that_is_killed_while_its_disk_is_full_goes_on_later(
    small: SmallDisk, fleet: ServedFleet
) -> None:
    wanted = simulated_model(fleet, 40)
    fleet.store = small.folder / "store"
    fleet.start_daemon()
    fleet.start_clients()
    run = fleet.submit(plan_text(fleet, 40))
    fleet.until(lambda s: any(r.round >= 3 for r in s.runs))
    small.fill()
    time.sleep(1.0)
    fleet.kill_daemon()
    small.free()
    fleet.start_daemon()
    assert fleet.ended(run).state == "complete"
    assert end_of(fleet, run).model == wanted


def east_merged(fleet: ServedFleet, run: str) -> list[int]:
    """The rounds in which this client's update counted."""
    with Store.open(fleet.store, create=False) as store:
        stored = [r for r in store.rounds(run) if r.round]
    found = []
    for one in stored:
        columns = one.client_columns
        fates = dict(zip(columns["client"], columns["fate"], strict=True))
        if fates.get("east") == "merged":
            found.append(one.round)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "point",
    [
        "memory.write.half",
        "log.write.before",
        "evidence.write.before",
        "memory.settle.before",
        "vault.write.half",
    ],
)
def test_a_full_disk_at_a_client_is_told_there_and_the_run_goes_on(
    fleet: ServedFleet, point: str
) -> None:
    fleet.start_daemon()
    for name in NAMES:  # the vault is written when the client enrols: later is a contract
        nth = {"vault.write.half": 4, "log.write.before": 20}.get(point, 1)
        fleet.start_client(name, faults=DiskFull(point, nth) if name == "east" else no_faults)
    fleet.until(lambda status: len(fleet.members()) == len(NAMES))
    run = fleet.submit(plan_text(fleet, 6))
    assert fleet.ended(run).state == "complete"
    assert fleet.clients["east"].is_alive()
    if point == "evidence.write.before":  # proofs are fetched now and then
        fleet.until(lambda s: "AB-602" in fleet.screen("east"))
    told = fleet.screen("east")
    assert "AB-602" in told, told
    assert "See docs/errors/AB-602.md" in told
    assert "AB-602" not in fleet.screen("west")
    with Store.open(fleet.store, create=False) as store:
        assert len(store.rounds(run)) == 7
    if point == "memory.write.half":
        assert len(east_merged(fleet, run)) == 5  # without it once, then with it again
        assert "AB-602" in " ".join(fleet.run(run).troubles)
        assert str(fleet.folder) not in " ".join(fleet.run(run).troubles)


@pytest.mark.slow
def test_a_client_takes_part_again_when_it_has_space(small: SmallDisk, fleet: ServedFleet) -> None:
    fleet.homes = {"east": small.folder / "east"}
    fleet.start_daemon()
    fleet.start_clients()
    run = fleet.submit(plan_text(fleet, 4000))
    fleet.until(lambda s: any(r.round >= 3 for r in s.runs))
    small.fill()
    fleet.until(lambda s: "AB-602" in fleet.screen("east"))
    at = fleet.run(run).round
    fleet.until(lambda s: any(r.round >= at + 20 for r in s.runs))  # the others go on
    merged = east_merged(fleet, run)
    assert merged[-1] < fleet.run(run).round - 5
    small.free()
    fleet.until(lambda s: east_merged(fleet, run)[-1] > merged[-1] + 5)


class FullForAWhile:
    """A disk without space while ``full`` is set."""

    full = False

    def reach(self, point: str) -> None:
        if self.full and point == "spool.commit.before":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_fates_that_the_disk_refused_are_written_later(tmp_path: Path) -> None:
    """Nobody waits for them, and a client that asks must not be told otherwise."""
    disk, task = FullForAWhile(), "a" * 32
    answer = Answer("b" * 32, "east", "c" * 64, 1, 0, b"x")
    spool = Spool(tmp_path / "spool", disk)
    disk.full = True
    spool.hold("run", task, {"east": Fate.MERGED}, 0)
    with pytest.raises(AnabranchError, match="AB-602"):
        spool.flush()
    with pytest.raises(AnabranchError, match="AB-602"):  # whoever sent it is told to come again
        spool.add("run", answer).result()
    disk.full = False
    spool.release("run")
    spool.flush()
    assert spool.fate(task, "east") is Fate.MERGED
    assert spool.answers(answer.task) == {}
    spool.close()
    again = Spool(tmp_path / "spool")
    assert again.fate(task, "east") is Fate.MERGED
    again.close()
