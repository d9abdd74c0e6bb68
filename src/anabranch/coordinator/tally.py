"""What a run adds up over its rounds for its limits: who took part, how much, at what cost.

It is made from the columns of round records alone, so that a resumed run rebuilds it from its
store, and anybody can compute it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from anabranch.client.task import Fate
from anabranch.coordinator.store import Column
from anabranch.coordinator.store.records import Cell
from anabranch.fleet.timeline import TRACE_PREFIX

__all__ = ["Tally", "gini"]

_COUNTED = frozenset(fate.value for fate in Fate if fate.counts)
_EDGES = np.logspace(-8, 1, 4096)
"""Edges for battery shares: half a per cent apart, so that a median is as exact."""


@dataclass
class Tally:
    """Sums over training tasks.

    Attributes:
        clients: enrolled clients.
        asked: tasks with an outcome.
        merged: updates in the model, by client.
        work: sum over merged updates of the fraction of the planned local work.
        shares: battery shares of tasks, counted between edges.
        largest_share: the largest of them.
        caps: limits on the share, and how many tasks lay above each.
    """

    clients: int
    asked: int = 0
    merged: dict[str, int] = field(default_factory=dict)
    work: float = 0.0
    shares: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(_EDGES) + 1, np.int64))
    largest_share: float = 0.0
    caps: dict[float, int] = field(default_factory=dict)

    @staticmethod
    def of(
        clients: int, rounds: Iterable[Mapping[str, Column]], caps: Sequence[float] = ()
    ) -> Tally:
        """From the client columns of every round so far."""
        tally = Tally(clients, caps=dict.fromkeys(caps, 0))
        for columns in rounds:
            tally.add(columns)
        return tally

    def add(self, columns: Mapping[str, Column]) -> None:
        """One more round."""
        fates = columns.get("fate", ())
        names = columns.get("client", ())
        work = columns.get(TRACE_PREFIX + "work", [None] * len(fates))
        for name, fate, fraction in zip(names, fates, work, strict=True):
            if not fate:  # evaluated only
                continue
            self.asked += 1
            if fate in _COUNTED:
                self.merged[str(name)] = self.merged.get(str(name), 0) + 1
                self.work += 1.0 if fraction is None else _number(fraction)
        self._add_shares(
            [_number(s) for s in columns.get(TRACE_PREFIX + "share", ()) if s is not None]
        )

    def _add_shares(self, shares: Sequence[float]) -> None:
        if not shares:
            return
        found = np.asarray(shares, np.float64)
        np.add.at(self.shares, np.searchsorted(_EDGES, found), 1)
        self.largest_share = max(self.largest_share, float(found.max()))
        for cap in self.caps:
            self.caps[cap] += int((found > cap).sum())

    @property
    def updates(self) -> int:
        """Updates in the model."""
        return sum(self.merged.values())

    @property
    def participation(self) -> float | None:
        """Merged updates as a share of the tasks given out, late ones included."""
        return self.updates / self.asked if self.asked else None

    @property
    def completeness(self) -> float | None:
        """Mean fraction of the planned local work over merged updates."""
        return self.work / self.updates if self.updates else None

    @property
    def unevenness(self) -> float | None:
        """Gini coefficient of merged updates over all enrolled clients."""
        if not self.updates:
            return None
        counts = np.zeros(max(self.clients, len(self.merged)))
        counts[: len(self.merged)] = list(self.merged.values())
        return gini(counts)

    @property
    def tasks_with_battery(self) -> int:
        """Tasks whose share of a battery is known."""
        return int(self.shares.sum())

    @property
    def median_share(self) -> float | None:
        """Median share of a full battery that a task cost, to half a per cent of itself."""
        if not self.tasks_with_battery:
            return None
        place = int(np.searchsorted(np.cumsum(self.shares), (self.tasks_with_battery + 1) // 2))
        low, high = max(place - 1, 0), min(place, len(_EDGES) - 1)
        return float(np.sqrt(_EDGES[low] * _EDGES[high]))

    def above(self, cap: float) -> float | None:
        """Share of the tasks that cost more than ``cap`` of a battery."""
        return self.caps[cap] / self.tasks_with_battery if self.tasks_with_battery else None


def gini(counts: NDArray[np.float64]) -> float:
    """Gini coefficient: 0 when all are equal, towards 1 when one has everything.

    >>> gini(np.array([1.0, 1.0, 1.0])), round(gini(np.array([0.0, 0.0, 3.0])), 6)
    (0.0, 0.666667)
    """
    ordered = np.sort(counts)
    total = float(ordered.sum())
    if not total:
        return 0.0
    ranks = np.arange(1, len(ordered) + 1)
    value = (2.0 * float((ranks * ordered).sum()) / total - (len(ordered) + 1)) / len(ordered)
    return max(0.0, value)


def _number(cell: Cell) -> float:
    return float(cell) if isinstance(cell, (int, float)) else 0.0
