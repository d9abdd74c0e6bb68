"""One run being written: exclusive, in order, each commit all or nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from anabranch.coordinator.store.blobs import Blobs
from anabranch.coordinator.store.locks import FileLock
from anabranch.coordinator.store.records import Latest, RoundRecord, RunStatus, StoredEvent
from anabranch.disk import Faults, explained
from anabranch.errors import AnabranchError

if TYPE_CHECKING:
    from anabranch.coordinator.store.database import Database

__all__ = ["RunSession", "acquire"]


class RunSession:
    """The right to write one run; get it from `Store.session`.

    The order of a commit: blobs written, synced and renamed, their folder synced; then one
    transaction that names them, with metrics, slots, releases and events; then blobs that nothing
    names any more are deleted. A kill between any two steps leaves the state before or after.

    Attributes:
        run_id: of the run.
        states_path: where the run's client states belong (see `anabranch.client.states`).
        faults: the store's, for the client states.
    """

    def __init__(
        self,
        run_id: str,
        database: Database,
        blobs: Blobs,
        lock: FileLock,
        states_path: Path,
        faults: Faults,
    ) -> None:
        self.run_id = run_id
        self.states_path = states_path
        self.faults = faults
        self._database = database
        self._blobs = blobs
        self._lock = lock
        self._stale: set[str] = set()
        self._last: int | None = database.last_round(run_id)

    def __enter__(self) -> RunSession:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def commit(self, rounds: Sequence[RoundRecord]) -> None:
        """Make ``rounds`` durable together.

        Only the last record's state becomes a blob, and the last one of each ``keep`` label.

        Args:
            rounds: consecutive rounds; the first one follows the last committed round.

        Raises:
            AnabranchError: AB-602 disk full, AB-603 not writable, AB-613, AB-614 other failures;
                nothing of ``rounds`` is then stored, and the call may be repeated.
            ValueError: the numbers are not consecutive, or the session is closed.
        """
        self._require_open()
        if not rounds:
            return
        from anabranch.coordinator.store import writes

        self._check_order(rounds)
        with self._blobs.writing():
            digests = {record.round: self._blobs.put(record.state) for record in _held(rounds)}
            self._stale.update(digests.values())  # unless the commit names them
            with self._database.writing("round") as connection:
                writes.insert_rounds(connection, self.run_id, rounds, digests)
                self._stale |= writes.drop_states(connection, self.run_id)
        self._last = rounds[-1].round
        # The rounds are durable from here on: what cannot be deleted now is collected later.
        with suppress(AnabranchError):
            self._stale = self._blobs.delete(self._stale, self._database.named)

    def latest(self) -> Latest | None:
        """Where the run goes on; None before its first commit.

        Raises:
            AnabranchError: AB-604 or AB-605 when the state is damaged or missing.
        """
        from anabranch.coordinator.store import reads

        with self._database.reading() as connection:
            states = reads.states_of(connection, self.run_id)
            if not states:
                return None
            last = max(states)
            slots = reads.slots_of(connection, self.run_id)
        return Latest(last, self._blobs.get(states[last]), slots)

    def events(self, kind: str, round_: int | None = None) -> tuple[StoredEvent, ...]:
        """The run's events of one kind, in order; those of one round if it is given."""
        from anabranch.coordinator.store import reads

        with self._database.reading() as connection:
            return reads.events_of(connection, self.run_id, kind=kind, round_=round_)

    def note(self, *events: StoredEvent) -> None:
        """Append events that belong to no round, such as a resume; durable at once."""
        from anabranch.coordinator.store import writes

        self._require_open()
        with self._database.writing("note") as connection:
            writes.append_events(connection, self.run_id, events, None)

    def finish(self, status: RunStatus, reason: str = "") -> None:
        """Say how the run ended, in words; a ``complete`` run is never opened again."""
        from anabranch.coordinator.store import writes

        self._require_open()
        ended = None if status == "running" else time.time()
        with self._database.writing("status") as connection:
            writes.set_status(connection, self.run_id, status, reason, ended)

    def close(self) -> None:
        """Let others write the run; may be called twice."""
        self._lock.close()

    def _require_open(self) -> None:
        if self._lock.closed:
            raise ValueError("the session is closed, or belongs to the parent process")

    def _check_order(self, rounds: Sequence[RoundRecord]) -> None:
        start = rounds[0].round if self._last is None else self._last + 1
        if [record.round for record in rounds] != list(range(start, start + len(rounds))):
            numbers = ", ".join(str(record.round) for record in rounds)
            raise ValueError(f"rounds {numbers} do not follow round {self._last} one by one")


def acquire(path: Path, run_id: str) -> FileLock:
    """The exclusive lock of a run.

    Raises:
        AnabranchError: AB-607 when another coordinator holds it.
    """
    with explained(path, "locking the run"):
        lock = FileLock(path)
    if not lock.try_exclusive():
        holder = lock.word() or "another process"
        lock.close()
        raise AnabranchError(
            "AB-607",
            f"run {run_id!r} is being written by {holder}.",
            fix="wait until it ends or end it, then resume.",
        )
    lock.leave_word(f"process {os.getpid()}")
    return lock


def _held(rounds: Sequence[RoundRecord]) -> list[RoundRecord]:
    """The rounds whose state is written: the last one, and the last one of each label."""
    labelled = {record.keep: record.round for record in rounds if record.keep}
    held = {*labelled.values(), rounds[-1].round}
    return [record for record in rounds if record.round in held]
