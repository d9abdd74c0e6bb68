"""A small deterministic federated run with client states, labels, a failed round and groups."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anabranch.client.states import SlotFile
from anabranch.coordinator.store import (
    GroupedCommits,
    ReleaseEntry,
    RoundRecord,
    RunRecord,
    RunSession,
    Store,
    StoredEvent,
)
from anabranch.disk import Faults, no_faults
from anabranch.randomness import generator

CLIENTS, LENGTH, ROUNDS = 5, 4, 8
ORPHAN = "ab" * 32


@dataclass(frozen=True)
class End:
    """Everything that must be equal with and without a kill."""

    model: bytes
    best: bytes
    memories: tuple[bytes | None, ...]
    rounds: tuple[object, ...]
    releases: tuple[object, ...]
    events: tuple[object, ...]
    status: str


def plant_leftovers(folder: Path) -> None:
    """What an earlier crash may have left: a blob that nothing names, and a temporary file."""
    place = folder / "blobs" / ORPHAN[:2]
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{ORPHAN}.safetensors").write_bytes(b"orphan")
    (place / ".tmp-123").write_bytes(b"half")


def run_toy(folder: Path, faults: Faults = no_faults) -> None:
    """Start the run, or go on with it, until it is complete."""
    with Store.open(folder, faults) as store:
        known = store.runs()
        run_id = known[0].id if known else store.create_run(RunRecord("toy"))
        if store.run(run_id).status == "complete":
            return
        with (
            store.session(run_id) as session,
            SlotFile(session.states_path, CLIENTS, LENGTH, faults=faults) as states,
        ):
            _rounds(session, states)
            session.finish("complete", "all rounds")


def _rounds(session: RunSession, states: SlotFile) -> None:
    latest = session.latest()
    done, model = 0, np.linspace(0, 1, 8).astype(np.float32)
    if latest is None:
        states.restore({})
        session.note(StoredEvent("started", "the toy begins"))
    else:
        done, model = latest.round, np.asarray(latest.state["model"], np.float32)
        states.restore(latest.slots)
    # Groups of two rounds, decided by the round number so that every history is alike.
    commits = GroupedCommits(session, 1e9, states=states)
    for number in range(done + 1, ROUNDS + 1):
        record = _round(number, model, states)
        model = np.asarray(record.state["model"], np.float32)
        commits.add(record, force=number % 2 == 0)
    commits.flush()


def _round(number: int, model: np.ndarray, states: SlotFile) -> RoundRecord:
    draw = generator(0, "toy", number)
    cohort = [int(c) for c in draw.choice(CLIENTS, 3, replace=False)]
    failed = number == 5
    total = np.zeros(8, np.float32)
    for client in cohort:
        memory = states.read(client)
        before = np.zeros(LENGTH, np.float32) if memory is None else memory
        after = (before * 0.5 + model[:LENGTH] + client).astype(np.float32)
        states.write_pending(client, after)
        total[:LENGTH] += after
        if failed:
            states.discard(client)
        else:
            states.promote(client)
    new = model if failed else (model * 0.9 + total * 0.1).astype(np.float32)
    return RoundRecord(
        round=number,
        outcome="failed" if failed else "complete",
        metrics={"norm": float(np.linalg.norm(new))},
        client_columns={"client": cohort},
        releases=(ReleaseEntry("model", details={"contributors": len(cohort)}),),
        events=(StoredEvent("refused", "all late"),) if failed else (),
        state={"model": new},
        keep="best" if number in (2, 3) else "",
    )


def end_of(folder: Path) -> End:
    """Read the finished run back, checking hashes, chain and leftovers on the way."""
    with Store.open(folder) as store:
        (run,) = store.runs()
        states_path = folder / "states" / f"{run.id}.slots"
        with SlotFile(states_path, CLIENTS, LENGTH) as states:
            states.restore(_slots(store, run.id))
            memories = tuple(states.read(client) for client in range(CLIENTS))
        files = {p.stem for p in (folder / "blobs").glob("*/*")}
        rounds = store.rounds(run.id)
        kept = {*store.kept(run.id).values(), ROUNDS}
        assert files == {r.state_digest for r in rounds if r.round in kept}, "leftover files"
        return End(
            model=store.model(run.id)["model"].tobytes(),
            best=store.model(run.id, "best")["model"].tobytes(),
            memories=tuple(None if m is None else m.tobytes() for m in memories),
            rounds=tuple((r.round, r.outcome, r.metrics, r.client_columns) for r in rounds),
            releases=tuple((r.round, r.entry) for r in store.releases(run.id)),
            # The run may be told to start twice when it is killed before its first commit.
            events=tuple((e.round, e.kind) for e in store.events(run.id) if e.round),
            status=run.status,
        )


def _slots(store: Store, run_id: str) -> dict[int, int]:
    from anabranch.coordinator.store import reads

    with store._database.reading() as connection:
        return reads.slots_of(connection, run_id)


def in_child(folder: Path, faults: Faults) -> int | None:
    """Run the toy in a process of its own; the signal that ended it, None after a normal end."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            run_toy(folder, faults)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status)
    assert os.WEXITSTATUS(status) == 0, "the toy run failed in the child"
    return None


KILLED = signal.SIGKILL
