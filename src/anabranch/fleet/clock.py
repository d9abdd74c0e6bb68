"""A discrete-event agenda in columns: what happens when, in an order that nothing else decides.

Events that fall on the same instant are taken in the order of their kind, then of their row, so a
simulation does not depend on how often or how patiently it is asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from anabranch.fleet.view import Codes, Column

__all__ = ["Agenda", "Due"]

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Due:
    """Events in the order in which they happen.

    Attributes:
        times: seconds of the clock, ascending.
        kinds: the maker's code of each event.
        rows: the maker's number of what it happens to.
    """

    times: Column
    kinds: Codes
    rows: Rows

    def __len__(self) -> int:
        return len(self.times)


def _sorted(times: Column, kinds: Codes, rows: Rows) -> Due:
    order = np.lexsort((rows, kinds, times))
    return Due(times[order], kinds[order], rows[order])


@dataclass
class Agenda:
    """Future events.

    New events wait in a list and are merged into one sorted table when somebody looks; a table of
    ``n`` events costs one sort however many of them are taken one by one.

    >>> agenda = Agenda()
    >>> agenda.add(np.array([5.0, 2.0]), 0, np.array([7, 8]))
    >>> agenda.next_time()
    2.0
    >>> agenda.take(2.0).rows.tolist(), len(agenda)
    ([8], 1)
    """

    _table: Due = field(
        default_factory=lambda: Due(np.empty(0), np.empty(0, np.int16), np.empty(0, np.int64))
    )
    _first: int = 0
    _waiting: list[tuple[Column, Codes, Rows]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._table) - self._first + sum(len(times) for times, _, _ in self._waiting)

    def add(self, times: Column, kind: int, rows: Rows) -> None:
        """Plan one event of ``kind`` for each row; infinite times never happen and are left out."""
        finite = np.isfinite(times)
        kinds = np.full(int(finite.sum()), kind, np.int16)
        if len(kinds):
            self._waiting.append((times[finite], kinds, rows[finite].astype(np.int64)))

    def next_time(self) -> float | None:
        """When the next event happens; None when there is none."""
        self._merge()
        if self._first >= len(self._table):
            return None
        return float(self._table.times[self._first])

    def take(self, until: float) -> Due:
        """Every event at or before ``until``, in order; they are gone from the agenda."""
        self._merge()
        end = int(np.searchsorted(self._table.times, until, side="right"))
        first, self._first = self._first, max(end, self._first)
        part = slice(first, self._first)
        return Due(self._table.times[part], self._table.kinds[part], self._table.rows[part])

    def drop(self, rows: Rows) -> None:
        """Forget every event of these rows."""
        self._merge()
        rest = slice(self._first, None)
        keep = ~np.isin(self._table.rows[rest], rows)
        table = self._table
        self._table = Due(table.times[rest][keep], table.kinds[rest][keep], table.rows[rest][keep])
        self._first = 0

    def _merge(self) -> None:
        if not self._waiting:
            return
        rest = slice(self._first, None)
        parts = [
            (self._table.times[rest], self._table.kinds[rest], self._table.rows[rest]),
            *self._waiting,
        ]
        self._waiting = []
        self._first = 0
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        self._table = _sorted(columns[0], columns[1].astype(np.int16), columns[2].astype(np.int64))
