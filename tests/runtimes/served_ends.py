"""What a deployed run comes to, for tests: what kills and failing disks must not change."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from served_fleets import AGREES, NAMES, PLAN, ServedFleet

from anabranch.client.home import ClientHome
from anabranch.client.vault import FileKey
from anabranch.coordinator.heads import HEAD_EVENT, read_head
from anabranch.coordinator.store import ReleaseEntry, Store, StoredRound
from anabranch.runtimes.http.memory import ClientMemory


@dataclass(frozen=True)
class FileTrace:
    """Writes every point down, so that the parent process can count them."""

    path: Path

    def reach(self, point: str) -> None:
        descriptor = os.open(self.path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.write(descriptor, f"{point}\n".encode())
        os.close(descriptor)

    @property
    def counts(self) -> Counter[str]:
        return Counter(self.path.read_text().split())


@dataclass(frozen=True)
class End:
    """What must not depend on interruptions.

    Attributes:
        status: of the run, as the store has it.
        fates: by round, client and fate.
        model: bytes of every array.
        control: SCAFFOLD's c at the coordinator, bytes.
        memories: each client's c_i, bytes.
        releases: what left the trust boundary.
        metrics: of the rounds.
    """

    status: str
    fates: tuple[tuple[tuple[str, str], ...], ...]
    model: Mapping[str, bytes]
    control: bytes
    memories: Mapping[str, bytes] = field(default_factory=dict)
    releases: tuple[tuple[int | None, ReleaseEntry], ...] = ()
    metrics: tuple[Mapping[str, float], ...] = ()


def plan_text(fleet: ServedFleet, rounds: int, algorithm: str = "scaffold") -> str:
    return PLAN.format(sites=fleet.sites, rounds=rounds, algorithm=algorithm)


def stored_end(path: Path, run: str) -> End:
    """What the coordinator has of a run that is over; no update counted twice, else it fails."""
    with Store.open(path, create=False) as store:
        status = store.run(run).status
        rounds = [stored for stored in store.rounds(run) if stored.round]
        control = store.model(run)["server.control"]
        releases = tuple((one.round, one.entry) for one in store.releases(run))
        heads = [read_head(event) for event in store.events(run, HEAD_EVENT)]
    counted = Counter((leaf.client, leaf.task) for _, tree in heads for leaf in tree.leaves)
    assert all(times == 1 for times in counted.values())
    arrays = load_file(path / "models" / f"{run}.safetensors")
    return End(
        status,
        tuple(tuple(sorted(pairs(r))) for r in rounds),
        {name: array.tobytes() for name, array in arrays.items()},
        control.tobytes(),
        releases=releases,
        metrics=tuple(dict(stored.metrics) for stored in rounds),
    )


def pairs(stored: StoredRound) -> list[tuple[str, str]]:
    """Client and fate of everybody who was asked in a round."""
    columns = stored.client_columns
    return [(str(c), str(f)) for c, f in zip(columns["client"], columns["fate"], strict=True)]


def settled(fleet: ServedFleet, run: str, seconds: float = 30.0) -> None:
    """Wait until every client knows the fate of its last task."""
    folders = [fleet.folder / "homes" / name / "runs" / run for name in NAMES]
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if all(f.is_dir() and not list(f.glob("pending-*")) for f in folders):
            return
        time.sleep(0.05)
    left = [str(path) for folder in folders for path in folder.glob("*")]
    raise AssertionError(f"a client does not know the fate of its last task: {left}")


def memories(fleet: ServedFleet, run: str, length: int) -> dict[str, bytes]:
    """What the clients remember of a run; their processes must have ended."""
    found = {}
    for name in NAMES:
        home = fleet.folder / "homes" / name
        with ClientHome(home, FileKey(home.with_suffix(".key")), AGREES) as opened:
            vector = ClientMemory(home / "runs" / run, length, opened.vault).read()
        assert vector is not None, name
        found[name] = vector.tobytes()
    return found


def end_of(fleet: ServedFleet, run: str) -> End:
    """Wait for the clients' last fates, end their processes, and look at both ends.

    SCAFFOLD's c must be the mean of the c_i: every client took part in every round, so that is
    what it follows from its definition, up to the rounding of sums.
    """
    settled(fleet, run)
    for process in fleet.clients.values():
        process.kill()
        process.join()
    end = stored_end(fleet.store, run)
    c = np.frombuffer(end.control, np.float32)
    kept = memories(fleet, run, len(c))
    mean = np.mean([np.frombuffer(one, np.float32) for one in kept.values()], axis=0, dtype=float)
    assert np.abs(c).max() > 1e-3
    np.testing.assert_allclose(c, mean, rtol=1e-4, atol=1e-6)
    return End(end.status, end.fates, end.model, end.control, kept, end.releases, end.metrics)
