"""How long a task will take, what it will cost, and when enough clients will have answered.

A client's time is the model of its device times its own factor (`FleetHistory`), or its class's
before it has reported. How far that is off is read from the residuals that were seen: quantiles of
log(observed / predicted), by device class and by how often the client has reported, with a
lognormal prior that counts as `PRIOR_COUNT` observations.

The deadline of a round is the first time at which enough answers are there with the wished
probability.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from anabranch.fleet.cost import TaskCost, modelled
from anabranch.fleet.history import BINS, EDGES, FleetHistory, Residuals
from anabranch.fleet.odds import WISHED, at_least
from anabranch.fleet.view import Codes, Column, FleetView

__all__ = [
    "Prediction",
    "deadline",
    "predict",
]

Cumulative: TypeAlias = NDArray[np.float64]

PRIOR_COUNT = 20.0
"""Observations that the prior of a residual counts as."""
PRIOR_SIGMA = (0.7, 0.5, 0.4)
"""Standard deviation of log(observed / predicted) before anything was seen, by the reports that a
client has given: none, one, two or more. Assumed; the residuals of a run replace it."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Columns over clients for the whole task, and how far they may be off.

    Attributes:
        training, transfer: median seconds.
        compute_joules, radio_joules: median energy.
        known: whether anything is known of the client's time.
        reliability: probability that its task brings an update, if it is given time enough.
        group: row of the tables below.
        time_table, energy_table: cumulative shares of log(observed / predicted) at
            `anabranch.fleet.history.EDGES`, shape (groups, BINS + 1).
        energy_group: the same for energy.
    """

    training: Column
    transfer: Column
    compute_joules: Column
    radio_joules: Column
    known: NDArray[np.bool_]
    reliability: Column
    group: NDArray[np.int64]
    energy_group: NDArray[np.int64]
    time_table: Cumulative
    energy_table: Cumulative

    def seconds(self, work: float | Column = 1.0, quantile: float = 0.5) -> Column:
        """Seconds of ``work`` (a fraction of the task) that are kept with ``quantile``."""
        factor = np.exp(_quantiles(self.time_table, quantile))[self.group]
        return np.asarray((self.training * work + self.transfer) * factor)

    def joules(self, work: float | Column = 1.0, quantile: float = 0.5) -> Column:
        """Joules of ``work`` that are kept with ``quantile``."""
        factor = np.exp(_quantiles(self.energy_table, quantile))[self.energy_group]
        return np.asarray((self.compute_joules * work + self.radio_joules) * factor)

    def work_within(self, seconds: float, quantile: float) -> Column:
        """Largest fraction of the task that keeps to ``seconds``; at most 1, 0 or less for none."""
        factor = np.exp(_quantiles(self.time_table, quantile))[self.group]
        return _room(seconds / factor - self.transfer, self.training)

    def work_of_energy(self, joules: Column, quantile: float) -> Column:
        """Largest fraction of the task that costs at most ``joules`` of each client."""
        factor = np.exp(_quantiles(self.energy_table, quantile))[self.energy_group]
        return _room(joules / factor - self.radio_joules, self.compute_joules)

    def answered_by(
        self, seconds: float, clients: NDArray[np.int64], work: float | Column = 1.0
    ) -> Column:
        """Probability that each of ``clients`` has answered after ``seconds``.

        Args:
            seconds: after it was asked.
            clients: numbers of clients.
            work: fraction of the task that each of them does.
        """
        median = self.training[clients] * work + self.transfer[clients]
        with np.errstate(divide="ignore"):
            off = math.log(seconds) - np.log(median) if seconds > 0 else -np.inf - 0 * median
        shares = _shares(self.time_table, self.group[clients], off)
        return np.asarray(self.reliability[clients] * shares)


def predict(view: FleetView, history: FleetHistory, cost: TaskCost) -> Prediction:
    """What a task of this cost will take, from the devices' models and what clients showed.

    Args:
        view: columns of devices.
        history: of the same clients.
        cost: of the whole task.
    """
    model = modelled(view, cost, history.first)
    compute = _factor(history.compute, view.device)
    transfer = _factor(history.transfer, view.device)
    energy = np.exp(_factor(history.energy, view.device))
    classes = max(len(view.classes), len(history.time_residuals))
    seen = np.minimum(history.reports, 2).astype(np.int64)
    measured = np.where(np.isnan(history.energy), 0, np.maximum(seen, 1))
    device = view.device.astype(np.int64)
    return Prediction(
        training=model.training * np.exp(compute),
        transfer=model.transfer * np.exp(transfer),
        compute_joules=model.compute_joules * energy,
        radio_joules=model.radio_joules * energy,
        known=model.known | _class_known(history, view.device),
        reliability=history.reliability(),
        group=device * 3 + seen,
        energy_group=device * 3 + measured,
        time_table=_table(history.time_residuals, classes),
        energy_table=_table(history.energy_residuals, classes),
    )


def _factor(own: NDArray[np.float32], device: Codes) -> Column:
    """Each client's log factor; before its first report the mean of its class, shrunk to zero."""
    reported = ~np.isnan(own)
    size = int(device.max(initial=0)) + 1
    code = device[reported].astype(np.int64)
    sums = np.bincount(code, weights=own[reported].astype(np.float64), minlength=size)
    means = sums / (np.bincount(code, minlength=size) + 1.0)
    return np.where(reported, own, means[device])


