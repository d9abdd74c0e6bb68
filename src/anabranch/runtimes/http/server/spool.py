"""The spool: accepted answers and fates on the coordinator's disk, written in groups.

An answer is acknowledged only once it lies here, durable. Its key is (task, client), so it counts
once whatever is repeated. Names of tasks derive from the run: a coordinator that was killed asks
the same tasks again and finds what was answered before. Small answers are rows; large ones are
files, which were written and synced while they arrived.

One thread writes. What arrives while a transaction is being synced shares the next one: a hundred
answers cost a few syncs. When the disk fails, whoever waits is told; what nobody waits for (fates,
confirmations) is written with a later transaction, in its order.
"""

from __future__ import annotations

import mmap
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from anabranch.client.task import Fate
from anabranch.disk import Faults, disk_problem, explained, full_disk, make_directory, no_faults
from anabranch.errors import AnabranchError
from anabranch.updates.container import Buffer

__all__ = ["Answer", "Spool"]

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS answers (
    task TEXT NOT NULL, client TEXT NOT NULL, run TEXT NOT NULL, digest TEXT NOT NULL,
    size INTEGER NOT NULL, milliseconds INTEGER NOT NULL, content BLOB, file TEXT,
    PRIMARY KEY (task, client));
CREATE TABLE IF NOT EXISTS fates (
    task TEXT NOT NULL, client TEXT NOT NULL, run TEXT NOT NULL, fate TEXT NOT NULL,
    held INTEGER NOT NULL, heard INTEGER NOT NULL, after INTEGER NOT NULL,
    PRIMARY KEY (task, client));
