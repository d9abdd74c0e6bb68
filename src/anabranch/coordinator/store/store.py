"""The store: one folder with a database, blobs, client states and locks."""

from __future__ import annotations

import difflib
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from anabranch.coordinator.store.blobs import Blobs
from anabranch.coordinator.store.locks import FileLock
from anabranch.coordinator.store.records import (
    Arrays,
    RunRecord,
    StoredEvent,
    StoredRelease,
    StoredRound,
)
from anabranch.coordinator.store.session import RunSession, acquire
from anabranch.disk import Faults, explained, make_directory, no_faults
from anabranch.errors import AnabranchError

if TYPE_CHECKING:
    from anabranch.coordinator.store.database import Database

__all__ = ["Store"]

_DATABASE = "store.sqlite"


class Store:
    """Everything durable about runs; open it with `Store.open`, close it when done.

    The folder holds ``store.sqlite`` (with its log while open), ``blobs/`` (states as
    safetensors), ``states/`` (memory of simulated clients) and ``locks/``. Reading never waits for
    a run in progress.
    """

    def __init__(self, path: Path, database: Database, blobs: Blobs, faults: Faults) -> None:
        self.path = path
        self._database = database
        self._blobs = blobs
        self._faults = faults

    @classmethod
    def open(cls, path: Path | str, faults: Faults = no_faults, *, create: bool = True) -> Store:
        """Open the store in folder ``path``; leftovers of a crash are deleted.

        Args:
            path: the folder, usually ``runs``.
            faults: told about every step that touches the disk (tests).
            create: make a new store when there is none.

        Raises:
            AnabranchError: AB-601 SQLAlchemy is not installed; AB-617 no store and not ``create``;
                AB-606 newer schema; AB-612 not a store; AB-602, AB-603, AB-613, AB-614 from the
                disk.
        """
        root = Path(path)
        if not create and not (root / _DATABASE).is_file():
            raise AnabranchError(
                "AB-617",
                f"there is no store in {root}.",
                fix="name the folder in which the run was started.",
            )
        with explained(root, "opening the store"):
            for name in ("blobs", "states", "locks"):
                make_directory(root / name, "store", faults)
        database = _database(root / _DATABASE, faults)
        try:
            blobs = _blobs(root, database, faults)
        except BaseException:
            database.close()
            raise
        return cls(root, database, blobs, faults)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database; sessions must be closed before."""
        self._blobs.close()
        self._database.close()

    def create_run(
        self, run: RunRecord, prepare: Callable[[str], None] = lambda run_id: None
    ) -> str:
        """Add a run; returns its id, like ``heart-20261121-a1b2``.

        Args:
            run: without an id.
            prepare: called with the id before the run is durable, so that no run is ever seen
                without what this writes; an id that a crash left over is harmless.
        """
        from anabranch.coordinator.store import writes

        created = run.created or time.time()
        while True:
            named = replace(run, id=_run_id(run.name, created), created=created)
            with self._database.writing("create") as connection:
                if writes.insert_run(connection, named):
                    prepare(named.id)
                    return named.id

    def session(self, run_id: str) -> RunSession:
        """Open a run for writing, alone; it counts as running again.

        Raises:
            AnabranchError: AB-607 another coordinator writes it, AB-608 no such run, AB-609 it is
                complete.
        """
        self.run(run_id)
        lock = acquire(self._lock_path(run_id), run_id)
        states = self.path / "states" / f"{run_id}.slots"
        session = RunSession(run_id, self._database, self._blobs, lock, states, self._faults)
        try:
            run = self.run(run_id)  # as it is now that nobody else can change it
            if run.status == "complete":
                raise AnabranchError(
                    "AB-609",
                    f"run {run_id!r} is complete; there is nothing to resume.",
                    fix="look at its report, or start a new run for more rounds.",
                )
            if run.status != "running":
                session.finish("running")
        except BaseException:
            session.close()
            raise
        return session

    def amend(self, run: RunRecord, event: StoredEvent) -> None:
        """Give a run that nobody writes now another plan, and let it go on; with the reason why.

        Args:
            run: as `Store.run` gave it, with plan, digests and trust line of the amended one.
            event: for the run's log, in the same transaction.

        Raises:
            AnabranchError: AB-607 a coordinator writes it, AB-608 no such run; AB-6xx the disk:
                nothing was changed.
        """
        from anabranch.coordinator.store import writes

        self.run(run.id)
        lock = acquire(self._lock_path(run.id), run.id)
        try:
            with self._database.writing("note") as connection:
                writes.set_plan(connection, run)
                writes.append_events(connection, run.id, (event,), None)
        finally:
            lock.close()

    def is_open(self, run_id: str) -> bool:
        """Whether some process has a session on the run now."""
        lock = FileLock(self._lock_path(run_id))
        try:
            return not lock.try_exclusive()
        finally:
            lock.close()

    def runs(self) -> tuple[RunRecord, ...]:
        """All runs, newest first."""
        from anabranch.coordinator.store import reads

        with self._database.reading() as connection:
            return reads.runs(connection)

    def run(self, run_id: str) -> RunRecord:
        """One run.

        Raises:
            AnabranchError: AB-608 when there is none with this id.
        """
        from anabranch.coordinator.store import reads

        with self._database.reading() as connection:
            found = reads.one_run(connection, run_id)
        if found is None:
            known = [run.id for run in self.runs()]
            near = difflib.get_close_matches(run_id, known, n=1, cutoff=0.4)
            raise AnabranchError(
                "AB-608",
                f"there is no run {run_id!r} in {self.path}.",
                fix=f"did you mean {near[0]!r}?" if near else "list the runs of this store.",
            )
        return found

    def rounds(self, run_id: str, *, clients: bool = True) -> tuple[StoredRound, ...]:
        """The durable rounds in order; without per-client columns unless ``clients``."""
        from anabranch.coordinator.store import reads

        with self._database.reading() as connection:
            return reads.rounds_of(connection, run_id, clients)

    def releases(self, run_id: str) -> tuple[StoredRelease, ...]:
        """What left the trust boundary, in order.

        Raises:
            AnabranchError: AB-610 when the hash chain is broken.
        """
        from anabranch.coordinator.store import chain, reads

        with self._database.reading() as connection:
            return chain.checked(run_id, reads.releases_of(connection, run_id))

    def events(
        self, run_id: str, kind: str = "", round_: int | None = None
    ) -> tuple[StoredEvent, ...]:
        """The run's log, in order; events of one kind, or of one round, if it is given."""
        from anabranch.coordinator.store import reads

        with self._database.reading() as connection:
            return reads.events_of(connection, run_id, kind=kind, round_=round_)

    def kept(self, run_id: str) -> Mapping[str, int]:
        """Round by label (``best``), for states that are kept on purpose."""
        from anabranch.coordinator.store import reads

        with self._database.reading() as connection:
            return reads.labels_of(connection, run_id)

    def model(self, run_id: str, which: int | str | None = None) -> Arrays:
        """The state of a round: the latest (None), one by number, or one by label (``"best"``).

        Raises:
            AnabranchError: AB-618 that state was not kept; AB-604, AB-605 damaged or missing.
        """
        for _ in range(5):
            digest = self._digest(run_id, which)
            try:
                return self._blobs.get(digest)
            except AnabranchError as error:
                # A run in progress may have replaced the state since we asked.
                if error.code != "AB-605" or self._digest(run_id, which) == digest:
                    raise
        return self._blobs.get(self._digest(run_id, which))

    def _digest(self, run_id: str, which: int | str | None) -> str:
        from anabranch.coordinator.store import reads

        with self._database.reading() as connection:
            states = reads.states_of(connection, run_id)
            labels = reads.labels_of(connection, run_id)
        if which is None and states:
            return states[max(states)]
        number = labels.get(which) if isinstance(which, str) else which
        if number not in states:
            kept = ", ".join(str(n) for n in states) or "none"
            raise AnabranchError(
                "AB-618",
                f"run {run_id!r} has no stored model {'' if which is None else which!r}".rstrip()
                + f" (rounds kept: {kept}).",
                fix="ask for one of the rounds kept, or for the latest.",
            )
        return states[number]

    def _lock_path(self, run_id: str) -> Path:
        return self.path / "locks" / f"{run_id}.lock"


def _database(path: Path, faults: Faults) -> Database:
    """The SQL side; SQLAlchemy is needed from here on only."""
    try:
        from anabranch.coordinator.store.database import Database
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("sqlalchemy"):
            raise
        raise AnabranchError(
            "AB-601",
            "the store needs SQLAlchemy, which is not installed.",
            fix='pip install "anabranch[coordinator]"',
        ) from error
    return Database(path, faults)


def _blobs(root: Path, database: Database, faults: Faults) -> Blobs:
    """The blob folder, without what a crash left there."""
    with explained(root, "opening the store"):
        blobs = Blobs(root / "blobs", FileLock(root / "locks" / "blobs.lock"), faults)
        blobs.collect(database.named)
    return blobs


def _run_id(name: str, created: float) -> str:
    """Readable, sortable within a name, unique up to a collision that the caller retries."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].rstrip("-") or "run"
    return f"{slug}-{time.strftime('%Y%m%d', time.gmtime(created))}-{secrets.token_hex(2)}"