def _class_known(history: FleetHistory, device: Codes) -> NDArray[np.bool_]:
    size = int(device.max(initial=0)) + 1
    seen = np.bincount(device.astype(np.int64), weights=history.reports, minlength=size)
    return np.asarray(seen[device] > 0)


def _room(left: Column, full: Column) -> Column:
    """``left / full`` up to 1; where the work costs nothing, 1 or 0 by whether there is room."""
    with np.errstate(divide="ignore", invalid="ignore"):
        share = left / full
    return np.minimum(np.where(full > 0, share, np.where(left >= 0, 1.0, 0.0)), 1.0)


@cache
def _prior() -> Cumulative:
    """Cumulative normal shares at the edges, one row for each experience; ends at 0 and 1."""
    rows = [
        [0.5 * (1 + math.erf(edge / (sigma * math.sqrt(2)))) for edge in EDGES]
        for sigma in PRIOR_SIGMA
    ]
    table = np.array(rows)
    table[:, 0], table[:, -1] = 0.0, 1.0
    table.flags.writeable = False
    return table


def _table(residuals: Residuals, classes: int) -> Cumulative:
    """Cumulative shares of every (class, experience), shape (classes * 3, BINS + 1).

    A class borrows `PRIOR_COUNT` observations from the fleet, and the fleet from the prior.
    """
    counts = np.zeros((classes, 3, BINS), np.float64)
    counts[: len(residuals)] = residuals
    prior = np.diff(_prior(), axis=1)
    pooled = counts.sum(axis=0)
    fleet = (pooled + PRIOR_COUNT * prior) / (pooled.sum(axis=1, keepdims=True) + PRIOR_COUNT)
    shares = (counts + PRIOR_COUNT * fleet) / (counts.sum(axis=2, keepdims=True) + PRIOR_COUNT)
    table = np.zeros((classes * 3, BINS + 1))
    np.cumsum(shares.reshape(-1, BINS), axis=1, out=table[:, 1:])
    return table


def _quantiles(table: Cumulative, quantile: float) -> Column:
    """The quantile of each row, linear within a bin."""
    upper = np.clip((table < quantile).sum(axis=1), 1, BINS)
    rows = np.arange(len(table))
    below, above = table[rows, upper - 1], table[rows, upper]
    part = np.clip((quantile - below) / np.maximum(above - below, 1e-300), 0.0, 1.0)
    return np.asarray(EDGES[upper - 1] + part * (EDGES[upper] - EDGES[upper - 1]))


def _shares(table: Cumulative, group: NDArray[np.int64], off: Column) -> Column:
    """The cumulative share of each group at ``off``."""
    width = EDGES[1] - EDGES[0]
    position = np.clip((off - EDGES[0]) / width, 0.0, float(BINS))
    left = np.minimum(position.astype(np.int64), BINS - 1)
    low = table[group, left]
    return np.asarray(low + (position - left) * (table[group, left + 1] - low))


def deadline(
    prediction: Prediction,
    clients: NDArray[np.int64],
    goal: int,
    *,
    work: float | Column = 1.0,
    wished: float = WISHED,
    shortest: float = 1.0,
    longest: float = 3.0,
) -> float | None:
    """Seconds after which at least ``goal`` answers are there with probability ``wished``.

    Args:
        prediction: of the whole fleet.
        clients: those that are asked.
        goal: answers that the round wants.
        work: fraction of the task that each of them does.
        wished: probability.
        shortest: seconds that a round is given at least.
        longest: bound on the deadline, as a multiple of the clients' median time; it is the
            deadline too when the goal is not reached with this probability.

    Returns:
        Seconds, or None while nothing is known of a client.
    """
    if not len(clients) or not prediction.known[clients].all():
        return None
    median = prediction.training[clients] * work + prediction.transfer[clients]
    most = max(shortest, longest * float(np.median(median)))

    def enough(seconds: float) -> bool:
        return at_least(prediction.answered_by(seconds, clients, work), goal) >= wished

    if not enough(most) or enough(shortest):
        return shortest if enough(shortest) else most
    low, high = math.log(shortest), math.log(most)
    while high - low > 0.005:  # half a per cent of the time
        middle = (low + high) / 2
        low, high = (low, middle) if enough(math.exp(middle)) else (middle, high)
    return math.exp(high)