CREATE TABLE IF NOT EXISTS given (
    client TEXT NOT NULL, run TEXT NOT NULL, round INTEGER NOT NULL,
    PRIMARY KEY (client, run, round)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS fates_of_run ON fates (run, held, heard);
"""
_ADD: Final = "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_FIND: Final = (
    "SELECT client, digest, size, milliseconds, content, file FROM answers WHERE task = ?"
)
_GIVE: Final = "INSERT OR IGNORE INTO given VALUES (?, ?, ?)"
_FATE: Final = (
    "INSERT INTO fates VALUES (?, ?, ?, ?, 1, 0, ?) ON CONFLICT (task, client) "
    "DO UPDATE SET fate = excluded.fate, held = 1, after = excluded.after WHERE fates.held = 1"
)
_FULL: Final = 13  # sqlite3.SQLITE_FULL
_GROUP: Final = 512

Step: TypeAlias = Callable[[sqlite3.Connection], None]


@dataclass(frozen=True, slots=True)
class Answer:
    """What one client answered to one task.

    Attributes:
        task: its name.
        client: the client's name.
        digest: SHA-256 of the content.
        size: bytes.
        milliseconds: from the offer to the answer.
        content: the bytes, where they are few; else None.
        file: the file that holds them; empty where they are few, or once they were merged.
    """

    task: str
    client: str
    digest: str
    size: int
    milliseconds: int
    content: bytes | None = None
    file: str = ""


class Spool:
    """The answers and fates of one fleet.

    Args:
        directory: made when absent; it belongs to one coordinator.
        faults: told about every transaction (tests).

    Raises:
        AnabranchError: AB-6xx from the disk.
    """

    def __init__(self, directory: Path, faults: Faults = no_faults) -> None:
        self.directory, self._faults = Path(directory), faults
        self.files = self.directory / "answers"
        with explained(self.directory, "opening the spool"):
            make_directory(self.files, "spool", faults)
        self._path = self.directory / "spool.db"
        self._steps: queue.SimpleQueue[_Said | None] = queue.SimpleQueue()
        self._unwritten: list[_Said] = []
        self._reading = threading.Lock()
        self._reader = self._connected()
        self._thread = threading.Thread(target=self._write, name="anabranch-spool", daemon=True)
        self._thread.start()

    # Answers -------------------------------------------------------------------------------

    def add(self, run: str, answer: Answer, private: int | None = None) -> Future[None]:
        """Make an answer durable; where there is one of this task and client, that one stays.

        Args:
            run: whose.
            answer: of one client.
            private: the round of a private run for which the client trained, which is counted for
                good; None for answers to anything else.
        """
        row = (
            answer.task,
            answer.client,
            run,
            answer.digest,
            answer.size,
            answer.milliseconds,
            answer.content,
            answer.file,
        )

        def step(connection: sqlite3.Connection) -> None:
            connection.execute(_ADD, row)
            if private is not None:
                connection.execute(_GIVE, (answer.client, run, private))

        return self._later(step, again=False)

    def given(self, client: str) -> int:
        """For how many rounds of private runs a client has given an update, runs that are over
        included: what the client must know of as well."""
        with self._reading, self._explained():
            asked = "SELECT COUNT(*) FROM given WHERE client = ?"
            return int(self._reader.execute(asked, (client,)).fetchone()[0])

    def answers(self, task: str) -> dict[str, Answer]:
        """What is there of a task, by client."""
        with self._reading, self._explained():
            rows = self._reader.execute(_FIND, (task,)).fetchall()
        found = (
            Answer(task, client, digest, size, milliseconds, content, file or "")
            for client, digest, size, milliseconds, content, file in rows
        )
        return {answer.client: answer for answer in found}

    def content(self, answer: Answer) -> Buffer:
        """The bytes of an answer; a large one is mapped, not read.

        Raises:
            AnabranchError: AB-6xx the file cannot be read.
        """
        if answer.content is not None:
            return answer.content
        path = self.files / answer.file
        with explained(path, "reading an answer"), path.open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def end(self, run: str) -> None:
        """The run is over: nobody repeats an answer or asks for a fate that was heard."""
        with self._reading, self._explained():
            asked = "SELECT file FROM answers WHERE run = ? AND file != ''"
            files = [row[0] for row in self._reader.execute(asked, (run,)).fetchall()]
        for name in files:
            (self.files / name).unlink(missing_ok=True)
        for drop in (
            "DELETE FROM answers WHERE run = ?",
            "DELETE FROM fates WHERE run = ? AND heard = 1",
        ):
            self._later(lambda connection, drop=drop: _ignore(connection.execute(drop, (run,))))  # type: ignore[misc]  # the default binds the loop's value

    # Fates ---------------------------------------------------------------------------------

    def hold(self, run: str, task: str, fates: Mapping[str, Fate], after: int) -> None:
        """Note fates that may be told once the commit that follows round ``after`` is durable."""
        rows = [(task, client, run, fate.value, after) for client, fate in fates.items()]
        self._later(lambda connection: _ignore(connection.executemany(_FATE, rows)))

    def release(self, run: str, *, last: int | None = None) -> None:
        """The commit happened: fates may be told, and merged answers need not be kept.

        Args:
            run: whose.
            last: the last durable round, after a restart: fates of later commits never happened.
        """
        if last is not None:
            drop = "DELETE FROM fates WHERE run = ? AND held = 1 AND after >= ?"
            self._later(lambda connection: _ignore(connection.execute(drop, (run, last))))
        self._later(lambda connection: self._released(connection, run))

    def unheard(self, run: str) -> list[tuple[str, str, Fate]]:
        """Task, client and fate of what clients have not confirmed, oldest first."""
        asked = (
            "SELECT task, client, fate FROM fates WHERE run = ? AND held = 0 AND heard = 0 "
            "ORDER BY rowid"
        )
        self.flush()
        with self._reading, self._explained():
            rows = self._reader.execute(asked, (run,)).fetchall()
        return [(task, client, Fate(fate)) for task, client, fate in rows]

    def untold(self) -> list[str]:
        """Runs with fates that clients have not confirmed."""
        asked = "SELECT DISTINCT run FROM fates WHERE heard = 0"
        with self._reading, self._explained():
            return [row[0] for row in self._reader.execute(asked).fetchall()]

    def fate(self, task: str, client: str) -> Fate | None:
        """The fate of a task that may be told; None when there is none."""
        asked = "SELECT fate FROM fates WHERE task = ? AND client = ? AND held = 0"
        with self._reading, self._explained():
            row = self._reader.execute(asked, (task, client)).fetchone()
        return Fate(row[0]) if row else None

    def knows(self, task: str, client: str) -> bool:
        """Whether there is a fate of a task, whether or not it may be told yet."""
        asked = "SELECT 1 FROM fates WHERE task = ? AND client = ?"
        with self._reading, self._explained():
            return self._reader.execute(asked, (task, client)).fetchone() is not None

    def hear(self, client: str, tasks: Iterable[str]) -> None:
        """The client confirmed these fates; lost in a crash, they are told again."""
        rows = [(client, task) for task in tasks]
        change = "UPDATE fates SET heard = 1 WHERE client = ? AND task = ?"
        if rows:
            self._later(lambda connection: _ignore(connection.executemany(change, rows)))

    # Writing -------------------------------------------------------------------------------

    def flush(self) -> None:
        """Wait until everything said so far is durable.

        Raises:
            AnabranchError: AB-602, AB-603, AB-613 from the disk.
        """
        self._later(lambda connection: None, again=False).result()

    def close(self) -> None:
        """Finish writing; may be called twice."""
        if self._thread.is_alive():
            self._steps.put(None)
            self._thread.join()
            with self._reading:
                self._reader.close()

    def _later(self, step: Step, *, again: bool = True) -> Future[None]:
        """``again``: nobody waits for it, so a disk that fails now must not lose it."""
        said = _Said(step, again)
        self._steps.put(said)
        return said.future

    def _write(self) -> None:
        connection = self._connected()
        open_ = True
        while open_:
            group = [self._steps.get()]
            while len(group) < _GROUP:
                try:
                    group.append(self._steps.get_nowait())
                except queue.Empty:
                    break
            open_ = None not in group
            self._commit(connection, [item for item in group if item is not None])
        connection.close()

    def _commit(self, connection: sqlite3.Connection, said: list[_Said]) -> None:
        """All of a group or, when the disk fails, nothing of it."""
        group = [*self._unwritten, *said]
        try:
            connection.execute("BEGIN IMMEDIATE")
            self._faults.reach("spool.begin")
            for item in group:
                item.step(connection)
            self._faults.reach("spool.commit.before")
            connection.execute("COMMIT")
            self._faults.reach("spool.commit.after")
        except (sqlite3.Error, OSError) as error:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            self._unwritten = [item for item in group if item.again]
            problem = _problem(error, self._path)
            for item in said:
                item.future.set_exception(problem)
        else:
            self._unwritten = []
            for item in said:
                item.future.set_result(None)

    def _released(self, connection: sqlite3.Connection, run: str) -> None:
        asked = "SELECT DISTINCT task FROM fates WHERE run = ? AND held = 1"
        tasks = [row[0] for row in connection.execute(asked, (run,)).fetchall()]
        for task in tasks:
            self._forget(connection, task)
        connection.execute("UPDATE fates SET held = 0 WHERE run = ? AND held = 1", (run,))

    def forget(self, tasks: Iterable[str]) -> None:
        """Drop the contents of tasks that nobody needs any more; their digests stay."""
        for task in tuple(tasks):
            self._later(lambda connection, task=task: self._forget(connection, task))  # type: ignore[misc]  # the default binds the loop's value

    def _forget(self, connection: sqlite3.Connection, task: str) -> None:
        asked = "SELECT file FROM answers WHERE task = ? AND file != ''"
        for (name,) in connection.execute(asked, (task,)).fetchall():
            with suppress(OSError):  # collected at the next start
                os.unlink(self.files / name)
        connection.execute("UPDATE answers SET content = NULL, file = '' WHERE task = ?", (task,))

    def collect(self) -> int:
        """Delete files that no row names (at start); returns how many."""
        with self._reading, self._explained():
            rows = self._reader.execute("SELECT file FROM answers WHERE file != ''").fetchall()
        named = {row[0] for row in rows}
        orphans = [path for path in self.files.iterdir() if path.name not in named]
        for path in orphans:
            path.unlink(missing_ok=True)
        return len(orphans)

    def _connected(self) -> sqlite3.Connection:
        with self._explained():
            connection = sqlite3.connect(
                self._path, isolation_level=None, check_same_thread=False, timeout=10.0
            )
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "auto_vacuum=INCREMENTAL"):
                connection.execute(f"PRAGMA {pragma}")
            connection.executescript(_TABLES)
        return connection

    def _explained(self) -> _Explained:
        return _Explained(self._path)


@dataclass(frozen=True, slots=True)
class _Said:
    """A step of a transaction, whether a later one must make up for it, and who waits."""

    step: Step
    again: bool
    future: Future[None] = field(default_factory=Future)


class _Explained:
    """Turns errors of the database into words."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlite3.Error):
            raise _problem(error, self._path) from error


def _ignore(cursor: sqlite3.Cursor) -> None:
    """A step has no result."""


def _problem(error: sqlite3.Error | OSError, path: Path) -> AnabranchError:
    doing = "writing to the spool"
    if isinstance(error, OSError):
        return disk_problem(error, path, doing)
    if getattr(error, "sqlite_errorcode", 0) & 0xFF == _FULL:
        return full_disk(path, doing)
    return AnabranchError(
        "AB-613",
        f"{doing} failed: the database {path} reported an error ({error}).",
        fix="check the disk, then start the coordinator again.",
        kept="Answers that were acknowledged are intact.",
    )
