"""What a daemon says and writes about runs as a whole: records, its lock, its refusals."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from anabranch.api.conduct import plan_record
from anabranch.coordinator.store import RunRecord, Store
from anabranch.coordinator.store.locks import FileLock
from anabranch.disk import explained
from anabranch.errors import AnabranchError
from anabranch.plan import Plan
from anabranch.runtimes.http.status import RunStatus

__all__ = ["as_stored", "draining", "locked", "nobody", "only_run", "served_record"]


def only_run(run_id: str, known: Iterable[str]) -> str:
    """The one run whose id begins like this.

    Raises:
        AnabranchError: AB-771 there is none, or several.
    """
    found = [name for name in known if name.startswith(run_id)]
    if len(found) != 1 or not run_id:
        raise AnabranchError(
            "AB-771",
            f"the daemon serves {len(found)} runs whose id begins with {run_id!r}.",
            fix="give the id as `anabranch status` shows it.",
        )
    return found[0]


def as_stored(store: Store, record: RunRecord) -> RunStatus:
    """A run that ended before this daemon began."""
    rounds = store.rounds(record.id, clients=False)
    return RunStatus(
        run=record.id,
        name=record.name,
        state=str(record.status),
        reason=record.reason,
        round=max((stored.round for stored in rounds), default=0),
        rounds=Plan.model_validate(record.plan).rounds.count,
    )


def served_record(plan: Plan, names: Sequence[str], trust: str) -> RunRecord:
    """A run whose data nobody has seen yet: their digest is of who has them."""
    record = plan_record(plan, sha256("\n".join(names).encode()).hexdigest())
    return replace(record, trust_line=f"{record.trust_line}; {trust}")


def locked(path: Path) -> FileLock:
    """The daemon's lock on its folder.

    Raises:
        AnabranchError: AB-768 another daemon has it.
    """
    with explained(path, "locking the daemon's folder"):
        lock = FileLock(path)
    if not lock.try_exclusive():
        holder = lock.word() or "another process"
        lock.close()
        raise AnabranchError(
            "AB-768",
            f"{path.parent} is served by {holder} already.",
            fix="submit plans to that daemon (`anabranch submit`), or end it (`anabranch drain`).",
            kept="Nothing was started.",
        )
    lock.leave_word(f"process {os.getpid()}")
    return lock


def nobody(why: str) -> AnabranchError:
    """AB-769."""
    return AnabranchError(
        "AB-769",
        f"the clients of the run are not there: {why}.",
        fix="enrol the sites first (`anabranch enrol`), or name them on loopback (--clients).",
        kept="Nothing was started.",
    )


def draining() -> AnabranchError:
    """AB-770."""
    return AnabranchError(
        "AB-770",
        "the daemon is being drained and takes no new runs.",
        fix="submit the plan when it has started again.",
        kept="Nothing was started.",
    )
