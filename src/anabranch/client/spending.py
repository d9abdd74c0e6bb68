"""The client's own count of its privacy: over all coordinators, whatever their ledgers say.

A coordinator keeps the ledger of a population, but nobody checks a coordinator except its clients.
So a client remembers, durably and in one place for all coordinators that it serves:

- the highest signed head of each ledger; a lower one, or one that does not continue it, is refused;
- what each run was allotted, counted in full from the first task on; a total beyond the client's
  own cap is refused before anything is computed;
- what it was asked for, by purpose and round: more than the plan allows is refused at this end too,
  and so is a second task for the same release, which would be made of fresh noise.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from anabranch.disk import Faults, disk_problem, explained, make_directory, no_faults
from anabranch.errors import AnabranchError
from anabranch.privacy.budget import ParticipationLimit
from anabranch.privacy.events import GaussianEvent, Relation
from anabranch.privacy.ledger import (
    Allotted,
    Purpose,
    as_document,
    canonical,
    charges_of,
    epsilon_of,
    from_document,
)
from anabranch.privacy.ledger.heads import Head

__all__ = ["ClientSpending", "SpendingCap"]

_PATIENCE_MS: Final = 10_000
_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS heads (coordinator TEXT, population TEXT, sequence INTEGER,"
    " digest TEXT, PRIMARY KEY (coordinator, population, sequence))",
    "CREATE TABLE IF NOT EXISTS runs (coordinator TEXT, run TEXT, allotted TEXT,"
    " PRIMARY KEY (coordinator, run))",
    # Written by earlier versions, which knew training only and not under which task.
    "CREATE TABLE IF NOT EXISTS rounds (coordinator TEXT, run TEXT, round INTEGER,"
    " PRIMARY KEY (coordinator, run, round))",
    "CREATE TABLE IF NOT EXISTS asked (coordinator TEXT, run TEXT, purpose TEXT, round INTEGER,"
    " task TEXT, PRIMARY KEY (coordinator, run, purpose, round))",
    "INSERT OR IGNORE INTO asked SELECT coordinator, run, 'model', round, '' FROM rounds",
    "DELETE FROM rounds",
)
_LAST_HEAD: Final = (
    "SELECT sequence, digest FROM heads WHERE coordinator = ? AND population = ?"
    " ORDER BY sequence DESC LIMIT 1"
)


@dataclass(frozen=True)
class SpendingCap:
    """What a client gives away at most, over all runs of all coordinators.

    Attributes:
        epsilon: largest total.
        delta: of that total.
    """

    epsilon: float
    delta: float


class ClientSpending:
    """The client's own book, one SQLite file.

    Args:
        path: the file.
        faults: told about every step that touches the disk (tests).

    Raises:
        AnabranchError: AB-602, AB-603, AB-613 from the disk.
    """

    def __init__(self, path: Path, faults: Faults = no_faults) -> None:
        self._path = path
        self._faults = faults
        with explained(path, "opening the client's privacy count"):
            make_directory(path.parent, "spending", faults)
        with self._explained():
            self._connection = sqlite3.connect(path, isolation_level=None)
            for pragma in (f"busy_timeout={_PATIENCE_MS}", "synchronous=FULL"):
                self._connection.execute(f"PRAGMA {pragma}")
        with self._writing("open"):
            for statement in _TABLES:
                self._connection.execute(statement)

    def __enter__(self) -> ClientSpending:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what was written is durable already."""
        self._connection.close()

    def known_head(self, coordinator: str, population: str) -> tuple[int, str] | None:
        """Sequence and digest of the highest head seen; tell it to the coordinator, which then
        sends the content digests from there on."""
        row = self._connection.execute(_LAST_HEAD, (coordinator, population)).fetchone()
        return None if row is None else (int(row[0]), str(row[1]))

    def see_head(self, coordinator: str, head: Head, contents: Sequence[str] = ()) -> None:
        """Accept a head and remember it. The caller has verified its signature.

        Args:
            coordinator: fingerprint of its key.
            head: of a population's ledger.
            contents: content digests of the entries after the highest head seen, up to this one.

        Raises:
            AnabranchError: AB-924 it is lower than one seen before, or does not continue it.
        """
        with self._writing("head"):
            known = self.known_head(coordinator, head.population)
            if known is not None and not head.continues(*known, contents):
                raise _turned_back(head, known)
            row = (coordinator, head.population, head.sequence, head.digest)
            self._connection.execute("INSERT OR IGNORE INTO heads VALUES (?, ?, ?, ?)", row)

    def runs(self) -> tuple[tuple[str, str], ...]:
        """Coordinator and run of everything that is counted."""
        return tuple(self._allotments())

    def counts(self, coordinator: str, run: str) -> bool:
        """Whether a run is in the count already."""
        return (coordinator, run) in self._allotments()

    def agree(self, coordinator: str, allotted: Allotted, cap: SpendingCap | None) -> float:
        """Count a run in full, once, if the client's cap holds it; returns the total after it.

        Raises:
            AnabranchError: AB-929 the total would exceed the cap: nothing was ever computed for the
                run; AB-918 its allotment changed.
        """
        text = canonical(as_document(allotted))
        with self._writing("agree"):
            known = self._allotments().get((coordinator, allotted.run))
            if known is not None and known.lines != allotted.lines:
                raise _changed(allotted.run)
            row = (coordinator, allotted.run, text)
            self._connection.execute("INSERT OR IGNORE INTO runs VALUES (?, ?, ?)", row)
            if cap is None:
                return 0.0
            total = self.total(cap.delta)
            if total > cap.epsilon * (1 + 1e-9) and known is None:
                raise _refused(
                    f"with run {allotted.run.partition('/')[0]!r} (contract "
                    f"{allotted.run.partition('/')[2][:16] or 'not named'}) this client would have "
                    f"given away epsilon "
                    f"{total:.4g} at delta {cap.delta:g}, more than its own cap of {cap.epsilon:g}"
                )
            return total

    def take_part(
        self,
        coordinator: str,
        run: str,
        round_: int,
        limit: ParticipationLimit | None,
        *,
        task: str = "",
        purpose: Purpose = "model",
    ) -> None:
        """Count one release, before anything is computed. May be repeated for the same task.

        Args:
            coordinator: fingerprint of its key.
            run: id of the run.
            round_: of the release.
            limit: most releases of this purpose, and how far apart.
            task: names the piece of work; empty where several attempts make one release, as with
                secure sums, of which a client opens one.
            purpose: what is released.

        Raises:
            AnabranchError: AB-923 the plan does not allow this round; AB-979 the release was asked
                for under another task.
        """
        with self._writing("round"):
            known = self._asked(coordinator, run, purpose)
            if round_ in known:
                if known[round_] != task:
                    raise _asked_twice(run, round_, purpose)
                return
            rounds = tuple(known)
            if limit is not None and not limit.allows(rounds, round_):
                raise AnabranchError(
                    "AB-923",
                    f"run {run!r} asks this client for its {purpose} of round {round_}, but it "
                    f"took part in {len(rounds)} rounds and the plan allows {limit.most}, "
                    f"{limit.separation} apart.",
                    fix="ask who runs the coordinator: its own count should have prevented this.",
                    kept="Nothing was computed and nothing was sent.",
                )
            row = (coordinator, run, purpose, round_, task)
            self._connection.execute("INSERT INTO asked VALUES (?, ?, ?, ?, ?)", row)

    def rounds(self, coordinator: str, run: str, purpose: Purpose = "model") -> tuple[int, ...]:
        """The rounds of a run for which this client released something of a purpose."""
        return tuple(self._asked(coordinator, run, purpose))

    def given(self) -> int:
        """For how many rounds of private runs this client trained, over all coordinators.

        Not of one of them alone: a coordinator may get a new key, and its clients must not lose
        count by that.
        """
        query = (
            "SELECT COUNT(*) FROM (SELECT DISTINCT coordinator,"
            " substr(run, 1, instr(run || '/', '/') - 1), round FROM asked"
            " WHERE purpose = 'model')"
        )
        return int(self._connection.execute(query).fetchone()[0])

    def _asked(self, coordinator: str, run: str, purpose: Purpose) -> dict[int, str]:
        """Tasks by round, in order."""
        query = (
            "SELECT round, task FROM asked WHERE coordinator = ? AND run = ? AND purpose = ?"
            " ORDER BY round"
        )
        rows = self._connection.execute(query, (coordinator, run, purpose))
        return {int(round_): str(task) for round_, task in rows}

    def total(self, delta: float) -> float:
        """Epsilon over all runs of all coordinators.

        Runs under one relation are composed. Different relations cannot be, so their epsilons are
        added, each at its part of delta.

        Raises:
            AnabranchError: AB-901 dp-accounting is not installed; AB-902 bad delta.
        """
        groups: dict[Relation, list[GaussianEvent]] = {}
        for allotted in self._allotments().values():
            for line in allotted.lines:
                for event in charges_of(line.charges, line.participations):
                    groups.setdefault(event.relation, []).append(event)
        return sum(epsilon_of(events, delta / len(groups)) for events in groups.values())

    def _allotments(self) -> dict[tuple[str, str], Allotted]:
        found = {}
        for coordinator, run, text in self._connection.execute("SELECT * FROM runs"):
            entry = from_document(json.loads(text))
            if isinstance(entry, Allotted):
                found[(coordinator, run)] = entry
        return found

    @contextmanager
    def _writing(self, purpose: str) -> Iterator[None]:
        with self._explained():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._faults.reach(f"spending.{purpose}.commit.before")
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            self._faults.reach(f"spending.{purpose}.commit.after")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        doing = "keeping the client's privacy count"
        try:
            yield
        except sqlite3.Error as error:
            raise AnabranchError(
                "AB-613",
                f"{doing} failed: {self._path} reported an error ({error}).",
                fix="check the disk, then join again.",
                kept="Nothing was computed and nothing was sent.",
            ) from error
        except OSError as error:
            raise disk_problem(error, self._path, doing) from error


