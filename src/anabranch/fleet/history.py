"""What clients showed in earlier rounds, as columns; part of a run's durable state.

A history is a value: `FleetHistory.after` makes the next one from the outcomes of a round. It
keeps, for each client, how often it was asked and merged, how much longer its training and its
transfers took than the model of its device said, how much more energy they cost, its last loss
and its upload rate. How far predictions were off is kept as a histogram for each device class and
experience of the client (none, one, two or more earlier reports).

Factors are moving averages of logarithms, ``f <- f + 0.3 (log(observed / modelled) - f)``, so that
a device that is twice as slow as its class is predicted to stay so, at any amount of work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from anabranch.fleet.shown import Shown
from anabranch.fleet.view import Codes, Column

__all__ = ["BINS", "EDGES", "SMOOTHING", "FleetHistory", "Shown"]

Counts: TypeAlias = NDArray[np.int32]
Factors: TypeAlias = NDArray[np.float32]
Residuals: TypeAlias = NDArray[np.float32]

SMOOTHING = 0.3
"""Weight of the newest observation in the moving averages."""
BINS = 64
"""Bins of a histogram of residuals."""
EDGES = np.linspace(-3.2, 3.2, BINS + 1)
"""Edges of the bins: log(observed / predicted); what lies outside counts in the outermost bin."""
KEPT = 0.98
"""What a histogram keeps of its counts at each update, so that old errors are forgotten."""
_EXPERIENCE = 3  # no earlier report, one, two or more

_PER_CLIENT = (
    "asked",
    "merged",
    "failed",
    "cut",
    "reports",
    "last_asked",
    "last_merged",
    "compute",
    "transfer",
    "energy",
    "loss",
    "rate",
)


@dataclass(frozen=True, slots=True)
class FleetHistory:
    """Columns over clients, and residuals over device classes. None is ever written.

    Attributes:
        round: number of the last round that was added.
        asked: tasks whose fate is known.
        merged: updates in the model.
        failed: tasks in a row, up to the last, that brought no answer.
        cut: tasks of ``asked`` that were given up before their time was over, since the round had
            all the updates that it wanted: they say nothing about the client.
        reports: answers with a time, which the factors are made of.
        last_asked, last_merged: round of the last one, 0 before the first.
        compute, transfer: moving average of log(observed / modelled) seconds; NaN before the
            first report.
        energy: the same of joules.
        loss: the last visible training loss; NaN before.
        rate: moving average of log(bytes a second) of uploads; NaN before.
        time_residuals, energy_residuals: counts of log(observed / predicted), shape
            (classes, 3, BINS), by device class and experience of the client.
    """

    round: int
    asked: Counts
    merged: Counts
    failed: Counts
    cut: Counts
    reports: Counts
    last_asked: Counts
    last_merged: Counts
    compute: Factors
    transfer: Factors
    energy: Factors
    loss: Factors
    rate: Factors
    time_residuals: Residuals
    energy_residuals: Residuals

    def __len__(self) -> int:
        return len(self.asked)

    @staticmethod
    def empty(clients: int, classes: int = 1) -> FleetHistory:
        """Before the first round."""

        def count() -> Counts:
            return np.zeros(clients, np.int32)

        def unknown() -> Factors:
            return np.full(clients, np.nan, np.float32)

        bins = np.zeros((classes, _EXPERIENCE, BINS), np.float32)
        return FleetHistory(
            round=0,
            asked=count(),
            merged=count(),
            failed=count(),
            cut=count(),
            reports=count(),
            last_asked=count(),
            last_merged=count(),
            compute=unknown(),
            transfer=unknown(),
            energy=unknown(),
            loss=unknown(),
            rate=unknown(),
            time_residuals=bins,
            energy_residuals=bins.copy(),
        )

    def for_clients(self, clients: int) -> FleetHistory:
        """The same history for a fleet that has grown; nothing is known of the new ones."""
        if clients <= len(self):
            return self
        shape = np.array([self.round, clients], np.int64)
        return FleetHistory.from_arrays({**self.arrays(), "shape": shape})

    def asked_now(self, round_: int, clients: Sequence[int] | NDArray[np.int64]) -> FleetHistory:
        """The history once ``clients`` were asked in ``round_``; their fates are added later."""
        last = self.last_asked.copy()
        last[np.asarray(clients, np.int64)] = round_
        return replace(self, round=max(self.round, round_), last_asked=last)

    def after(self, round_: int, shown: Shown) -> FleetHistory:
        """The history once the fates of a round are known. Pure.

        A client that stands in ``shown`` several times is added in that order.

        >>> history = FleetHistory.empty(3).after(1, Shown.of([1], [True], [2.0]))
        >>> history.asked.tolist(), history.merged.tolist(), round(float(history.compute[1]), 4)
        ([0, 1, 0], [0, 1, 0], 0.6931)
        """
        history = self._wide_enough(shown)
        for part in _occurrences(shown):
            history = history._added(round_, part)
        return replace(history, round=max(self.round, round_))

    def reliability(self, prior: float = 0.9, weight: float = 5.0) -> Column:
        """Probability that a client's task is merged: its own share, pulled towards ``prior``.

        Tasks that were cut off because the round had enough do not count.

        >>> shown = Shown.of([0, 1], [True, False], cut=[False, True])
        >>> FleetHistory.empty(2).after(1, shown).reliability().round(3).tolist()
        [0.931, 0.917]

        Args:
            prior: the share of all clients; of the fleet once it has shown one.
            weight: tasks that the prior counts as.
        """
        asked = self.asked - self.cut
        share = (float(self.merged.sum()) + prior * weight) / (int(asked.sum()) + weight)
        own: Column = (self.merged + share * weight) / (asked + weight)
        return own

    @property
    def first(self) -> NDArray[np.bool_]:
        """Clients that have not answered yet: they hold nothing of an earlier task."""
        return np.asarray(self.reports == 0)

    def _wide_enough(self, shown: Shown) -> FleetHistory:
        """With residuals for every device class that occurs."""
        most = int(shown.device.max(initial=0)) + 1
        missing = most - len(self.time_residuals)
        if missing <= 0:
            return self
        more = np.zeros((missing, _EXPERIENCE, BINS), np.float32)
        return replace(
            self,
            time_residuals=np.concatenate([self.time_residuals, more]),
            energy_residuals=np.concatenate([self.energy_residuals, more]),
        )

    def _added(self, round_: int, shown: Shown) -> FleetHistory:
        """One entry for each client at most."""
        at, merged, answered = shown.clients, shown.merged, shown.answered
        columns = {name: getattr(self, name).copy() for name in _PER_CLIENT}
        columns["asked"][at] += 1
        columns["merged"][at] += merged
        columns["cut"][at] += shown.cut
        failed = np.where(answered, 0, columns["failed"][at] + 1)
        columns["failed"][at] = np.where(shown.cut, columns["failed"][at], failed)
        columns["last_asked"][at] = np.maximum(columns["last_asked"][at], round_)
        columns["last_merged"][at[merged]] = round_
        seen = np.isfinite(shown.loss)
        columns["loss"][at[seen]] = shown.loss[seen]
        times = self._times(shown, columns)
        joules = self._joules(shown, columns)
        self._rates(shown, columns)
        return replace(self, time_residuals=times, energy_residuals=joules, **columns)

    def _times(self, shown: Shown, columns: dict[str, NDArray[np.float32]]) -> Residuals:
        """Move the factors of time; returns the residuals."""
        at = shown.clients
        compute = np.nan_to_num(columns["compute"][at].astype(np.float64))
        transfer = np.nan_to_num(columns["transfer"][at].astype(np.float64))
        training, moving = shown.modelled_training, shown.modelled_transfer
        predicted = training * np.exp(compute) + moving * np.exp(transfer)
        with np.errstate(divide="ignore", invalid="ignore"):
            error = np.log(shown.seconds / predicted)
            known = np.isfinite(error)
            # Who did not answer needed at least the time that it was waited for: that speaks
            # only where it is more than was predicted.
            known &= shown.answered | (error > 0)
            split = known & shown.answered & np.isfinite(shown.training_seconds)
            own = np.log(shown.training_seconds / training)
            rest = np.log((shown.seconds - shown.training_seconds) / moving)
        both = known & ~split
        for name, before, observed in (("compute", compute, own), ("transfer", transfer, rest)):
            apart = split & np.isfinite(observed)
            new = np.where(apart, observed, before + error)
            moved = both | apart
            _average(columns[name], at[moved], new[moved])
        experience = np.minimum(columns["reports"][at], _EXPERIENCE - 1)
        columns["reports"][at[known & shown.answered]] += 1
        where = known & shown.answered
        return _counted(self.time_residuals, shown.device[where], experience[where], error[where])

    def _joules(self, shown: Shown, columns: dict[str, NDArray[np.float32]]) -> Residuals:
        """Move the factors of energy; returns the residuals."""
        at = shown.clients
        before = columns["energy"][at].astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            observed = np.log(shown.joules / shown.modelled_joules)
        known = np.isfinite(observed)
        error = observed - np.nan_to_num(before)
        _average(columns["energy"], at[known], observed[known])
        experience = np.where(np.isnan(before), 0, np.clip(self.reports[at], 1, 2))
        return _counted(self.energy_residuals, shown.device[known], experience[known], error[known])

    @staticmethod
    def _rates(shown: Shown, columns: dict[str, NDArray[np.float32]]) -> None:
        with np.errstate(divide="ignore", invalid="ignore"):
            rate = np.log(shown.bytes_up / (shown.seconds - shown.training_seconds))
        known = np.isfinite(rate)
        _average(columns["rate"], shown.clients[known], rate[known])

    def arrays(self) -> dict[str, np.ndarray]:
        """For the store; the inverse of `from_arrays`. Clients never asked take no room."""
        touched = np.flatnonzero((self.asked > 0) | (self.last_asked > 0))
        arrays: dict[str, np.ndarray] = {
            "shape": np.array([self.round, len(self)], np.int64),
            "clients": touched.astype(np.int64),
            "time_residuals": self.time_residuals,
            "energy_residuals": self.energy_residuals,
        }
        return arrays | {name: getattr(self, name)[touched] for name in _PER_CLIENT}

    @staticmethod
    def from_arrays(arrays: Mapping[str, np.ndarray]) -> FleetHistory:
        """The history that `arrays` described."""
        round_, clients = (int(number) for number in arrays["shape"])
        history = FleetHistory.empty(clients)
        for name in _PER_CLIENT:
            if name in arrays:  # a run of an older version did not count everything
                getattr(history, name)[arrays["clients"]] = arrays[name]
        residuals = {name: arrays[name] for name in ("time_residuals", "energy_residuals")}
        return replace(history, round=round_, **residuals)


def _occurrences(shown: Shown) -> list[Shown]:
    """Parts in which every client stands at most once: first entries, second entries, …"""
    if len(np.unique(shown.clients)) == len(shown.clients):
        return [shown]
    order = np.argsort(shown.clients, kind="stable")
    same = shown.clients[order]
    first = np.r_[0, np.flatnonzero(np.diff(same)) + 1]
    number = np.arange(len(same)) - np.repeat(first, np.diff(np.r_[first, len(same)]))
    nth = np.empty_like(number)
    nth[order] = number
    return [shown.rows(np.flatnonzero(nth == n)) for n in range(int(nth.max()) + 1)]


def _average(column: NDArray[np.float32], at: NDArray[np.int64], observed: Column) -> None:
    """Move the moving averages of ``at`` towards what was observed."""
    before = column[at].astype(np.float64)
    column[at] = np.where(np.isnan(before), observed, before + SMOOTHING * (observed - before))


def _counted(
    residuals: Residuals, device: Codes, experience: NDArray[np.integer], error: Column
) -> Residuals:
    """The histograms with more errors counted and old ones faded."""
    if not len(error):
        return residuals
    bins = np.clip(np.searchsorted(EDGES, error, "right") - 1, 0, BINS - 1)
    after = residuals * np.float32(KEPT)
    np.add.at(after, (device.astype(np.int64), experience.astype(np.int64), bins), 1)
    return after
