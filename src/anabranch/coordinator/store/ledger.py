"""The durable ledger of a population: one SQLite file, shared by all runs and processes.

Every decision is one transaction that holds the write lock from reading to appending, so two
processes cannot spend the same budget. A reservation is durable before its noise key is handed out;
settlement comes after the commit of the round that it belongs to and may be repeated. What a kill
leaves between the two counts as spent (``docs/decisions/043-ledger-beside-the-store.md``).
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

from anabranch.coordinator.store.participations import Participations
from anabranch.coordinator.store.problems import PATIENCE_MS, database_problem
from anabranch.coordinator.store.run_ledger import Reservation, RunLedger
from anabranch.coordinator.store.secrets import SECRET_POINTS, RunSecret
from anabranch.disk import TEMPORARY, Faults, disk_problem, explained, make_directory, no_faults
from anabranch.errors import AnabranchError
from anabranch.privacy.ledger import (
    Allotted,
    Balance,
    DryRun,
    Entry,
    Line,
    Link,
    Opened,
    append,
    as_document,
    canonical,
    checked,
    first_head,
    from_document,
    rules,
)
from anabranch.privacy.ledger.documents import unreadable

__all__ = ["LEDGER_POINTS", "PopulationLedger", "Reservation", "RunLedger", "populations"]

E = TypeVar("E", bound=Entry)

_SUFFIX: Final = ".ledger"
_PURPOSES: Final = ("open", "allot", "reserve", "settle", "close", "cohort")

LEDGER_POINTS: Final = (
    "ledger.mkdir.before",
    "ledger.mkdir.after",
    *(f"ledger.{p}.{at}" for p in _PURPOSES for at in ("begin", "commit.before", "commit.after")),
    *SECRET_POINTS,
)
"""Where a kill is tested."""

_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS entries (sequence INTEGER PRIMARY KEY, at FLOAT NOT NULL,"
    " document TEXT NOT NULL, previous VARCHAR(64) NOT NULL, digest VARCHAR(64) NOT NULL)",
    "CREATE TABLE IF NOT EXISTS participations (run VARCHAR(96) NOT NULL, client TEXT NOT NULL,"
    " round INTEGER NOT NULL, PRIMARY KEY (run, client, round))",
)
_ADD: Final = (
    "INSERT INTO entries (sequence, at, document, previous, digest) VALUES (?, ?, ?, ?, ?)"
)
_NEWER: Final = (
    "SELECT sequence, at, document, previous, digest FROM entries"
    " WHERE sequence > ? ORDER BY sequence"
)


def populations(folder: Path) -> tuple[str, ...]:
    """The populations that have a ledger in ``folder``."""
    return tuple(sorted(path.name.removesuffix(_SUFFIX) for path in folder.glob(f"*{_SUFFIX}")))


class PopulationLedger:
    """The ledger of one population; open it with `PopulationLedger.open`.

    Args:
        path: the SQLite file.
        faults: told about every step that touches the disk (tests).
        clock: seconds since 1970.
    """

    def __init__(
        self, path: Path, faults: Faults = no_faults, clock: Callable[[], float] = time.time
    ) -> None:
        self.path = path
        self.population = path.name.removesuffix(_SUFFIX)
        self._faults = faults
        self._clock = clock
        self._last: Link | None = None
        self._balance: Balance | None = None
        with explained(path, "opening the privacy ledger"):
            make_directory(path.parent, "ledger", faults)
        with self._explained("opening the privacy ledger"):
            self._connection = sqlite3.connect(path, isolation_level=None)
            for pragma in (f"busy_timeout={PATIENCE_MS}", "journal_mode=WAL", "synchronous=FULL"):
                self._connection.execute(f"PRAGMA {pragma}")

    @classmethod
    def open(cls, folder: Path, wanted: Opened, faults: Faults = no_faults) -> PopulationLedger:
        """The ledger of ``wanted.population``; made when it is the first run that names it.

        Raises:
            AnabranchError: AB-914 damaged, AB-915 the population means something else; AB-602,
                AB-603, AB-612, AB-613, AB-614 from the disk.
        """
        ledger = cls(folder / f"{wanted.population}{_SUFFIX}", faults)
        try:
            with ledger._writing("open"):
                for statement in _TABLES:
                    ledger._connection.execute(statement)
                ledger._catch_up()
                if ledger._balance is None:
                    ledger._append(wanted)
                else:
                    rules.same_population(ledger._balance.opened, wanted)
                    ledger._sweep(ledger._balance)
        except BaseException:
            ledger.close()
            raise
        return ledger

    @classmethod
    def existing(cls, folder: Path, population: str) -> PopulationLedger:
        """The ledger of a population that has one.

        Raises:
            AnabranchError: AB-922 there is none; AB-914 damaged; AB-6xx from the disk.
        """
        path = folder / f"{population}{_SUFFIX}"
        if not path.is_file():
            known = ", ".join(populations(folder)) or "none"
            raise AnabranchError(
                "AB-922",
                f"there is no privacy ledger of population {population!r} in {folder} (there: "
                f"{known}).",
                fix="name the folder in which the runs were started, and the population as the "
                "plan writes it.",
            )
        ledger = cls(path)
        try:
            ledger.balance()
        except BaseException:
            ledger.close()
            raise
        return ledger

    def __enter__(self) -> PopulationLedger:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what was appended is durable already."""
        self._connection.close()

    def balance(self) -> Balance:
        """What has been spent up to now, by whichever process.

        Raises:
            AnabranchError: AB-914 damaged.
        """
        with self._explained("reading the privacy ledger"):
            self._catch_up()
        if self._balance is None:
            raise unreadable(f"{self.path.name} has no entries")
        return self._balance

    def links(self) -> tuple[Link, ...]:
        """All entries with their digests, each checked.

        Raises:
            AnabranchError: AB-914 at the first entry that does not follow.
        """
        with self._explained("reading the privacy ledger"):
            return tuple(checked(self.population, self._newer(-1)))

    def contents(self, after: int) -> tuple[str, ...]:
        """Content digests of the entries after number ``after``, in order.

        Raises:
            AnabranchError: AB-914 damaged.
        """
        with self._explained("reading the privacy ledger"):
            return tuple(link.content for link in self._newer(after))

    @property
    def head(self) -> Link:
        """The last entry.

        Raises:
            AnabranchError: AB-914 there is none.
        """
        self.balance()
        if self._last is None:
            raise unreadable("there are no entries")
        return self._last

    def dry_run(self, lines: tuple[Line, ...], run: str = "") -> DryRun:
        """What a run with these lines would cost; nothing is changed."""
        return rules.dry_run(self.balance(), lines, run)

    def begin(self, wanted: Allotted) -> RunLedger:
        """Let a run start, or go on after a crash: its whole allotment counts from here on.

        Args:
            wanted: without ``secret``, which is filled in here.

        Raises:
            AnabranchError: AB-916 the population's budget does not hold it; AB-917 its own promise
                does not; AB-918 it goes on under another allotment.
        """
        secret = RunSecret(self._secret_path(wanted.run), self._faults)

        def rule(balance: Balance) -> Allotted | None:
            known = balance.runs.get(wanted.run)
            if known is None or known.closed is not None:
                rules.allot(balance, wanted)  # refused before a secret is made
            named = replace(wanted, secret=secret.obtain().fingerprint)
            return rules.allot(balance, named)

        self.decide("allot", rule)
        return RunLedger(self, wanted.run, secret)

    def decide(self, purpose: str, rule: Callable[[Balance], E | None]) -> E | None:
        """Ask ``rule`` under the write lock and append what it returns; durable on return.

        Raises:
            AnabranchError: whatever the rule refuses; AB-914 damaged; AB-6xx from the disk.
        """
        with self._writing(purpose):
            self._catch_up()
            if self._balance is None:
                raise unreadable(f"{self.path.name} has no entries")
            entry = rule(self._balance)
            if entry is not None:
                self._append(entry)
            return entry

    def participations(self, run: str) -> Participations:
        """Who took part in which rounds of a run, durably."""
        return Participations(self._connection, run, self._writing)

    def _secret_path(self, run: str) -> Path:
        return self.path.with_suffix(".secrets") / f"{run}.key"

    def _sweep(self, balance: Balance) -> None:
        """Erase what a crash left: secrets of runs that had ended, and half-written ones.

        Secrets are made and swept under the write lock, so nobody else's is half-written now.
        """
        for leftover in self.path.with_suffix(".secrets").glob(f"{TEMPORARY}*"):
            leftover.unlink(missing_ok=True)
        for run, state in balance.runs.items():
            if state.closed is not None and state.closed.final:
                RunSecret(self._secret_path(run), self._faults).erase()

    def _append(self, entry: Entry) -> None:
        sequence = 0 if self._last is None else self._last.sequence + 1
        previous = first_head(self.population) if self._last is None else self._last.digest
        link = append(entry, sequence, previous, self._clock())
        document = canonical(as_document(entry))
        self._connection.execute(_ADD, (sequence, link.at, document, previous, link.digest))
        self._advance(link)

    def _advance(self, link: Link) -> None:
        if self._balance is not None:
            self._balance = self._balance.after(link.entry)
        elif isinstance(link.entry, Opened):
            self._balance = Balance(link.entry)
        else:
            raise unreadable("it does not begin with the opening of the population")
        self._last = link

    def _catch_up(self) -> None:
        """Read and check what was appended since, also by other processes."""
        known = -1 if self._last is None else self._last.sequence
        for link in checked(self.population, self._newer(known), start=self._last):
            self._advance(link)

    def _newer(self, known: int) -> Iterator[Link]:
        for sequence, at, document, previous, digest in self._connection.execute(_NEWER, (known,)):
            try:
                entry = from_document(json.loads(document))
            except json.JSONDecodeError as error:
                raise unreadable(f"entry {sequence} is no JSON") from error
            yield Link(sequence, at, entry, previous, digest)

    @contextmanager
    def _writing(self, purpose: str) -> Iterator[None]:
        """One transaction with the write lock; after an error memory is as the file is."""
        before = (self._last, self._balance)
        with self._explained("writing to the privacy ledger"):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._faults.reach(f"ledger.{purpose}.begin")
                yield
                self._faults.reach(f"ledger.{purpose}.commit.before")
                self._connection.execute("COMMIT")
            except BaseException:
                self._last, self._balance = before
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            self._faults.reach(f"ledger.{purpose}.commit.after")

    @contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise database_problem(error, self.path, doing) from error
        except OSError as error:
            raise disk_problem(error, self.path, doing) from error