def _turned_back(head: Head, known: tuple[int, str]) -> AnabranchError:
    how = "is lower than" if head.sequence < known[0] else "does not continue"
    return AnabranchError(
        "AB-924",
        f"the ledger of {head.population!r} shows entry {head.sequence}, which {how} entry "
        f"{known[0]} that this client has seen: it was turned back or forked.",
        fix="ask who runs the coordinator to restore the newest ledger; an old one forgets what "
        "was spent.",
        kept="Nothing was computed and nothing was sent.",
    )


def _asked_twice(run: str, round_: int, purpose: str) -> AnabranchError:
    return AnabranchError(
        "AB-979",
        f"run {run!r} asked this client for its {purpose} of round {round_} before, under another "
        "task: a second answer would be one more release, which nobody counts.",
        fix="ask who runs the coordinator: one round has one task for each client.",
        kept="Nothing was computed and nothing was sent.",
    )


def _changed(run: str) -> AnabranchError:
    return AnabranchError(
        "AB-918",
        f"run {run.partition('/')[0]!r} has another budget here than when this client began with "
        "it: its plan, or this site's data, changed.",
        fix="put the data back as they were at the run's start, or take part in a new run.",
        kept="Nothing was computed and nothing was sent.",
    )


def _refused(why: str) -> AnabranchError:
    return AnabranchError(
        "AB-929",
        f"{why}.",
        fix="nothing, if that is the site's will; else raise the cap in the site's own policy.",
        kept="Nothing was computed and nothing was sent.",
    )
