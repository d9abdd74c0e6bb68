"""Who takes part in which rounds of a private run: reserved when asked, checked when merged.

A limit on participations, and a separation between them, is what some guarantees stand on; so it
is kept durably, and a crash cannot make anybody come once more. A client that was asked counts as
having taken part until its round ended without its update.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager

from anabranch.errors import AnabranchError
from anabranch.privacy.budget import ParticipationLimit

__all__ = ["Participations"]

_READ = "SELECT client, round FROM participations WHERE run = ? ORDER BY round"
_ONE = "SELECT round FROM participations WHERE run = ? AND client = ? ORDER BY round"
_ADD = "INSERT OR IGNORE INTO participations (run, client, round) VALUES (?, ?, ?)"
_DROP = "DELETE FROM participations WHERE run = ? AND client = ? AND round = ?"


class Participations:
    """The participations of one run.

    Args:
        connection: of the population's ledger.
        run: id of the run.
        writing: opens a transaction for a purpose.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        run: str,
        writing: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        self._connection = connection
        self._run = run
        self._writing = writing

    def rounds(self) -> Mapping[str, tuple[int, ...]]:
        """The rounds of every client that takes or took part, ascending."""
        found: dict[str, list[int]] = {}
        for client, round_ in self._connection.execute(_READ, (self._run,)):
            found.setdefault(client, []).append(round_)
        return {client: tuple(rounds) for client, rounds in found.items()}

    def _of(self, clients: Iterable[str]) -> Mapping[str, tuple[int, ...]]:
        """The rounds of some clients: a cohort is small beside a fleet."""
        rows = ((c, self._connection.execute(_ONE, (self._run, c))) for c in clients)
        return {client: tuple(round_ for (round_,) in found) for client, found in rows}

    def eligible(
        self, clients: Iterable[str], round_: int, limit: ParticipationLimit
    ) -> tuple[str, ...]:
        """Those of ``clients`` that may still be asked in ``round_``."""
        known = self.rounds()
        return tuple(c for c in clients if limit.allows(known.get(c, ()), round_))

    def reserve(self, clients: Collection[str], round_: int, limit: ParticipationLimit) -> None:
        """Count ``clients`` as taking part, all or none; durable on return. May be repeated.

        Raises:
            AnabranchError: AB-923 somebody would take part too often or too soon.
        """
        with self._writing("cohort"):
            known = self._of(clients)
            for client in clients:
                before = known.get(client, ())
                if round_ not in before and not limit.allows(before, round_):
                    raise _too_often(client, round_, limit)
            rows = [(self._run, client, round_) for client in clients]
            self._connection.executemany(_ADD, rows)

    def forgo(self, clients: Collection[str], round_: int) -> None:
        """Give participations back, of clients whose update is in no release. May be repeated."""
        with self._writing("cohort"):
            rows = [(self._run, client, round_) for client in clients]
            self._connection.executemany(_DROP, rows)

    def require(self, clients: Collection[str], round_: int, limit: ParticipationLimit) -> None:
        """Check, where updates are merged, that each was reserved and keeps the limit.

        Raises:
            AnabranchError: AB-923 somebody was not, or does not.
        """
        known = self._of(clients)
        for client in clients:
            rounds = known.get(client, ())
            others = tuple(r for r in rounds if r != round_)
            if round_ not in rounds or not limit.allows(others, round_):
                raise _too_often(client, round_, limit)


def _too_often(client: str, round_: int, limit: ParticipationLimit) -> AnabranchError:
    return AnabranchError(
        "AB-923",
        f"client {client!r} may not take part in round {round_}: at most {limit.most} rounds, at "
        f"least {limit.separation} apart, or it was not reserved.",
        fix="ask other clients, allow more participations in the plan, or plan fewer rounds.",
        kept="Nothing was released.",
    )
